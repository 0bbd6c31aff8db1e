"""Model cards, and what goes into them: evaluations on labelled samples, and classes by name from a running system."""

from __future__ import annotations

import html.parser
import json
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gateway.evaluating import EvaluationFailed, Tally
from gateway.markup import element
from gateway.model_card import POLICY, Facts, card
from gateway.model_views import VERSION_EXAMPLE, VersionShown
from gateway.plots import COLOURS, bars, table_of_counts
from model_store.evaluations import Evaluation
from model_store.model_settings import Metadata, ModelSettings
from model_store.samples import Kind, ModelSamples
from model_store.tables import State
from sluice.client import Client, Refused
from sluice.preparation import follow
from tests.browser import open_page
from tests.onnx_models import classifier
from tests.system import System

MODEL = "carded"
NAMES = ["ant", "bee", "cat", "dog", "eel", "fox", "gnu", "<hen>"]
EVIL = "<script>alert(1)</script>\"'&"


def images() -> np.ndarray:
    """Two of each class; the classifier takes the largest of eight blocks."""
    found = np.zeros((16, 64), np.float32)
    for row in range(16):
        found[row, 8 * (row % 8) : 8 * (row % 8) + 8] = 1.0
    return found


@pytest.fixture(scope="module")
def admin(system: System, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """With a version of a classifier that has class names, and labels of which one is wrong."""
    folder = tmp_path_factory.mktemp("cards")
    labels = np.arange(16) % 8
    labels[3] = 0
    np.savez(folder / "labelled.npz", x=images(), labels=labels)
    with system.admin() as sluice:
        uploaded = sluice.upload(MODEL, classifier(folder / "classifier.onnx"))
        follow(sluice, MODEL, uploaded["version"], lambda _: None)
        settings = {"class_names": NAMES, "description": EVIL, "tags": {"team": "zoo"}}
        sluice.put(f"/admin/models/{MODEL}/settings", settings)
        sluice.put_file(f"/admin/models/{MODEL}/samples/labelled", folder / "labelled.npz")
        yield sluice


@pytest.fixture(scope="module")
def caller(system: System, admin: Client) -> Iterator[Client]:
    """A client that may use it."""
    made = admin.post("/admin/clients", {"name": "of-carded", "scopes": ["predict"], "grants": [{"model": MODEL}]})
    with Client(system.base_url, made["id"], made["client_secret"]) as sluice:
        yield sluice


def named(sluice: Client, body: dict[str, object]) -> list[list[dict[str, object]]]:
    """Predictions, once the worker knows of the class names."""
    until = time.monotonic() + 30
    while "ant" not in str(found := sluice.post(f"/v1/models/{MODEL}:predict", body)) and time.monotonic() < until:
        time.sleep(0.2)
    return list(found["predictions"])


def test_classes_are_told_by_name_in_both_dialects_and_in_jobs(caller: Client):
    rows = images()[:2].tolist()
    found = named(caller, {"instances": rows, "top_k": 1})
    assert [[(one["index"], one["class"]) for one in row] for row in found] == [[(0, "ant")], [(1, "bee")]]

    job = caller.submit_body(MODEL, {"instances": rows, "top_k": 1})
    assert job.wait(60)["state"] == "succeeded"
    assert caller.get(f"/v1/jobs/{job.id}/result")["predictions"] == found

    asked = {
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [2, 64], "data": rows}],
        "outputs": [{"name": "y", "parameters": {"classification": 2}}],
    }
    (output,) = caller.post(f"/v2/models/{MODEL}/infer", asked)["outputs"]
    assert (output["datatype"], output["shape"]) == ("BYTES", [2, 2])
    assert [text.split(":")[1:] for text in output["data"][::2]] == [["0", "ant"], ["1", "bee"]]

    for address in (f"/v1/models/{MODEL}:predict", f"/v1/models/{MODEL}:submit"):
        with pytest.raises(Refused, match="top_k must be a number of classes"):
            caller.post(address, {"instances": rows, "top_k": 0})


@pytest.mark.long
def test_a_version_is_evaluated_and_its_card_shows_it(admin: Client):
    # when it has answered the labelled samples
    address = f"/admin/models/{MODEL}/versions/1"
    before = b"".join(admin.download(f"{address}/card")).decode()
    assert "has not yet answered them" in before
    found = admin.post(f"{address}/evaluation")
    assert (found["instances"], found["right"], found["accuracy"]) == (16, 15, 0.9375)
    assert found["counts"][0] == [2, 0, 0, 1, 0, 0, 0, 0], "one eel was labelled an ant"
    # then its card says so
    page = b"".join(admin.download(f"{address}/card")).decode()
    assert "15 of 16 samples right: 93.75%" in page
    assert "ant taken for dog: 1 (33.3%)" in page
    # and whatever else is known
    for said in ("onnx (serves)", "batch of 1", "onnxruntime", "[any, 64]", "team: zoo", "gnu, &lt;hen&gt;", "SHA-256"):
        assert said in page, said
    assert re.search(r"Evaluated 20\d\d-\d\d-\d\d \d\d:\d\d UTC on the samples with SHA-256 <code>[0-9a-f]{64}<", page)
    assert re.search(r'<code title="([0-9a-f]{12})([0-9a-f]{52})">\1</code>', page), (
        "a digest's beginning, with all of it"
    )
    assert re.search(r"<td>[0-9.]+ kB</td>", page)
    assert "<script" not in page


def test_what_is_said_of_the_model_and_of_the_version_are_both_shown():
    known = facts("of the model")
    own = replace(known.metadata, description="of the version")
    page = card(replace(known, metadata=own))
    assert page.index(">of the model</p>") < page.index(">of the version</p>")
    assert card(known).count(">of the model</p>") == 1
    assert "labels that point to it: of the model" in page


def test_warm_up_requests_and_samples_are_shown():
    known = facts("<ann>")
    page = card(known)
    assert "<pre>{&quot;instances&quot;: [&quot;&lt;ann&gt;&quot;]}</pre>" in page
    digest = '<td><code title="&lt;ann&gt;">&lt;ann&gt;</code></td>'
    said = f"<td>1,234</td><td>5.68 kB</td>{digest}<td>1970-01-01 00:00 UTC by &lt;ann&gt;"
    assert f"<td>&lt;ann&gt;</td>{said}</td>" in page
    assert f"<td>inputs</td>{said}, with version 7</td>" in page
    bare = card(replace(known, settings=ModelSettings(), samples=()))
    assert "Warm-up requests" not in bare
    assert ">Samples<" not in bare


def test_labelled_samples_that_were_not_asked_about_are_told_of():
    known = replace(facts("a"), evaluation=None)
    assert "has not yet answered them" not in card(known)
    labelled = ModelSamples(
        kind=Kind.LABELLED, digest="d", instances=1, size_bytes=1, uploaded_by="a", created_at=0, version=None
    )
    assert "has not yet answered them" in card(replace(known, samples=[labelled]))
    asked = replace(facts("d"), samples=[labelled])
    assert "replaced or deleted" not in card(asked)
    assert "replaced or deleted" in card(replace(asked, samples=()))


def test_an_evaluation_needs_samples_and_a_version_that_serves(admin: Client):
    with pytest.raises(Refused) as caught:
        admin.post(f"/admin/models/{MODEL}/versions/2/evaluation")
    assert caught.value.status == 404


def test_of_many_classes_no_square_of_counts_is_made():
    # A square of these would take eight terabytes.
    tally = Tally()
    scores = np.zeros((2, 1_000_000), np.float32)
    scores[0, 7] = 1
    tally.count(scores, np.array([7, 1], np.int64))
    found = tally.evaluation("d" * 64)
    assert (found.instances, found.right, found.classes, found.counts) == (2, 1, 1_000_000, ())
    with pytest.raises(EvaluationFailed, match="different numbers of classes"):
        tally.count(scores[:, :10], np.array([7, 1], np.int64))


def facts(said: str) -> Facts:
    """Everything that a person may have said, said with this."""
    tensors = [{"name": said, "dtype": "float32", "shape": [None, 3]}]
    known = {
        "state": State.END, "format": said, "error": {"code": said, "message": said}, "model": said, "digest": said,
        "uploaded_by": said, "signed_by": said, "labels": [said], "variants": [],
        "signature": {"inputs": tensors, "outputs": tensors},
        "further_signatures": [{"name": said, "max_batch": 8, "inputs": tensors, "outputs": tensors}],
        "report": {
            "steps": [{"name": said, "outcome": said, "seconds": 1, "detail": said}],
            "variants": [{"name": said, "runtime": said, "reason": said, "latency_ms": {said: 1.5}}],
        },
    }  # fmt: skip
    version = VersionShown.model_validate(VERSION_EXAMPLE | known)
    metadata = Metadata(said, (said, "b"), json.dumps({"kind": "text", "language": said}))
    evaluation = Evaluation(said, 3, 2, 2, ((1, 0), (1, 1)))
    settings = ModelSettings(metadata=metadata, tags={said: said}, warm_up=(json.dumps({"instances": [said]}),))
    stored = [
        ModelSamples(
            kind=kind, digest=said, instances=1234, size_bytes=5678, uploaded_by=said, created_at=0, version=brought
        )
        for kind, brought in ((said, None), (Kind.INPUTS, 7))
    ]
    return Facts(version, settings, metadata, None, evaluation, stored)


class Read(html.parser.HTMLParser):
    """The tags and attributes of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.names: set[str] = set()
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.names |= {name for name, _ in attrs}


@pytest.mark.parametrize(
    "said", [EVIL, "</title></style><img src=x onerror=alert(1)>", "'\"><svg onload=alert(1)>"], ids=["a", "b", "c"]
)
def test_nothing_that_anybody_says_becomes_markup(said: str):
    plain, evil = Read(card(facts("plain"))), Read(card(facts(said)))
    assert (evil.tags, evil.names) == (plain.tags, plain.names)
    assert not {"script", "img", "link"} & evil.tags
    assert not {name for name in evil.names if name.startswith("on") or name in {"href", "src", "style"}}


def test_the_pages_style_is_the_one_that_its_policy_allows():
    assert "script-src" not in POLICY
    assert re.search(r"style-src 'sha256-[A-Za-z0-9+/=]{44}'", POLICY)


def test_plots_say_their_figures_in_text():
    drawn = bars({"onnx": {"batch of 1": 0.5, "batch of 8": 50.0}, "pruned": {"batch of 1": 5.0}}, "ms", "Latency").text
    assert "onnx, batch of 8: 50 ms" in drawn
    found = re.findall(r'<rect [^>]*?width="([0-9.]+)" height="16" rx="2" fill="([^"]+)"', drawn)
    small, large, other = (float(width) for width, _ in found)
    assert other - small == pytest.approx(large - other, abs=0.2), "what is ten times as much is as much longer"
    assert [colour for _, colour in found] == [COLOURS[0], COLOURS[0], COLOURS[1]], "a colour for each variant"
    assert all(f">{tick} ms</text>" in drawn for tick in ("0.1", "1", "10", "100"))
    assert bars({"a": {"b": 0.0, "c": 1.0}}, "ms", "Nothing").text.count('width="1.0"') == 2
    table = table_of_counts(((3, 1), (0, 0)), ("a", "b"), "Counts").text
    assert "a taken for b: 1 (25.0%)" in table
    many = tuple(tuple(range(100)) for _ in range(100))
    assert table_of_counts(many, [str(one) for one in range(100)], "Counts").text.count("<rect") == 10_000
    assert element("p", "<", class_='"').text == '<p class="&quot;">&lt;</p>'


@pytest.mark.debian
def test_a_card_is_drawn_in_a_browser_by_its_own_policy(tmp_path: Path):
    page = card(facts(EVIL)).replace("</body>", "<script>document.title='run'</script></body>")
    file = tmp_path / "card.html"
    file.write_text(page)
    with open_page(file.as_uri(), tmp_path / "profile") as shown:
        assert "Labelled samples" in shown.html_with("Labelled samples")
        assert shown.evaluate("document.title") == f"{EVIL}, version 1", "no script runs, whoever put it there"
        assert shown.evaluate("getComputedStyle(document.querySelector('h2')).borderBottomStyle") == "solid"
        narrow = "document.body.style.width = '388px', document.body.scrollWidth"
        assert shown.evaluate(narrow) == 388 + 2 * 15, "on a telephone, tables are moved sideways, not the page"
        shown.evaluate("document.body.style.width = ''")
        drawn = "[...document.querySelectorAll('svg')].map(svg => svg.getBoundingClientRect().height > 20)"
        assert shown.evaluate(drawn) == [True, True]
