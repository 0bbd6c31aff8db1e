"""OpenAI's batch files: checked as a whole before they run, and each line answered under its custom_id."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest

from model_store.signature import Signature, TensorSpec
from workers.errors import InputInvalid, WorkerCrashed
from workers.files.batch_requests import FAILED_BEGINS, MOST_LINES, BatchRequests, LineInvalid
from workers.files.contract import Asked, ChunkSize, Refused
from workers.protocols.contract import Contract

ENDPOINT = "/v1/models/pair:predict"
SIGNATURE = Signature((TensorSpec("x", "float32", (None, 2)),), (TensorSpec("y", "float32", (None,)),))
CONTRACT = Contract("pair", 1, SIGNATURE, max_instances=100)
SIZE = ChunkSize(rows=100, size_bytes=10_000, row_bytes=1_000)
BODY = {"instances": [[1.0, 2.0]]}


def line(custom_id: object = "a", **members: object) -> dict[str, object]:
    return {"custom_id": custom_id, "method": "POST", "url": ENDPOINT, "body": BODY, **members}


def file_of(*lines: object) -> io.BytesIO:
    return io.BytesIO(b"".join(json.dumps(one).encode() + b"\n" for one in lines))


def checked(file: io.BytesIO) -> int:
    """How many requests the chunks of a file have, which is what it is counted to have."""
    format = BatchRequests(ENDPOINT)
    rows = sum(chunk.rows for chunk in format.chunks(file, CONTRACT, SIZE, None))
    assert format.total(file, CONTRACT, lambda: None) == rows
    return rows


def answers(*lines: bytes) -> list[dict[str, object]]:
    """What a model that adds the two numbers answers."""
    found = []
    data = b"\n".join(lines) + b"\n"
    for piece in BatchRequests().pieces(Asked(7, len(lines), data, {"row_bytes": 1_000}), CONTRACT):
        if isinstance(piece, Refused):
            assert piece.line.startswith(FAILED_BEGINS)
            found.append(json.loads(piece.line))
        else:
            body = piece.format({"y": piece.tensors["x"].sum(axis=1, dtype=np.float32)}, CONTRACT)
            assert not body.data.startswith(FAILED_BEGINS)
            found.append(json.loads(body.data))
    return found


def test_a_good_file_has_as_many_requests_as_lines():
    assert checked(file_of(line("a"), line("b", extra=1), line("ü" * 512))) == 3
    assert checked(io.BytesIO(b"")) == 0


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        pytest.param([1], "invalid_json_line", id="no-object"),
        pytest.param(
            {"method": "POST", "url": ENDPOINT, "body": BODY}, "missing_required_parameter", id="no-custom-id"
        ),
        pytest.param(line(""), "missing_required_parameter", id="empty-custom-id"),
        pytest.param(line(5), "missing_required_parameter", id="number-as-custom-id"),
        pytest.param(line("x" * 513), "missing_required_parameter", id="long-custom-id"),
        pytest.param(line(method="GET"), "invalid_method", id="method"),
        pytest.param(line(url="/v1/models/other:predict"), "mismatched_endpoint", id="url"),
        pytest.param(line(body=[1.0]), "missing_required_parameter", id="body"),
        pytest.param(line("first"), "duplicate_custom_id", id="twice"),
    ],
)
def test_the_first_bad_line_is_named_and_nothing_is_run(bad: object, code: str):
    with pytest.raises(LineInvalid) as refusal:
        checked(file_of(line("first"), line("second"), bad))
    assert (refusal.value.code, refusal.value.line) == (code, 3)
    assert refusal.value.message.startswith("line 3: ")


def test_a_custom_id_that_comes_again_is_found_however_far_away():
    lines = [line(str(number)) for number in range(20_000)]
    with pytest.raises(LineInvalid) as refusal:
        checked(file_of(*lines, line("17")))
    assert (refusal.value.code, refusal.value.line) == ("duplicate_custom_id", 20_001)


@pytest.mark.parametrize("content", [b"{", b"\n", b"\xff\n", b'{"a":1} x\n'])
def test_what_is_no_json_is_named(content: bytes):
    with pytest.raises(LineInvalid) as refusal:
        checked(io.BytesIO(file_of(line()).getvalue() + content))
    assert (refusal.value.code, refusal.value.line) == ("invalid_json_line", 2)


def test_more_lines_than_a_batch_may_have_are_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("workers.files.batch_requests.MOST_LINES", 2)
    assert MOST_LINES >= 50_000
    with pytest.raises(LineInvalid) as refusal:
        checked(file_of(line("a"), line("b"), line("c")))
    assert refusal.value.code == "too_many_lines"


def test_chunks_are_runs_of_the_files_own_lines():
    file = file_of(*(line(str(number)) for number in range(250)))
    chunks = list(BatchRequests(ENDPOINT).chunks(file, CONTRACT, SIZE, None))
    assert [chunk.first_row for chunk in chunks][:2] == [0, chunks[0].rows]
    assert sum(chunk.rows for chunk in chunks) == 250


def test_each_line_is_answered_under_its_custom_id_wherever_its_body_stands():
    last = json.dumps(line('"quoted" ü')).encode()
    in_text = json.dumps(line('the "body": {')).encode()
    found = answers(last, b'{"body":{"inputs":[[3,4],[5,6]]},"custom_id":"b","url":"/v1"}', in_text)
    assert [one["custom_id"] for one in found] == ['"quoted" ü', "b", 'the "body": {']
    assert [one["id"] for one in found] == [f"batch_req_{row}" for row in range(7, 10)]
    responses = [one["response"] for one in found]
    assert [response["status_code"] for response in responses] == [200] * 3  # type: ignore[index] # an object
    assert responses[0]["body"] == {"predictions": [3.0]}  # type: ignore[index] # an object
    assert responses[1]["body"] == {"outputs": [7.0, 11.0]}  # type: ignore[index] # an object
    assert [one["error"] for one in found] == [None] * 3


def test_a_body_that_is_followed_by_other_members_is_read_as_that_body_alone():
    middle = json.dumps({"custom_id": "m", "body": BODY, "method": "POST", "url": ENDPOINT}).encode()
    followed = json.dumps(line("f", extra={"body": {"instances": [[9, 9]]}})).encode()
    found = answers(middle, followed, json.dumps({**line("b", body={"instances": []}), "more": 1}).encode())
    assert [one["custom_id"] for one in found] == ["m", "f", "b"]
    assert [one["response"]["status_code"] for one in found] == [200, 200, 400]  # type: ignore[index] # an object
    assert found[0]["response"]["body"] == found[1]["response"]["body"] == {"predictions": [3.0]}  # type: ignore[index] # as above


@pytest.mark.parametrize("number", ["1" * 30, "1e400", "NaN", '"\\ud800"'])
def test_a_number_that_no_tensor_holds_fails_its_own_line_alone(number: str):
    odd = '{"custom_id": "odd", "body": {"instances": [[1.0, NUMBER, 3.0]]}, "method": "POST"}'
    found = answers(odd.replace("NUMBER", number).encode(), json.dumps(line("good")).encode())
    assert [one["response"]["status_code"] for one in found] == [400, 200]  # type: ignore[index] # an object


def test_a_request_that_does_not_fit_fails_alone_with_the_answer_that_it_alone_would_get():
    good, wrong = json.dumps(line("a")).encode(), json.dumps(line("b", body={"instances": [[1.0]]})).encode()
    long = json.dumps(line("c", body={"instances": [[1.0, 2.0]], "padding": "x" * 1_000})).encode()
    found = answers(good, wrong, long)
    assert [one["custom_id"] for one in found] == ["a", "b", "c"]
    refused = found[1]["response"]
    assert refused["status_code"] == 400  # type: ignore[index] # an object
    assert refused["body"]["error"]["code"] == "input_invalid"  # type: ignore[index] # as above
    assert found[1]["error"] is None


def test_lines_that_could_not_be_run_are_told_apart_by_what_was_wrong():
    asked = Asked(0, 2, b"\n".join(json.dumps(line(name)).encode() for name in "ab") + b"\n", {})
    for error, places in (
        (WorkerCrashed("it died"), (None, {"code": "worker_crashed", "message": "it died"})),
        (InputInvalid("no"), ("response", None)),
    ):
        found = [json.loads(text) for text in BatchRequests().refusals(asked, error).splitlines()]
        assert [one["custom_id"] for one in found] == ["a", "b"]
        assert all(one["error"] == places[1] for one in found)
        assert all((one["response"] is None) == (places[0] is None) for one in found)
