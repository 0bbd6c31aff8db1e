"""MLflow's scoring protocol as callers use it, through gateway, queue and worker as processes of their own."""

from __future__ import annotations

import json

import httpx
import pytest

from auth.scopes import Scope
from tests.processes import Cluster
from tests.serving import ended, paused_workers

ROWS = [[1.0, 2.0], [0.1, -4.5]]
CSV = {"content-type": "text/csv"}
BODIES = {
    "inputs": ({"inputs": ROWS}, {}),
    "instances": ({"instances": [{"x": row} for row in ROWS]}, {}),
    "dataframe_split": ({"dataframe_split": {"columns": ["a", "b"], "data": ROWS}}, {}),
    "dataframe_records": ({"dataframe_records": [{"a": a, "b": b} for a, b in ROWS]}, {}),
    "csv": ("a,b\n1,2\n0.1,-4.5\n", CSV),
}


def invoke(caller: httpx.Client, path: str, body: object, headers: dict[str, str] | None = None) -> httpx.Response:
    content = body if isinstance(body, str | bytes) else json.dumps(body)
    return caller.post(path, content=content, headers={"content-type": "application/json"} | (headers or {}))


def error_of(answer: httpx.Response) -> tuple[int, str, str]:
    """Status, code and text of an error, in the one shape that MLflow's clients can read."""
    assert answer.headers["content-type"] == "application/json"
    assert list(answer.json()) == ["error_code", "message"]
    return answer.status_code, answer.json()["error_code"], answer.json()["message"]


@pytest.mark.parametrize(("body", "headers"), BODIES.values(), ids=BODIES.keys())
def test_every_form_is_answered_with_the_numbers_of_the_other_dialects(
    caller: httpx.Client, body: object, headers: dict[str, str]
):
    other = caller.post("/v1/models/double:predict", json={"instances": ROWS})

    answer = invoke(caller, "/models/double/invocations", body, headers)

    assert answer.status_code == 200, answer.text
    assert answer.json() == other.json()
    assert answer.headers["sluice-model-version"] == "1"


@pytest.mark.parametrize(
    ("path", "version", "factor"),
    [
        ("/models/times/invocations", "2", 3),
        ("/models/times/versions/1/invocations", "1", 2),
        ("/models/times/labels/stable/invocations", "1", 2),
        ("/endpoints/times/invocations", "2", 3),
    ],
)
def test_a_path_names_a_version_or_a_label(caller: httpx.Client, path: str, version: str, factor: float):
    answer = invoke(caller, path, {"inputs": [[1.5, 2.0]]})
    assert answer.json() == {"predictions": [[1.5 * factor, 2.0 * factor]]}
    assert answer.headers["sluice-model-version"] == version


def test_a_base_url_per_model_says_whether_it_can_be_asked_and_whose_protocol_it_speaks(caller: httpx.Client):
    for base in ("/models/times", "/models/times/versions/1", "/models/times/labels/stable"):
        for route in ("ping", "health"):
            assert (caller.get(f"{base}/{route}").status_code, caller.get(f"{base}/{route}").text) == (200, "\n")
        version = caller.get(f"{base}/version")
        assert version.headers["content-type"].startswith("text/plain")
        assert version.text.split(".")[0] == "3"
    assert error_of(caller.get("/models/none/ping"))[:2] == (404, "RESOURCE_DOES_NOT_EXIST")
    assert error_of(caller.get("/models/times/versions/9/ping"))[:2] == (404, "RESOURCE_DOES_NOT_EXIST")
    assert error_of(caller.get("/models/times/versions/x/ping"))[:2] == (400, "BAD_REQUEST")
    assert error_of(caller.get("/models/unready/ping"))[:2] == (503, "TEMPORARILY_UNAVAILABLE")


def test_errors_have_mlflows_codes_and_no_stack_traces(serving: Cluster, caller: httpx.Client):
    path, body = "/models/double/invocations", {"inputs": [[1, 2]]}
    stranger = httpx.Client(base_url=caller.base_url)
    with stranger:
        assert error_of(stranger.post(path, json=body))[:2] == (401, "UNAUTHENTICATED")
        assert error_of(stranger.get("/models/double/ping"))[:2] == (401, "UNAUTHENTICATED")
    with serving.caller("double", scopes=[Scope.MODELS_READ]) as reader:
        assert error_of(reader.post(path, json=body))[:2] == (403, "PERMISSION_DENIED")
        assert reader.get("/models/double/ping").status_code == 200
    assert error_of(caller.post("/models/none/invocations", json=body))[:2] == (404, "RESOURCE_DOES_NOT_EXIST")
    assert error_of(caller.post("/models/double/nothing", json=body))[:2] == (404, "RESOURCE_DOES_NOT_EXIST")
    assert error_of(caller.get(path))[:2] == (405, "BAD_REQUEST")
    large = caller.post(path, content=b" " * (17 * 1024**2), headers={"content-type": "application/json"})
    assert error_of(large)[:2] == (413, "BAD_REQUEST")
    unready = caller.post("/models/unready/invocations", json=body)
    assert error_of(unready)[:2] == (503, "TEMPORARILY_UNAVAILABLE")
    assert unready.headers["retry-after"]
    wrong = caller.post(path, json={"inputs": [[1, "a"]]})
    assert error_of(wrong) == (
        400,
        "BAD_REQUEST",
        "JSON Value: \"a\" Type: String is not of expected type: float at inputs[0][1]; input 'x' takes float of shape "
        "[-1,2]",
    )
    # what the model itself fails on
    assert error_of(caller.post("/models/table/invocations", json={"inputs": [99]}))[:2] == (500, "INTERNAL_ERROR")


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("application/vnd.apache.parquet", "This predictor only supports the following content types"),
        ("application/x-www-form-urlencoded", "Got 'application/x-www-form-urlencoded'."),
        ("application/json; charset=latin-1", "The scoring server only supports UTF-8"),
        ("application/json; format=pandas-split", "Unrecognized content type parameters: format."),
        ("te\u00e9xt/\u00ff" + "x" * 500, "Got 'text/"),
    ],
)
def test_other_content_types_are_refused_in_mlflows_words(caller: httpx.Client, kind: str, said: str):
    answer = caller.post(
        "/models/double/invocations", content=b"{}", headers=[(b"content-type", kind.encode("latin-1"))]
    )
    status, code, message = error_of(answer)
    assert (status, code) == (415, "BAD_REQUEST")
    assert said in message
    assert len(message) < 300


@pytest.mark.parametrize(
    "kind", [None, "application/json", 'Application/JSON; Charset="UTF-8";', "text/csv;charset=utf-8"]
)
def test_content_types_are_read_as_http_writes_them(caller: httpx.Client, kind: str | None):
    body = "a,b\n1,2\n" if kind is not None and "csv" in kind else '{"inputs": [[1, 2]]}'
    headers = {} if kind is None else {"content-type": kind}
    answer = caller.post("/models/double/invocations", content=body.encode(), headers=headers)
    assert answer.json() == {"predictions": [[2.0, 4.0]]}


@pytest.mark.parametrize("form", ["dataframe_split", "csv"])
def test_a_job_answers_in_the_dialect_of_its_request(caller: httpx.Client, form: str):
    body, headers = BODIES[form]
    expected = invoke(caller, "/models/double/invocations", body, headers).json()

    accepted = invoke(caller, "/models/double/invocations", body, {**headers, "prefer": "respond-async"})

    assert (accepted.status_code, accepted.headers["preference-applied"]) == (202, "respond-async")
    job = ended(caller, accepted.headers["location"].rpartition("/")[2])
    assert (job["state"], job["progress"]) == ("succeeded", {"done": 2, "total": 2})
    assert job["result"] == expected
    result = caller.get(accepted.headers["location"] + "/result")
    assert (result.json(), result.headers["content-type"]) == (expected, "application/json")
    waited = invoke(caller, "/models/double/invocations", body, {**headers, "prefer": "wait=20"})
    assert (waited.status_code, waited.json()) == (200, expected)


def test_what_does_not_fit_is_refused_before_it_is_a_job(serving: Cluster, caller: httpx.Client):
    with paused_workers(serving):
        refused = invoke(caller, "/models/double/invocations", "a\n1\n", {**CSV, "prefer": "respond-async"})
    assert error_of(refused)[:2] == (400, "BAD_REQUEST")
    assert "location" not in refused.headers
