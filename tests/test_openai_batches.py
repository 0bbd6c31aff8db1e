"""OpenAI's files and batches over HTTP: an installation with a serving and a background worker as processes."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import pyarrow
import pytest
from onnx import TensorProto, helper
from PIL import Image
from pyarrow import parquet
from sqlalchemy import select

from auth.quotas import Used, used_today
from auth.scopes import Scope
from model_store.database import transaction
from model_store.signature import Signature, TensorSpec
from tests.conftest import RedisServer
from tests.processes import Cluster, cluster, wait_for
from tests.queue_kit import serve_model
from workers.tables import Job

ENDPOINT = "/v1/models/double:predict"
IMAGES = Signature((TensorSpec("image", "float32", (None, 2, 3)),), (TensorSpec("same", "float32", (None, 2, 3)),))
ENDED = {"completed", "failed", "cancelled", "expired"}
ENDED_SECONDS = 60


@pytest.fixture(scope="module")
def batching(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("batching")
    with cluster(folder, redis_server.url, f"sqlite:///{folder / 'sluice.db'}") as made:
        serve_model(made.sessions, made.artifacts, same_images(folder / "same.onnx"), "same", signature=IMAGES)
        made.start_worker()
        made.start("background-worker", worker_name="b")
        made.start_gateway()
        made.wait_for_slots(2)
        yield made


@pytest.fixture(scope="module")
def caller(batching: Cluster) -> httpx.Client:
    return batching.caller("double", "same", "slow")


def same_images(path: Path) -> Path:
    """An ONNX file that answers the image that it is asked."""
    shape = ["batch", 2, 3]
    graph = helper.make_graph(
        [helper.make_node("Identity", ["image"], ["same"])],
        "same",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("same", TensorProto.FLOAT, shape)],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def line(custom_id: str, body: object, url: str = ENDPOINT) -> bytes:
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": url, "body": body}).encode() + b"\n"


def row(number: float) -> bytes:
    return line(f"row {number}", {"instances": [[number, 1.0]]})


def upload(caller: httpx.Client, content: bytes, purpose: str = "batch") -> httpx.Response:
    return caller.post("/v1/files", data={"purpose": purpose}, files={"file": ("rows.jsonl", content)})


def create(caller: httpx.Client, content: bytes, endpoint: str = ENDPOINT, **members: object) -> dict[str, Any]:
    file = upload(caller, content)
    assert file.status_code == 200, file.text
    asked = {"input_file_id": file.json()["id"], "endpoint": endpoint, "completion_window": "24h", **members}
    made = caller.post("/v1/batches", json=asked)
    assert made.status_code == 200, made.text
    found: dict[str, Any] = made.json()
    return found


def end_of(caller: httpx.Client, batch: dict[str, Any]) -> dict[str, Any]:
    """The batch once it has ended."""
    found: dict[str, Any] = {}

    def ended() -> bool:
        found.update(caller.get(f"/v1/batches/{batch['id']}").json())
        return found["status"] in ENDED

    wait_for(ended, ENDED_SECONDS)
    return found


def lines_of(caller: httpx.Client, file_id: str) -> list[dict[str, Any]]:
    answer = caller.get(f"/v1/files/{file_id}/content")
    assert answer.status_code == 200, answer.text
    assert len(answer.content) == caller.get(f"/v1/files/{file_id}").json()["bytes"]
    return [json.loads(text) for text in answer.content.splitlines()]


def refusal(answer: httpx.Response) -> tuple[int, str]:
    """Status and code of an error, which must be in OpenAI's shape."""
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    return answer.status_code, error["code"]


def test_each_request_of_a_file_is_answered_under_its_custom_id_in_order(caller: httpx.Client):
    rows = 700
    made = create(caller, b"".join(row(number) for number in range(rows)), metadata={"night": "1"})
    assert made["object"] == "batch"
    assert made["status"] in {"validating", "in_progress", "finalizing", "completed"}
    found = end_of(caller, made)
    assert (found["status"], found["errors"], found["error_file_id"]) == ("completed", None, None)
    assert found["request_counts"] == {"total": rows, "completed": rows, "failed": 0}
    assert found["metadata"] == {"night": "1"}
    assert found["created_at"] <= found["in_progress_at"] <= found["completed_at"] <= found["expires_at"]
    answers = lines_of(caller, found["output_file_id"])
    assert [answer["custom_id"] for answer in answers] == [f"row {number}" for number in range(rows)]
    assert [answer["response"]["body"]["predictions"][0][0] for answer in answers] == [2.0 * n for n in range(rows)]
    assert {answer["response"]["status_code"] for answer in answers} == {200}
    job = caller.get(f"/v1/jobs/{made['id'].removeprefix('batch_')}").json()
    assert job["state"] == "succeeded"
    assert job["progress"]["done"] == rows


def test_requests_that_fail_are_in_a_file_of_their_own(caller: httpx.Client):
    content = row(1) + line("bad", {"instances": [[1.0]]}) + row(2) + line("worse", {"nothing": 1})
    found = end_of(caller, create(caller, content))
    assert found["status"] == "completed"
    assert found["request_counts"] == {"total": 4, "completed": 2, "failed": 2}
    assert [answer["custom_id"] for answer in lines_of(caller, found["output_file_id"])] == ["row 1", "row 2"]
    failed = lines_of(caller, found["error_file_id"])
    assert [answer["custom_id"] for answer in failed] == ["bad", "worse"]
    assert [answer["response"]["status_code"] for answer in failed] == [400, 400]
    assert list(failed[0]) == list(lines_of(caller, found["output_file_id"])[0])
    assert failed[0]["response"]["body"]["error"]["code"] == "input_invalid"
    assert refusal(caller.delete(f"/v1/files/{found['error_file_id']}")) == (409, "file_in_use")


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        pytest.param(b"{}\n", "missing_required_parameter", id="no-custom-id"),
        pytest.param(row(1), "duplicate_custom_id", id="duplicate"),
        pytest.param(line("x", {}, "/v1/models/slow:predict"), "mismatched_endpoint", id="other-endpoint"),
        pytest.param(b"\xff\n", "invalid_json_line", id="no-json"),
    ],
)
def test_a_file_with_a_bad_line_fails_before_anything_is_run(caller: httpx.Client, bad: bytes, code: str):
    found = end_of(caller, create(caller, row(1) + row(2) + bad))
    assert found["status"] == "failed"
    [error] = found["errors"]["data"]
    assert (error["code"], error["line"]) == (code, 3)
    assert (found["output_file_id"], found["error_file_id"]) == (None, None)
    assert found["request_counts"]["completed"] == 0


def test_a_batch_is_canceled_and_keeps_what_was_answered(caller: httpx.Client):
    slow = "/v1/models/slow:predict"
    content = b"".join(line(str(number), {"instances": [[1.0, 3000.0]]}, slow) for number in range(2000))
    made = create(caller, content, slow)
    cancelled = caller.post(f"/v1/batches/{made['id']}/cancel")
    assert (cancelled.status_code, cancelled.json()["status"]) == (200, "cancelled")
    assert cancelled.json()["cancelled_at"] is not None
    assert refusal(caller.post(f"/v1/batches/{made['id']}/cancel")) == (409, "batch_ended")
    assert caller.get(f"/v1/jobs/{made['id'].removeprefix('batch_')}").json()["state"] == "canceled"


def test_files_and_batches_are_listed_a_page_at_a_time(batching: Cluster):
    caller = batching.caller("double")
    made = [create(caller, row(number)) for number in range(3)]
    for batch in made:
        end_of(caller, batch)
    first = caller.get("/v1/batches", params={"limit": 2}).json()
    rest = caller.get("/v1/batches", params={"limit": 2, "after": first["last_id"]}).json()
    assert [one["id"] for one in first["data"] + rest["data"]] == [one["id"] for one in reversed(made)]
    assert (first["has_more"], rest["has_more"]) == (True, False)
    inputs = {one["input_file_id"] for one in made}
    for order in ("asc", "desc"):
        ids: list[str] = []
        page: dict[str, Any] = {"has_more": True, "last_id": None}
        while page["has_more"]:
            asked = {"limit": 2, "order": order, "purpose": "batch", "after": page["last_id"]}
            page = caller.get("/v1/files", params={name: v for name, v in asked.items() if v is not None}).json()
            ids += [one["id"] for one in page["data"]]
        assert (len(ids), set(ids)) == (3, inputs)
    assert len(caller.get("/v1/files").json()["data"]) == 6


def test_a_file_is_there_until_it_is_deleted_and_never_for_others(batching: Cluster, caller: httpx.Client):
    content = row(1)
    file = upload(caller, content).json()
    assert (file["filename"], file["purpose"], file["bytes"]) == ("rows.jsonl", "batch", len(content))
    assert caller.get(f"/v1/files/{file['id']}/content").content == content
    other = batching.caller("double")
    for asked in (
        other.get(f"/v1/files/{file['id']}"),
        other.get(f"/v1/files/{file['id']}/content"),
        other.delete(f"/v1/files/{file['id']}"),
        caller.get("/v1/files/file_x"),
        caller.get(f"/v1/files/{file['id']}-errors"),
        other.post("/v1/batches", json={"input_file_id": file["id"], "endpoint": ENDPOINT, "completion_window": "24h"}),
    ):
        assert refusal(asked) == (404, "file_not_found")
    batch = create(caller, content)
    assert refusal(other.get(f"/v1/batches/{batch['id']}")) == (404, "batch_not_found")
    assert refusal(other.post(f"/v1/batches/{batch['id']}/cancel")) == (404, "batch_not_found")
    deleted = caller.delete(f"/v1/files/{file['id']}")
    assert deleted.json() == {"id": file["id"], "object": "file", "deleted": True}
    assert refusal(caller.get(f"/v1/files/{file['id']}")) == (404, "file_not_found")


def test_what_is_no_upload_of_a_batch_is_refused_and_nothing_is_kept(batching: Cluster):
    caller = batching.caller("double")
    assert refusal(upload(caller, row(1), "fine-tune")) == (400, "purpose_unsupported")
    aimless = caller.post("/v1/files", files={"file": ("x", row(1))})
    assert refusal(aimless) == (400, "purpose_unsupported")
    assert "the field `purpose` is missing" in aimless.text
    empty = caller.post("/v1/files", files={"purpose": (None, b"batch")})
    assert refusal(empty) == (422, "form_invalid")
    assert "the field `file` is missing" in empty.text
    assert refusal(caller.post("/v1/files", content=row(1))) == (422, "form_invalid")
    assert refusal(caller.post("/v1/files", data={"purpose": "batch"})) == (422, "form_invalid")
    two = [("file", ("a", b"x")), ("file", ("b", b"y"))]
    assert refusal(caller.post("/v1/files", files=two)) == (422, "form_invalid")
    foreign = caller.post("/v1/files", data={"purpose": "batch", "user": "x"}, files={"file": ("x", row(1))})
    assert refusal(foreign) == (422, "form_invalid")
    assert caller.get("/v1/files").json()["data"] == []


def test_a_file_of_requests_is_no_file_of_rows(caller: httpx.Client):
    file = upload(caller, row(1)).json()
    accepted = caller.post("/v1/models/double:batch", params={"file": file["id"]})
    job = caller.get(f"/v1/jobs/{accepted.json()['id']}", params={"wait": 30}).json()
    assert (job["state"], job["error"]["code"]) == ("failed", "file_invalid")
    assert "/v1/batches" in job["error"]["message"]


def test_fields_may_stand_behind_the_file(caller: httpx.Client):
    body = (
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="la\0te.jsonl"\r\n\r\n{}\n\r\n'
        b'--x\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n--x--\r\n'
    )
    sent = caller.post("/v1/files", content=body, headers={"content-type": "multipart/form-data; boundary=x"})
    assert (sent.status_code, sent.json()["bytes"], sent.json()["filename"]) == (200, 3, "late.jsonl")


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        pytest.param({"endpoint": "/v1/chat/completions"}, 400, "invalid_endpoint", id="no-prediction"),
        pytest.param({"endpoint": "/v1/models/double:submit"}, 400, "invalid_endpoint", id="submit"),
        pytest.param({"endpoint": "/v1/models/absent:predict"}, 404, "model_not_found", id="no-model"),
        pytest.param({"completion_window": "1h"}, 422, "request_invalid", id="window"),
        pytest.param({"metadata": {"a": 1}}, 422, "request_invalid", id="metadata"),
        pytest.param({"metadata": {str(n): "" for n in range(17)}}, 422, "request_invalid", id="much-metadata"),
    ],
)
def test_a_batch_that_cannot_be_is_refused(caller: httpx.Client, change: dict[str, object], status: int, code: str):
    file = upload(caller, row(1)).json()
    asked = {"input_file_id": file["id"], "endpoint": ENDPOINT, "completion_window": "24h", **change}
    assert refusal(caller.post("/v1/batches", json=asked)) == (status, code)


def test_who_has_no_token_or_no_scope_is_told_in_the_same_shape(batching: Cluster):
    assert refusal(httpx.get(f"{batching.gateways[0]}/v1/files"))[0] == 401
    assert refusal(httpx.post(f"{batching.gateways[0]}/v1/batches", json={}))[0] == 401
    reader = batching.caller("double", scopes={Scope.MODELS_READ})
    assert refusal(reader.get("/v1/batches"))[0] == 403
    assert refusal(upload(reader, row(1)))[0] == 403


def test_the_same_key_makes_one_batch(caller: httpx.Client):
    file = upload(caller, row(1)).json()
    asked = {"input_file_id": file["id"], "endpoint": ENDPOINT, "completion_window": "24h"}
    answers = [caller.post("/v1/batches", json=asked, headers={"Idempotency-Key": "once"}) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].json()["id"] == answers[1].json()["id"]
    other = caller.post("/v1/batches", json=asked | {"metadata": {"a": "b"}}, headers={"Idempotency-Key": "once"})
    assert refusal(other)[0] == 422


def result_of(caller: httpx.Client, path: str, content: bytes) -> list[dict[str, Any]]:
    """The lines that a file is answered with."""
    accepted = caller.post(path, content=content)
    assert accepted.status_code == 202, accepted.text
    address = f"/v1/jobs/{accepted.json()['id']}"
    job: dict[str, Any] = {}

    def ended() -> bool:
        job.update(caller.get(address, params={"wait": 20}).json())
        return job["finished_at"] is not None

    wait_for(ended, ENDED_SECONDS)
    assert job["state"] == "succeeded", job
    return [json.loads(text) for text in caller.get(f"{address}/result").content.splitlines()]


@pytest.mark.usefixtures("one_day")
def test_every_row_of_a_parquet_file_is_answered_and_charged(batching: Cluster):
    caller = batching.caller("double")
    content = io.BytesIO()
    rows: list[list[float] | None] = [[float(number), 1.0] for number in range(300)]
    rows[7] = None
    parquet.write_table(pyarrow.table({"x": pyarrow.array(rows, pyarrow.list_(pyarrow.float64()))}), content)
    found = result_of(caller, "/v1/models/double:batch?format=parquet", content.getvalue())
    assert [one["row"] for one in found] == list(range(300))
    assert found[7]["error"] == {"code": "input_invalid", "message": "x is null"}
    assert [one["predictions"] for one in found if "error" not in one] == [
        [[2.0 * number, 2.0]] for number in range(300) if number != 7
    ]
    with transaction(batching.sessions, write=False) as session:
        client_id = session.scalars(select(Job.client_id).order_by(Job.number.desc()).limit(1)).one()
        used = used_today(session, client_id)
    # The first was charged by the gateway, which writes down only what clients with a quota use.
    assert used == {(client_id, "double"): Used(299), (client_id, ""): Used(299)}


def test_every_image_of_an_archive_is_answered(caller: httpx.Client):
    pixels = np.random.default_rng(3).integers(0, 256, (40, 2, 3), dtype=np.uint8)
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as packed:
        for number, one in enumerate(pixels):
            made = io.BytesIO()
            Image.fromarray(one).save(made, "PNG")
            packed.writestr(f"{number}.png", made.getvalue())
        packed.writestr("notes.txt", b"no image")
    found = result_of(caller, "/v1/models/same:batch?format=images-0-255", content.getvalue())
    assert [one["row"] for one in found] == list(range(41))
    assert np.array_equal([one["predictions"][0] for one in found[:40]], pixels)
    assert found[40]["error"]["message"].startswith("notes.txt")


def test_a_file_that_no_runner_can_read_fails_with_its_reason(caller: httpx.Client):
    accepted = caller.post("/v1/models/double:batch?format=parquet", content=b"PAR1 and no more")
    job = caller.get(f"/v1/jobs/{accepted.json()['id']}", params={"wait": 30}).json()
    assert (job["state"], job["error"]["code"]) == ("failed", "parquet_invalid")
