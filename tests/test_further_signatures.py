"""Several signatures of one version: which of them a request means, and that their instances never meet."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from auth.grants import GrantSpec
from auth.scopes import Scope
from gateway.dry_runs import with_example
from gateway.model_interface import Facts, document
from gateway.model_status import metadata_of
from model_store.catalog import CatalogVersion
from model_store.database import transaction
from model_store.further_signatures import NO_FURTHER, FurtherSignature, FurtherSignatures
from model_store.model_settings import Metadata
from model_store.registry import publish
from model_store.signature import Signature, Tensors, TensorSpec
from model_store.tables import State
from tests.live_gateway import LiveGateway, live_gateway
from tests.open_inference_kit import binary_request, json_request, read_answer
from tests.queue_kit import SIGNATURE, doubling_model
from workers.batches import Loaded, predict_all
from workers.errors import InputInvalid
from workers.protocols.body import TEXT, Body, Dialect
from workers.protocols.contract import Contract
from workers.protocols.dialects import GRAMMARS
from workers.runner.savedmodel import stored_name
from workers.runtimes.onnx import OnnxPredictor

# Takes and gives what the default does, under the same names.
TRIPLED = replace(SIGNATURE, name="tripled")
TEXTS = Signature(
    (TensorSpec("words", "string", (None,)), TensorSpec("times", "int64", (None, 2))),
    (TensorSpec("joined", "string", (None,)),),
    "texts",
)
SCORED = Signature(
    (TensorSpec("x", "float32", (None, 2)),),
    (TensorSpec("classes", "string", (None, 3)), TensorSpec("scores", "float32", (None, 3))),
    "classification",
)
ONE = Signature((TensorSpec("x", "float32", (None, 2)),), (TensorSpec("outputs", "float32", (None,)),), "valued")
FURTHER = FurtherSignatures(tuple(FurtherSignature(one, 4) for one in (TRIPLED, TEXTS, SCORED, ONE)), ("serve",))
CONTRACT = Contract("m", 1, SIGNATURE, 100).with_further(FURTHER)
NOT_THERE = "Serving signature name: \"x\" not found in signature def; use 'serving_default'"


def meant(body: dict[str, object], dialect: Dialect = Dialect.TENSORFLOW_SERVING) -> tuple[str, Tensors]:
    """The name of the signature that a request is to, empty for the default, and its tensors."""
    request = GRAMMARS[dialect].parse(Body(json.dumps(body).encode(), dialect), CONTRACT)
    return getattr(getattr(request, "terms", None), "named", ""), request.tensors


def refused(body: dict[str, object], dialect: Dialect = Dialect.TENSORFLOW_SERVING) -> str:
    with pytest.raises(InputInvalid) as caught:
        meant(body, dialect)
    return caught.value.message


def test_what_is_kept_of_a_version_comes_back():
    found = FurtherSignatures.from_json(FURTHER.to_json())
    assert [one.signature.name for one in found.listed] == ["tripled", "texts", "classification", "valued"]
    assert found == FURTHER
    assert (NO_FURTHER.to_json(), FurtherSignatures.from_json(None)) == (None, NO_FURTHER)


@pytest.mark.parametrize("name", ["", "serving_default", "tensorflow/serving/predict", "serve"])
def test_the_default_goes_by_all_its_names(name: str):
    found, tensors = meant({"signature_name": name, "instances": [[1.0, 2.0]]})
    assert (found, tensors["x"].tolist()) == ("", [[1.0, 2.0]])
    assert meant({"instances": [[1.0, 2.0]]})[0] == ""


def test_a_further_signature_is_chosen_by_its_name_and_reads_its_own_inputs():
    assert meant({"signature_name": "tripled", "instances": [[1.0, 2.0]]})[0] == "tripled"
    name, tensors = meant({"signature_name": "texts", "instances": [{"words": "a", "times": [1, 2]}]})
    assert (name, tensors["words"].tolist(), tensors["times"].dtype) == ("texts", [b"a"], np.int64)
    assert "keys must be equal to: words,times" in refused({"signature_name": "texts", "instances": [{"x": [1, 2]}]})


def test_a_name_that_is_not_there_is_refused_as_by_tensorflow_serving_with_those_that_are():
    told = refused({"signature_name": "x", "instances": [[1.0, 2.0]]})
    assert told.startswith(NOT_THERE)
    assert "'serve' or 'tripled' or 'texts'" in told
    examples = {"signature_name": "x", "examples": [{"x": [1.0, 2.0]}]}
    assert refused(examples, Dialect.CLASSIFY).startswith(NOT_THERE)
    parameter = json.loads(json_request({"x": np.ones((1, 2), np.float32)}, parameters={"signature_name": "x"}))
    assert refused(parameter, Dialect.OPEN_INFERENCE).startswith(NOT_THERE)


def test_a_signature_of_its_own_goes_before_what_the_default_may_be_called():
    examples = {"examples": [{"x": [1.0, 2.0]}]}
    assert meant(examples, Dialect.CLASSIFY)[0] == ""
    assert meant(examples | {"signature_name": "classification"}, Dialect.CLASSIFY)[0] == "classification"
    assert meant(examples | {"signature_name": "valued"}, Dialect.REGRESS)[0] == "valued"
    # The default is two numbers an instance: none to tell.
    assert "outputs" in refused(examples, Dialect.REGRESS)


def test_explanations_are_of_the_default_only():
    told = refused({"signature_name": "tripled", "instances": [[1.0, 2.0]]}, Dialect.EXPLAIN)
    assert told == 'Serving signature name: "tripled" not found in signature def; use ' + (
        "'serving_default' or 'tensorflow/serving/predict' or 'serve'"
    )


class Tripled:
    """Another model with the same tensors, in the place of a further signature."""

    def __init__(self, folder: Path) -> None:
        own = OnnxPredictor(doubling_model(folder / "two.onnx"), SIGNATURE, 0)
        other = OnnxPredictor(doubling_model(folder / "three.onnx", 3.0), TRIPLED, 0)
        further = Loaded(CONTRACT.further["tripled"], other, 4, 1, None)
        contract = replace(CONTRACT, further={"tripled": CONTRACT.further["tripled"]})
        self.loaded = Loaded(contract, own, 16, 1, 0.0001, further={"tripled": further})
        self.ran: list[tuple[str, int]] = []

    def __call__(self, tensors: Tensors, of: Loaded | None = None, /) -> Tensors:
        self.ran.append((of.contract.named if of else "", len(tensors["x"])))
        return (of or self.loaded).run(tensors)


def rows(name: str, *numbers: float) -> Body:
    asked = {"signature_name": name} if name else {}
    return Body(json.dumps({**asked, "instances": [[number, 0.0] for number in numbers]}).encode())


def test_instances_of_different_signatures_never_share_an_inference(tmp_path: Path):
    run = Tripled(tmp_path)
    bodies = [rows("", 1), rows("tripled", 1, 2), rows("", 3), rows("tripled", 4, 5, 6), rows("serving_default", 7)]
    outcomes = predict_all(run.loaded, bodies, run)
    answers = [[row[0] for row in json.loads(one.data)["predictions"]] for one in outcomes if isinstance(one, Body)]
    assert answers == [[2], [3, 6], [6], [12, 15, 18], [14]]
    # Each by as few inferences as its own limit allows.
    assert run.ran == [("", 3), ("tripled", 4), ("tripled", 1)]
    # What runs counts for the version, whichever of its signatures it is.
    counted = run.loaded.tallies.take(2)[("m", 1)]
    assert (counted.executions, counted.instances, counted.computed) == (3, 8, 5)
    plain = predict_all(run.loaded, bodies)
    assert [one.data for one in plain if isinstance(one, Body)] == [
        one.data for one in outcomes if isinstance(one, Body)
    ]


@pytest.mark.parametrize("binary", [False, True])
def test_the_open_inference_protocol_chooses_by_a_parameter_also_what_it_has_planned_before(
    tmp_path: Path, binary: bool
):
    run = Tripled(tmp_path)
    x = {"x": np.array([[1.0, 0.5]], np.float32)}
    bodies = []
    for name in ("", "tripled", "serving_default", "tripled", ""):
        parameters = {"parameters": {"signature_name": name}} if name else {}
        data, head = binary_request(x, **parameters) if binary else (json_request(x, **parameters), TEXT)
        bodies.append(Body(data, Dialect.OPEN_INFERENCE, head))
    outcomes = predict_all(run.loaded, bodies)
    found = [read_answer(one.data, one.head).outputs["y"][0, 0] for one in outcomes if isinstance(one, Body)]
    assert found == [2.0, 3.0, 2.0, 3.0, 2.0]


def test_a_plan_does_not_outlive_the_signature_that_it_was_made_for():
    data, head = binary_request({"x": np.ones((1, 2), np.float32)}, parameters={"signature_name": "gone"})
    gone = FurtherSignatures((FurtherSignature(replace(SIGNATURE, name="gone"), 4),))
    plain = Contract("gone", 1, SIGNATURE, 100)
    body, parse = Body(data, Dialect.OPEN_INFERENCE, head), GRAMMARS[Dialect.OPEN_INFERENCE].parse
    assert parse(body, plain.with_further(gone)).instances == 1
    with pytest.raises(InputInvalid, match="not found in signature def"):
        parse(body, plain)


def test_the_metadata_list_every_signature():
    found = metadata_of("m", 1, SIGNATURE, FURTHER).metadata.signature_def.signature_def
    assert set(found) == {"serving_default", "classification", "serve", "tripled", "texts", "valued"}
    assert found["texts"].inputs["words"].dtype == "DT_STRING"
    assert set(found["classification"].outputs) == {"classes", "scores"}
    assert found["serve"].outputs == found["serving_default"].outputs


def test_a_versions_own_description_tells_what_each_signature_takes():
    described = document(Facts("m", 1, "", SIGNATURE, 64, Metadata(), further=FURTHER))
    assert "* by the `signature_name` `texts` takes `words: string" in described["info"]["description"]
    assert "/v1/models/m:regress" in described["paths"]
    own, *others = described["components"]["schemas"]["PredictRequest"]["anyOf"]
    assert own["properties"]["signature_name"]["enum"][:2] == ["serving_default", "serve"]
    named = {one["properties"]["signature_name"]["const"]: one for one in others}
    assert named.keys() == {"tripled", "texts", "classification", "valued"}
    assert "signature_name" in named["texts"]["required"]


def test_a_refused_dry_run_shows_a_body_for_the_signature_that_was_named():
    version = CatalogVersion(1, State.AVAILABLE, None, None, SIGNATURE, 8, 1, None, None, further=FURTHER)
    body = Body(b'{"signature_name": "texts", "instances": [1]}')
    told = with_example(InputInvalid("no"), "m", version, body).members
    assert told is not None
    assert [row["name"] for row in told["expected"]] == ["words", "times"]
    assert meant(told["example"])[0] == "texts"


def test_a_signature_that_was_called_serving_default_is_stored_under_the_name_of_the_chosen_one():
    stored = [stored_name(name, "chosen") for name in ("chosen", "serving_default", "other")]
    assert stored == ["serving_default", "chosen", "other"]
    assert [stored_name(name, "serving_default") for name in ("serving_default", "other")] == stored[::2]


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[LiveGateway]:
    with live_gateway(tmp_path, redis_url="redis://127.0.0.1:1/0") as made:
        yield made


def test_the_administrators_view_and_the_metadata_over_http_show_them(gateway: LiveGateway):
    with transaction(gateway.parts.sessions) as session:
        publish(session, "several", format="savedmodel", digest="d" * 64, size_bytes=9, uploaded_by="t")
    gateway.make_available("several", 1, SIGNATURE, FURTHER)
    with gateway.client([Scope.MODELS_READ, Scope.MODELS_WRITE, Scope.PREDICT], [GrantSpec("*")]) as client:
        shown = json_of(client, "/admin/models/several/versions/1")
        metadata = json_of(client, "/v1/models/several/metadata")["metadata"]["signature_def"]["signature_def"]
    assert shown["signature_names"] == ["serving_default", "serve"]
    assert {one["name"]: one["max_batch"] for one in shown["further_signatures"]} == {
        "tripled": 4, "texts": 4, "classification": 4, "valued": 4,
    }  # fmt: skip
    assert metadata["tripled"]["inputs"].keys() == {"x"}


def json_of(client: httpx.Client, path: str) -> dict[str, Any]:
    answer = client.get(path)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())
