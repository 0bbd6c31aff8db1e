"""Large results by signed addresses, and deletion that leaves nothing behind, wherever it lay."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from sqlalchemy import func, select

from auth import clients
from auth.standing import UNKNOWN
from gateway.result_addresses import ResultAddresses
from model_store.database import transaction
from model_store.sealing import SealingKeys
from monitoring.metrics import FENCED_WRITES
from tests.conftest import RedisServer
from tests.job_kit import numbers_of, state
from tests.live_gateway import refused
from tests.processes import MASTER_KEY, Cluster, wait_for
from tests.queue_kit import Queue, make_queue, running_slot, serve_model, slow_model, worker_settings
from tests.serving import client_id_of, ended, paused_workers, submit
from workers import jobs
from workers.erasure import delete_stored, erase
from workers.lanes import JOB_FIELD, Lane, Priority
from workers.tables import Job, JobInput, JobResult

ROWS = 8000


def submit_large(caller: httpx.Client) -> str:
    """The id of a job whose input and result are over 64 KiB."""
    answer = caller.post("/v1/models/times/versions/1:submit", json={"instances": [[1.125, 2.0]] * ROWS})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def payloads_of(serving: Cluster, job: str) -> list[str]:
    folder = serving.artifacts.root / "payloads"
    return sorted(path.name for path in folder.glob(f"{job}.*")) if folder.is_dir() else []


def rows_of(serving: Cluster, number: int) -> int:
    """How many rows of SQL a job has."""
    tables = (Job.number, JobInput.job, JobResult.job)
    with transaction(serving.sessions, write=False) as session:
        return sum(session.scalar(select(func.count()).where(column == number)) or 0 for column in tables)


def test_a_large_result_is_read_by_an_address_that_needs_no_token(caller: httpx.Client):
    job = submit_large(caller)
    document = ended(caller, job)
    assert "predictions" not in document
    answer = httpx.get(f"{caller.base_url}{document['result_url']}")
    assert (answer.status_code, answer.json()) == (200, {"predictions": [[2.25, 4.0]] * ROWS})
    assert answer.headers["cache-control"] == "no-store"
    assert int(answer.headers["content-length"]) == len(answer.content)
    assert answer.content == caller.get(f"/v1/jobs/{job}/result").content
    # Whoever asked for a prediction and waits for it gets it whole.
    headers = {"prefer": "respond-async, wait=30"}
    body = {"instances": [[1.125, 2.0]] * ROWS}
    waited = caller.post("/v1/models/times/versions/1:predict", json=body, headers=headers)
    assert (waited.status_code, waited.content) == (200, answer.content)
    small = ended(caller, submit(caller, "double", 1.0, 2.0))
    assert small["predictions"] == [[2.0, 4.0]]
    assert "result_url" not in small


def test_no_address_but_a_signed_one_that_has_not_expired_is_good(caller: httpx.Client):
    job = submit_large(caller)
    token = str(ended(caller, job)["result_url"]).rpartition("/")[2]
    job_id, expires, signature = token.split(".")

    def get(wanted: str) -> httpx.Response:
        return httpx.get(f"{caller.base_url}/v1/results/{wanted}")

    turned = signature[:-2] + ("AA" if signature[-2:] != "AA" else "BB")
    other = submit(caller, "double", 1.0, 2.0)
    bad = (
        f"{job_id}.{expires}.{turned}", f"{job_id}.{int(expires) + 1}.{signature}", f"{other}.{expires}.{signature}",
        f"{job_id}.{expires}", "x", f"{token}A", token.upper(),
    )  # fmt: skip
    answers = [get(wanted) for wanted in bad]
    assert all(refused(answer, 404, "result_not_found") for answer in answers)
    assert len({answer.content for answer in answers}) == 1
    expired = ResultAddresses(SealingKeys.parse(MASTER_KEY), -60, time.time).make(job).path
    assert refused(httpx.get(f"{caller.base_url}{expired}"), 410, "result_address_expired")
    foreign = ResultAddresses(SealingKeys([b"f" * 32]), 60, time.time).make(job).path
    assert refused(httpx.get(f"{caller.base_url}{foreign}"), 404, "result_not_found")
    assert get(token).status_code == 200


def test_an_address_ends_with_the_job_and_with_the_client(serving: Cluster):
    caller = serving.caller("times")
    gone, kept = (str(ended(caller, submit_large(caller))["result_url"]) for _ in range(2))
    base, job = caller.base_url, gone.rpartition("/")[2].partition(".")[0]
    assert caller.delete(f"/v1/jobs/{job}").status_code == 204
    assert refused(httpx.get(f"{base}{gone}"), 404, "result_not_found")
    assert httpx.get(f"{base}{kept}").status_code == 200
    with transaction(serving.sessions) as session:
        clients.set_disabled(session, client_id_of(caller), True)
    wait_for(lambda: httpx.get(f"{base}{kept}").status_code == 404, 10)


def test_nothing_of_a_deleted_job_remains(serving: Cluster, caller: httpx.Client):
    done, small = submit_large(caller), submit(caller, "double", 1.0, 2.0)
    for job in (done, small):
        ended(caller, job)
    with paused_workers(serving):
        waiting = submit_large(caller)
        with transaction(serving.sessions, write=False) as session:
            found = session.execute(select(Job.id, Job.number).where(Job.id.in_((done, small, waiting))))
            numbers = {row.id: row.number for row in found}
        assert payloads_of(serving, done) == [f"{done}.1.result", f"{done}.input"]
        assert [rows_of(serving, numbers[job]) for job in (done, small, waiting)] == [1, 3, 1]
        for job in (done, small, waiting):
            assert caller.delete(f"/v1/jobs/{job}").status_code == 204
    for job in (done, small, waiting):
        assert rows_of(serving, numbers[job]) == 0
        wait_for(lambda job=job: not payloads_of(serving, job), 10)


def test_many_jobs_are_deleted_by_state_model_and_time(serving: Cluster):
    caller = serving.caller("double", "times")
    kept, old = (submit(caller, model, 1.0, 2.0) for model in ("double", "times"))
    for job in (kept, old):
        ended(caller, job)
    assert refused(caller.delete("/v1/jobs"), 400, "nothing_chosen")
    assert caller.delete("/v1/jobs", params={"before": "2026-01-02T03:04:05Z"}).json()["deleted"] == 0
    assert caller.delete("/v1/jobs", params={"state": "failed"}).json()["deleted"] == 0
    gone = caller.delete("/v1/jobs", params={"state": "succeeded", "model": "times", "before": "2999-01-02T03:04:05Z"})
    assert gone.json() == {"deleted": 1, "next_page_token": None}
    assert [job["id"] for job in caller.get("/v1/jobs").json()["jobs"]] == [kept]


@pytest.fixture
def queue(redis_server: RedisServer, tmp_path: Path) -> Iterator[Queue]:
    settings = worker_settings(redis_server.url, f"sqlite:///{tmp_path / 'sluice.db'}", tmp_path, inline_bytes=0)
    made = make_queue(settings, tmp_path)
    yield made
    made.close()


def test_what_a_worker_still_writes_for_a_job_that_was_deleted_meanwhile_does_not_stay(queue: Queue, tmp_path: Path):
    # given a running job whose result will be too large for its row
    version = serve_model(queue.sessions, queue.artifacts, slow_model(tmp_path / "slow.onnx"))
    lane = Lane("double", version, Priority.BULK, queue.client_id)
    body = b'{"instances": [[1.0, 3000.0]]}'
    draft = jobs.Draft(jobs.new_id(), lane, "tensorflow_serving", 1, body, 60, UNKNOWN)
    with transaction(queue.sessions) as session:
        jobs.accept(session, [draft], 10)
        [number] = numbers_of(session, [draft])
    queue.client.xadd(queue.keys.lane(lane), {JOB_FIELD: number})
    dropped = FENCED_WRITES._value.get()
    with running_slot(queue) as slot:
        slot.ring(lane)
        wait_for(lambda: state(queue.sessions, number) == "running", 20)
        # when it is deleted
        with transaction(queue.sessions) as session:
            jobs.cancel(session, session.get_one(Job, number))
            erased = erase(session, [number], untold=True)
        delete_stored(queue.artifacts, erased)
        # then its result is dropped, and lies nowhere in the store
        wait_for(lambda: FENCED_WRITES._value.get() > dropped, 20)
    assert not list((queue.artifacts.root / "payloads").glob("*"))
