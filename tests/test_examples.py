"""`:classify` and `:regress` as callers ask for them, through gateway, queue and worker as processes of their own."""

from __future__ import annotations

import httpx
import pytest

from tests.serving import ended

PAIRS = {"context": {"x": [1.0, 2.0]}, "examples": [{}, {"x": [3.0, -4.5]}]}
ROWS = {"instances": [[1.0, 2.0], [3.0, -4.5]]}


def classes(factor: float) -> dict[str, object]:
    return {"results": [[["", factor * value] for value in row] for row in ROWS["instances"]]}


@pytest.mark.parametrize(
    ("path", "version", "factor"),
    [("times", "2", 3), ("times/versions/1", "1", 2), ("times/labels/stable", "1", 2)],
)
def test_examples_are_classified_by_the_version_that_the_path_names(
    caller: httpx.Client, path: str, version: str, factor: float
):
    answer = caller.post(f"/v1/models/{path}:classify", json=PAIRS)
    assert (answer.status_code, answer.headers["sluice-model-version"]) == (200, version)
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == classes(factor)


def test_a_regression_has_the_numbers_of_the_prediction(caller: httpx.Client):
    found = caller.post("/v1/models/table:regress", json={"examples": [{"n": 3}, {"n": [0]}]})
    assert found.json() == {"results": [3.5, 0.5]}
    predicted = caller.post("/v1/models/table:predict", json={"instances": [3, 0]}).json()
    assert found.json()["results"] == predicted["predictions"]


def test_a_job_of_examples_has_its_result_in_their_dialect(caller: httpx.Client):
    accepted = caller.post("/v1/models/double:classify", json=PAIRS, headers={"prefer": "respond-async"})
    assert (accepted.status_code, accepted.headers["preference-applied"]) == (202, "respond-async")
    assert ended(caller, accepted.json()["id"])["state"] == "succeeded"
    result = caller.get(f"{accepted.headers['location']}/result")
    assert (result.status_code, result.json()) == (200, classes(2))
    waited = caller.post("/v1/models/double:classify", json=PAIRS, headers={"prefer": "wait=30"})
    assert (waited.status_code, waited.json()) == (200, classes(2))


@pytest.mark.parametrize("prefer", ["", "respond-async"])
@pytest.mark.parametrize(
    ("path", "body", "status", "text"),
    [
        ("double:regress", PAIRS, 400, "Expected Regression Outputs Tensor shape to be either"),
        ("table:classify", {"examples": [{"n": 1}]}, 400, "Expected classification signature outputs"),
        ("table:regress", {"examples": [{"m": 1}]}, 400, "Feature: n (data type: int64) is required"),
        ("table:regress", {"instances": [1]}, 400, "key 'examples' is expected and was not found"),
        ("unready:classify", PAIRS, 503, "is being prepared"),
        ("unknown:regress", PAIRS, 404, "Servable not found for request: Latest(unknown)"),
    ],
)
def test_what_does_not_fit_is_refused_at_once_and_as_a_job(
    caller: httpx.Client, path: str, body: object, status: int, text: str, prefer: str
):
    answer = caller.post(f"/v1/models/{path}", json=body, headers={"prefer": prefer})
    assert answer.status_code == status
    assert text in answer.json()["error"]


def test_what_the_model_fails_on_is_told_in_the_same_shape(caller: httpx.Client):
    answer = caller.post("/v1/models/table:regress", json={"examples": [{"n": 99}]})
    assert answer.status_code >= 400
    assert set(answer.json()) == {"error"}


def test_the_open_inference_protocol_knows_labels_too(caller: httpx.Client):
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}
    answer = caller.post("/v2/models/times/labels/stable/infer", json={"inputs": [tensor]})
    assert (answer.status_code, answer.json()["model_version"]) == (200, "1")
    assert answer.json()["outputs"][0]["data"] == [2, 4]
    unknown = caller.post("/v2/models/times/labels/canary/infer", json={"inputs": [tensor]})
    assert (unknown.status_code, unknown.json()) == (400, {"error": "Unrecognized servable version label: canary"})
