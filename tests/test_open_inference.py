"""The Open Inference Protocol as callers use it, through gateway, queue and worker as processes of their own."""

from __future__ import annotations

import re
import socket
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest

from tests.open_inference_kit import HEAD_LENGTH, answered, binary_request, infer, json_request
from tests.processes import Cluster
from tests.serving import ended, paused_workers

ROWS = np.array([[1.0, 2.0], [3.0, -4.5]], np.float32)
BINARY_OUTPUT = {"parameters": {"binary_data_output": True}}


def error_of(answer: httpx.Response) -> tuple[int, str]:
    """Status and text of an error, in the one shape that the protocol's clients can read."""
    assert answer.headers["content-type"] == "application/json"
    assert list(answer.json()) == ["error"]
    return answer.status_code, answer.json()["error"]


@pytest.mark.parametrize(("path", "version", "factor"), [("times", "2", 3), ("times/versions/1", "1", 2)])
def test_a_path_names_a_version_and_the_answer_says_which(caller: httpx.Client, path: str, version: str, factor: float):
    body, head = binary_request({"x": ROWS}, id="order-0815")
    answer = infer(caller, path, body, head)
    assert answer.headers["sluice-model-version"] == version
    found = answered(answer)
    assert found.document == {
        "id": "order-0815",
        "model_name": "times",
        "model_version": version,
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [2, 2], "data": (ROWS * factor).reshape(-1).tolist()}],
    }


def test_every_form_of_request_and_answer_has_the_numbers_of_the_other_dialect(caller: httpx.Client):
    odd = np.array([[0.1, 1e-30], [np.float32(1) / 3, 3.4e38]], np.float32)
    other = caller.post("/v1/models/double:predict", json={"instances": odd.tolist()})
    expected = np.array(other.json()["predictions"], np.float32)
    forms = [(json_request({"x": odd}, **more), {}) for more in ({}, BINARY_OUTPUT, {"nested": True})]
    for more in ({}, BINARY_OUTPUT):
        body, head = binary_request({"x": odd}, **more)
        forms.append((body, {HEAD_LENGTH: str(head)}))
    for body, headers in forms:
        found = answered(caller.post("/v2/models/double/infer", content=body, headers=headers)).outputs["y"]
        assert found.tobytes() == expected.tobytes()


def test_bytes_alone_are_answered_with_bytes(caller: httpx.Client):
    answer = infer(caller, "double", ROWS[:1].tobytes(), 0)
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answered(answer).outputs["y"].tolist() == [[2.0, 4.0]]


def test_integers_keep_every_bit(caller: httpx.Client):
    whole = np.array([[1, -2, 2**61 + 1]], np.int64)
    for body, head in ((json_request({"n": whole}), None), binary_request({"n": whole}, **BINARY_OUTPUT)):
        answer = infer(caller, "whole", body) if head is None else infer(caller, "whole", body, head)
        assert answered(answer).outputs["doubled"].tolist() == [[2, -4, 2**62 + 2]]


def test_infinity_and_nan_come_back_as_bare_tokens_or_bytes(caller: httpx.Client):
    odd = np.array([[np.inf, np.nan]], np.float32)
    body, head = binary_request({"x": odd})
    assert b"[Infinity,NaN]" in infer(caller, "double", body, head).content
    np.testing.assert_array_equal(answered(infer(caller, "double", json_request({"x": odd}))).outputs["y"], odd)


def test_a_request_id_comes_back_if_it_is_a_sane_one(caller: httpx.Client):
    body = json_request({"x": ROWS})
    assert infer(caller, "double", body, **{"X-Request-Id": "order-0815"}).headers["x-request-id"] == "order-0815"
    assert re.fullmatch("[0-9a-f]{16}", infer(caller, "double", body).headers["x-request-id"])


def test_a_body_that_does_not_fit_is_refused_with_the_place_and_no_job(caller: httpx.Client):
    wrong = json_request({"x": ROWS[:, :1]})
    expected = (400, "inputs[0].shape is [2,1]; input 'x' takes FP32 of shape [-1,2]")
    assert error_of(infer(caller, "double", wrong)) == expected
    refused = infer(caller, "double", wrong, Prefer="respond-async")
    assert error_of(refused) == expected
    assert "location" not in refused.headers


@pytest.mark.parametrize(
    ("length", "said"),
    [
        ("99999999999", "is no number of bytes that a body could have"),
        ("-1", "is no number of bytes that a body could have"),
        ("1e3", "is no number of bytes that a body could have"),
        ("4294967295", "is no number of bytes that a body could have"),
        ("4294967294", "Inference-Header-Content-Length is 4294967294, but the body has"),
        ("1000", "Inference-Header-Content-Length is 1000, but the body has"),
    ],
)
def test_a_length_that_cannot_be_is_refused(caller: httpx.Client, length: str, said: str):
    refused = caller.post("/v2/models/double/infer", content=json_request({"x": ROWS}), headers={HEAD_LENGTH: length})
    assert refused.status_code == 400
    assert said in error_of(refused)[1]


def test_what_one_may_not_use_is_as_unknown_as_what_does_not_exist(serving: Cluster):
    other, body = serving.caller("times"), json_request({"x": ROWS})
    for model in ("double", "nothing"):
        assert error_of(infer(other, model, body)) == (404, f"Request for unknown model: '{model}' is not found")
        for path in (f"/v2/models/{model}", f"/v2/models/{model}/ready"):
            assert error_of(other.get(path)) == (404, f"Request for unknown model: '{model}' is not found")
    assert error_of(infer(other, "times/versions/9", body))[0] == 404
    assert error_of(infer(serving.caller("unready"), "unready", body))[0] == 503


def test_without_a_token_nothing_is_told(caller: httpx.Client):
    with httpx.Client(base_url=caller.base_url) as stranger:
        for refused in (infer(stranger, "double", b"{}"), stranger.get("/v2"), stranger.get("/v2/models/double")):
            assert error_of(refused)[0] == 401
            assert refused.headers["www-authenticate"].startswith("Bearer")


def test_a_packed_body_and_one_over_the_limit_are_refused(caller: httpx.Client):
    packed = infer(caller, "double", json_request({"x": ROWS}), **{"Content-Encoding": "br"})
    assert error_of(packed) == (415, "send the body with Content-Encoding gzip or deflate, or without")
    head = f"POST /v2/models/double/infer HTTP/1.1\r\nHost: x\r\nAuthorization: {caller.headers['authorization']}\r\n"
    with socket.create_connection((caller.base_url.host, caller.base_url.port or 80), timeout=10) as connection:
        connection.sendall(f"{head}Content-Length: {16 * 1024**2 + 1}\r\n\r\n".encode())
        assert connection.recv(65_536).startswith(b"HTTP/1.1 413 ")


def test_predictions_that_wait_together_are_answered_each_in_its_own_dialect(serving: Cluster, caller: httpx.Client):
    binary, head = binary_request({"x": ROWS}, **BINARY_OUTPUT)
    with ThreadPoolExecutor(12) as threads:
        with paused_workers(serving):
            asked = [
                threads.submit(ask)
                for _ in range(4)
                for ask in (
                    lambda: caller.post("/v1/models/double:predict", json={"instances": ROWS.tolist()}),
                    lambda: infer(caller, "double", binary, head),
                    lambda: infer(caller, "double", json_request({"x": ROWS[:1]})),
                )
            ]
        answers = [future.result() for future in asked]
    for rows, as_bytes, as_text in zip(answers[::3], answers[1::3], answers[2::3], strict=True):
        assert rows.json() == {"predictions": (ROWS * 2).tolist()}
        assert answered(as_bytes).outputs["y"].tolist() == (ROWS * 2).tolist()
        assert answered(as_text).outputs["y"].tolist() == (ROWS[:1] * 2).tolist()


def test_a_job_s_result_comes_back_in_the_dialect_and_form_of_its_request(caller: httpx.Client):
    for body, head in (binary_request({"x": ROWS}, id="a", **BINARY_OUTPUT), binary_request({"x": ROWS}, id="a")):
        accepted = infer(caller, "double", body, head, Prefer="respond-async")
        assert (accepted.status_code, accepted.headers["preference-applied"]) == (202, "respond-async")
        job = ended(caller, accepted.json()["id"])
        assert (job["state"], job["progress"]) == ("succeeded", {"done": 2, "total": 2})
        bare = caller.get(f"/v1/jobs/{job['id']}/result")
        assert bare.content == infer(caller, "double", body, head).content
        assert answered(bare).outputs["y"].tolist() == (ROWS * 2).tolist()
        # A result that is JSON stands in the job's document too; one of bytes cannot.
        assert ("result" in job) == (HEAD_LENGTH not in bare.headers)
        if "result" in job:
            assert job["result"] == bare.json()


def test_a_job_that_ends_while_its_caller_waits_is_answered_at_once(caller: httpx.Client):
    body, head = binary_request({"x": ROWS}, **BINARY_OUTPUT)
    answer = infer(caller, "double", body, head, Prefer="wait=20")
    assert answer.headers["preference-applied"] == "wait=20"
    assert answered(answer).outputs["y"].tolist() == (ROWS * 2).tolist()


def test_a_large_job_s_input_and_result_come_back_from_the_store(caller: httpx.Client):
    many = np.arange(40_000, dtype=np.float32).reshape(-1, 2)
    body, head = binary_request({"x": many}, **BINARY_OUTPUT)
    accepted = infer(caller, "double", body, head, Prefer="respond-async")
    job = ended(caller, accepted.json()["id"])
    bare = caller.get(f"/v1/jobs/{job['id']}/result")
    assert answered(bare).outputs["y"].tobytes() == (many * 2).tobytes()


def test_requests_are_counted_by_their_route(caller: httpx.Client):
    def counted() -> float:
        series = caller.get("/metrics").text.splitlines()
        ours = [line for line in series if 'route="/v2/models/{model}/infer"' in line and 'model="double"' in line]
        return sum(float(line.split()[-1]) for line in ours if line.startswith("sluice_requests_total"))

    before = counted()
    infer(caller, "double", json_request({"x": ROWS}))
    assert counted() >= before + 1


def test_the_server_says_what_it_is_and_that_it_is_well(caller: httpx.Client):
    told = caller.get("/v2").json()
    assert (told["name"], told["version"], "binary_tensor_data" in told["extensions"]) == ("sluice", "0.1.0", True)
    assert httpx.get(f"{caller.base_url}/v2/health/live").json() == {"live": True}
    ready = httpx.get(f"{caller.base_url}/v2/health/ready")
    assert (ready.status_code, ready.json()) == (200, {"live": True, "ready": True})


def test_a_model_s_metadata_says_what_it_takes_and_gives(caller: httpx.Client):
    tensors = {
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 2]}],
    }
    expected = {"name": "times", "versions": ["1", "2"], "platform": "sluice_model", **tensors}
    for path in ("times", "times/versions/1"):
        assert caller.get(f"/v2/models/{path}").json() == expected
    assert caller.get("/v2/models/times/versions/9").status_code == 404
    assert error_of(caller.get("/v2/models/times/versions/one"))[0] == 400


def test_a_version_is_ready_if_it_can_be_asked(caller: httpx.Client):
    for path in ("times", "times/versions/1"):
        ready = caller.get(f"/v2/models/{path}/ready")
        assert (ready.status_code, ready.json()) == (200, {"name": "times", "ready": True})
    assert error_of(caller.get("/v2/models/unready/ready"))[0] == 503
    assert error_of(caller.get("/v2/models/times/versions/9/ready"))[0] == 404
