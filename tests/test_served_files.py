"""Files as input, through gateway, queue and worker as processes of their own: every way gives the same numbers."""

from __future__ import annotations

import json

import httpx
import numpy as np
import pytest

from tests.file_kit import Sending, form, image, numbers_in, recording, ways
from tests.processes import Cluster
from tests.serving import DESCRIBED, ended

PIXELS = np.random.default_rng(7).integers(0, 256, (2, 4, 6, 3), dtype=np.uint8)
MEAN = (0.1, 0.2, 0.3)


@pytest.fixture(scope="module")
def sender(serving: Cluster) -> httpx.Client:
    return serving.caller("double", *DESCRIBED)


def send(sender: httpx.Client, one: Sending, **headers: str) -> httpx.Response:
    return sender.post(one.path, content=one.content, headers=one.headers | headers)


def as_numbers(sender: httpx.Client, model: str, instances: np.ndarray) -> np.ndarray:
    """What the model answers to an array that its caller made, as float32."""
    answer = sender.post(f"/v1/models/{model}:predict", json={"instances": instances.tolist()})
    return numbers_in(answer.raise_for_status().json(), instances.shape)


@pytest.mark.parametrize("count", [1, 2], ids=["one", "two"])
def test_an_image_has_the_numbers_of_its_array_however_it_comes_and_as_a_job(sender: httpx.Client, count: int):
    pixels = PIXELS[:count]
    decoded = (-1 + pixels.astype(np.float64) / 255 * 2 - np.array(MEAN)).astype(np.float32)
    expected = as_numbers(sender, "picture", decoded)
    for one in ways("picture", [image(each) for each in pixels], "image/png"):
        answer = send(sender, one)
        assert answer.status_code == 200, (one.way, answer.text)
        assert numbers_in(answer.json(), decoded.shape).tobytes() == expected.tobytes(), one.way
        waited = send(sender, one, prefer="wait=30")
        assert waited.status_code == 200, (one.way, waited.text)
        assert waited.headers["location"].startswith("/v1/jobs/")
        assert waited.content == answer.content or one.path.startswith("/v2"), one.way
        assert numbers_in(waited.json(), decoded.shape).tobytes() == expected.tobytes(), one.way


@pytest.mark.parametrize(
    ("format", "content_type"), [("WAV", "audio/wav"), ("FLAC", "audio/flac")], ids=["wav", "flac"]
)
def test_a_recording_has_the_numbers_of_its_samples_however_it_comes(
    sender: httpx.Client, format: str, content_type: str
):
    # given one that is shorter than the model's input, in steps that 16 bits hold
    samples = np.round(np.sin(np.arange(60) / 5) * 1000) / 2**15
    expected = as_numbers(sender, "sound", np.pad(samples, (0, 20)).astype(np.float32)[None])
    for one in ways("sound", [recording(samples, 800, format)], content_type):
        answer = send(sender, one)
        assert answer.status_code == 200, (one.way, answer.text)
        assert numbers_in(answer.json(), (1, 80)).tobytes() == expected.tobytes(), one.way


def test_a_text_is_a_string_and_json_stays_json_whatever_it_is_called(sender: httpx.Client):
    path, plain = "/v1/models/words:predict", {"content-type": "text/plain; charset=utf-8"}
    raw = sender.post(path, content="Ärger IM Büro, schon wieder".encode(), headers=plain)
    content, kind = form([("x", b"One"), ("x", b"TWO")])
    parts = sender.post(path, content=content, headers={"content-type": kind})
    called_text = [
        sender.post(path, content=space + b'{"instances": [["As It Is"]]}', headers=plain)
        for space in (b"", b"\r\n\t ")
    ]
    # by the input specification: lower case, 20 characters; what comes as a string comes as it is
    assert raw.json() == {"predictions": [["ärger im büro, schon"]]}
    assert parts.json() == {"predictions": [["one"], ["two"]]}
    assert [answer.json() for answer in called_text] == [{"predictions": [["As It Is"]]}] * 2


def test_a_model_without_an_input_specification_says_how_to_set_one(sender: httpx.Client):
    for one in ways("double", [image(PIXELS[0])], "image/png"):
        for answer in (send(sender, one), send(sender, one, prefer="respond-async")):
            assert answer.status_code == 400, one.way
            assert "sluice models settings set MODEL --input FILE" in answer.json()["error"], answer.text


@pytest.mark.parametrize("verb", ["classify", "regress", "explain"])
def test_where_files_come_in_json_alone_it_is_said(sender: httpx.Client, verb: str):
    answer = sender.post(f"/v1/models/picture:{verb}", content=image(PIXELS[0]), headers={"content-type": "image/png"})
    assert (answer.status_code, "in JSON" in answer.json()["error"]) == (415, True), answer.text


@pytest.mark.parametrize(
    ("path", "kind", "words"),
    [
        ("v1/models/picture:predict", "application/x-yaml", "an image (image/…)"),
        ("v1/models/picture:submit", "application/octet-stream", "a form of these (multipart/form-data)"),
        ("v2/models/picture/infer", "image/png", "/v1/models/{model}:predict takes files as they are"),
        ("v2/models/picture/versions/1/infer", "application/xml", "as elements of BYTES"),
    ],
)
def test_a_type_that_no_dialect_of_the_address_reads_is_refused_by_what_it_takes(
    sender: httpx.Client, path: str, kind: str, words: str
):
    answer = sender.post(f"/{path}", content=image(PIXELS[0]), headers={"content-type": kind})
    assert (answer.status_code, answer.headers["sluice-error-code"]) == (415, "content_type_unsupported")
    error = answer.json()["error"]
    assert error.startswith("this address takes JSON (application/json)")
    assert words in error
    assert error.endswith(f"Got '{kind}'.")


def test_a_file_that_cannot_be_read_is_refused_before_it_is_a_job_where_its_beginning_tells(sender: httpx.Client):
    path, kind = "/v1/models/picture:submit", {"content-type": "image/png"}
    for data, words in ((b"GIF89a", "begins otherwise"), (recording(np.zeros(9), 800), "begins as WAV")):
        answer = sender.post(path, content=data, headers=kind)
        assert (answer.status_code, words in answer.json()["error"]) == (400, True), answer.text
    damaged = image(PIXELS[0])[:60]
    accepted = sender.post(path, content=damaged, headers=kind)
    assert accepted.status_code == 202
    failed = ended(sender, accepted.json()["id"])
    assert (failed["state"], failed["error"]) == (
        "failed",
        {"code": "input_invalid", "message": "x[0]: it is no PNG, JPEG, WEBP image that can be read"},
    )


def test_neighbours_of_a_damaged_file_are_answered(sender: httpx.Client):
    good = image(PIXELS[0])
    answers = [
        sender.post("/v1/models/picture:predict", content=data, headers={"content-type": "image/png"})
        for data in (good, good[:60], good)
    ]
    assert [answer.status_code for answer in answers] == [200, 400, 200]
    assert answers[0].content == answers[2].content


@pytest.mark.parametrize(
    ("content", "content_type", "words"),
    [
        pytest.param(b"x", "multipart/form-data", "names no boundary", id="no-boundary"),
        pytest.param(b"nonsense", "multipart/form-data; boundary=b", "not the form", id="no-form"),
        pytest.param(b"--b\r\n", "multipart/form-data; boundary=b", "ends before", id="truncated"),
        pytest.param(b"--b--\r\n", "multipart/form-data; boundary=b", "form", id="empty"),
        pytest.param(form([("y", b"1")])[0], form([])[1], "expected x, but got y", id="another-name"),
    ],
)
def test_a_form_that_is_none_is_refused(sender: httpx.Client, content: bytes, content_type: str, words: str):
    answer = sender.post("/v1/models/picture:predict", content=content, headers={"content-type": content_type})
    assert answer.status_code == 400
    assert words in json.loads(answer.content)["error"], answer.text


def test_a_dry_run_tells_what_a_file_becomes_and_what_is_wrong_with_it(sender: httpx.Client):
    path, kind = "/v1/models/picture:predict?validate_only=true", {"content-type": "image/png"}
    understood = sender.post(path, content=image(PIXELS[0]), headers=kind)
    assert understood.json()["inputs"] == [{"name": "x", "dtype": "float32", "shape": [1, 4, 6, 3]}], understood.text
    refused = sender.post(path, content=b"GIF89a", headers=kind)
    assert (refused.status_code, "begins otherwise" in refused.json()["error"]) == (400, True)
