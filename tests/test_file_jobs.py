"""Files as jobs, through HTTP with real workers: order, errors of rows, and what is killed, canceled or withdrawn."""

from __future__ import annotations

import io
import itertools
import json
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from sqlalchemy import select, update

from auth.grants import GrantSpec, set_grants
from auth.quotas import Used, used_today
from model_store.database import now_ms, transaction
from tests.conftest import RedisServer
from tests.processes import Cluster, cluster, kill, wait_for
from tests.queue_kit import worker_settings
from workers import redis_link
from workers.files.tables import Batch, File
from workers.tables import Job

pytestmark = pytest.mark.long  # it waits for what takes its time

KEY = "b29vb29vb29vb29vb29vb29vb29vb29vb29vb29vb28"
CHUNK_ROWS = 32  # of `slow`, by what its version says that it takes
ROUNDS = 150  # of its work for a batch of eight: about 15 ms


@pytest.fixture(scope="module")
def running(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("files")
    with cluster(folder, redis_server.url, f"sqlite:///{folder / 'sluice.db'}") as made:
        made.start_worker()
        made.start("background-worker", worker_name="b1", files_running=1)
        made.start_gateway(files_running=1)
        made.wait_for_slots(2)
        yield made


@pytest.fixture(scope="module")
def caller(running: Cluster) -> httpx.Client:
    return running.caller("double", "slow")


def submit(
    caller: httpx.Client, data: bytes, model: str = "double", query: str = "format=jsonl", **headers: str
) -> str:
    answer = caller.post(f"/v1/models/{model}:batch?{query}", content=data, headers=headers)
    assert answer.status_code == 202, answer.text
    job = answer.json()
    assert answer.headers["location"] == f"/v1/jobs/{job['id']}"
    # The background worker may have taken it between the keeping and the answer.
    assert job["state"] in ("queued", "running")
    assert job["priority"] == "bulk"
    found: str = job["id"]
    return found


def ended(caller: httpx.Client, job: str, seconds: float = 60) -> dict:
    until = time.monotonic() + seconds
    while True:
        document: dict = caller.get(f"/v1/jobs/{job}", params={"wait": 5}).json()
        if document["state"] not in ("queued", "running"):
            return document
        assert time.monotonic() < until, document


def lines(caller: httpx.Client, job: str, **query: str) -> list[dict]:
    answer = caller.get(f"/v1/jobs/{job}/result", params=query)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/jsonl"
    return [json.loads(line) for line in answer.text.splitlines()]


def slow_rows(count: int, rounds: int = ROUNDS) -> bytes:
    return b"".join(b"[%d,%d]\n" % (row, rounds) for row in range(count))


def wait_until_some_are_written(running: Cluster, job: str) -> int:
    def written() -> int:
        with transaction(running.sessions, write=False) as session:
            found = session.scalar(select(Batch.written_rows).join(Job, Job.number == Batch.job).where(Job.id == job))
            return found or 0

    wait_for(lambda: written() >= CHUNK_ROWS, 30)
    return written()


def files_in(running: Cluster) -> set[str]:
    return {path.name for path in (running.folder / "store" / "files").glob("*")}


def chunks_left(running: Cluster) -> int:
    with transaction(running.sessions, write=False) as session:
        return len(session.scalars(select(Job.number).where(Job.parent.is_not(None))).all())


def test_each_row_is_answered_in_order_and_one_that_is_wrong_spoils_no_other(caller: httpx.Client):
    job = submit(caller, b'[1,2]\nnonsense\n{"id":"c","instance":[5,6]}\n[1]\n[7,8]')

    document = ended(caller, job)

    assert document["state"] == "succeeded"
    progress = document["progress"]
    assert (progress["done"], progress["total"], progress["failed"]) == (5, 5, 2)
    found = lines(caller, job)
    assert [line["row"] for line in found] == [0, 1, 2, 3, 4]
    assert found[2] == {"row": 2, "id": "c", "predictions": [[10.0, 12.0]]}
    assert [line.get("error", {}).get("code") for line in found] == [None, "input_invalid", None, "input_invalid", None]
    by_address = httpx.get(f"{caller.base_url}".rstrip("/") + document["result_url"])
    assert [json.loads(line) for line in by_address.text.splitlines()] == found


@pytest.mark.usefixtures("one_day")
def test_a_row_of_several_instances_is_charged_as_many(running: Cluster):
    caller = running.caller("double")
    job = submit(caller, b'{"instances":[[1,2],[3,4],[5,6]]}\n[7,8]\nnonsense\n{"inputs":[[1,2],[3,4]]}\n')

    assert ended(caller, job)["progress"]["failed"] == 1

    with transaction(running.sessions, write=False) as session:
        client_id = session.scalars(select(Job.client_id).where(Job.id == job)).one()
        used = used_today(session, client_id)
    # Its four rows were charged by the gateway, which writes down only what clients with a quota use.
    assert used == {(client_id, "double"): Used(3), (client_id, ""): Used(3)}


@pytest.mark.parametrize("kind", ["csv", "npz"])
def test_other_formats_are_answered_by_the_same_lines(caller: httpx.Client, kind: str):
    rows = np.arange(60_000).reshape(-1, 2)
    file = io.BytesIO()
    if kind == "npz":
        np.savez_compressed(file, x=rows)
    else:
        np.savetxt(file, rows, "%d", ",", header="a,b", comments="")

    job = submit(caller, file.getvalue(), query=f"format={kind}")

    assert ended(caller, job)["progress"]["done"] == 30_000
    assert [line["predictions"][0] for line in lines(caller, job)] == (2.0 * rows).tolist()


def test_a_file_that_cannot_be_read_is_refused_and_nothing_of_it_is_kept(running: Cluster, caller: httpx.Client):
    before = files_in(running)
    for query, data, status in (
        ("format=npz", b"PK", 400),
        ("format=csv", b'1,2\n"3,4\n', 400),
        ("format=csv", b"1;2\n3;4\n", 400),
        ("format=jsonl", b"", 422),
        ("format=pickle", b"1", 415),
        ("file=file_unknown", b"", 404),
    ):
        answer = caller.post(f"/v1/models/double:batch?{query}", content=data)
        assert answer.status_code == status, answer.text
    assert files_in(running) == before


def test_the_same_key_with_the_same_file_is_the_same_job(running: Cluster, caller: httpx.Client):
    first = submit(caller, b"[1,2]\n", **{"Idempotency-Key": "once"})
    before = files_in(running)

    again = caller.post("/v1/models/double:batch?format=jsonl", content=b"[1,2]\n", headers={"Idempotency-Key": "once"})
    other = caller.post("/v1/models/double:batch?format=jsonl", content=b"[1,3]\n", headers={"Idempotency-Key": "once"})

    assert (again.json()["id"], again.headers["idempotent-replayed"]) == (first, "true")
    assert other.status_code == 422
    ended(caller, first)
    assert {name for name in files_in(running) - before if not name.endswith(".1")} == set()


def test_a_killed_reader_is_followed_by_one_that_repeats_no_finished_chunk(running: Cluster, caller: httpx.Client):
    count = 20 * CHUNK_ROWS
    before = finished_jobs(caller)
    job = submit(caller, slow_rows(count), "slow")
    written = wait_until_some_are_written(running, job)
    reader = running.processes[1]

    kill([reader.pid])
    reader.wait()
    with transaction(running.sessions) as session:
        # As if its lease had run out: that takes nine seconds.
        session.execute(update(Job).where(Job.id == job, Job.state == "running").values(lease_until=now_ms() - 1))
    running.start("background-worker", worker_name="b2", files_running=1)

    document = ended(caller, job)
    assert (document["state"], document["progress"]["done"]) == ("succeeded", count)
    assert written < count
    assert [line["predictions"][0][0] for line in lines(caller, job)] == [2.0 * row for row in range(count)]
    assert finished_jobs(caller) - before == count // CHUNK_ROWS
    assert chunks_left(running) == 0


def finished_jobs(caller: httpx.Client) -> float:
    """How many jobs of `slow` the workers finished, chunks of files as well."""
    found = [line for line in caller.get("/metrics").text.splitlines() if line.startswith("sluice_jobs_total")]
    return sum(float(line.rpartition(" ")[2]) for line in found if 'model="slow"' in line and "succeeded" in line)


def test_a_canceled_file_stops_and_keeps_the_lines_that_it_has(running: Cluster, caller: httpx.Client):
    job = submit(caller, slow_rows(100 * CHUNK_ROWS), "slow")
    assert caller.get(f"/v1/jobs/{job}/result").status_code == 409
    wait_until_some_are_written(running, job)
    assert len(lines(caller, job, partial="true")) >= CHUNK_ROWS
    listed = caller.get("/v1/jobs", params={"model": "slow", "limit": 100}).json()["jobs"]
    assert {one["progress"].keys() >= {"failed", "rows_per_second"} for one in listed} == {True}

    assert caller.post(f"/v1/jobs/{job}/cancel").status_code == 200

    found = lines(caller, job)
    assert [line["row"] for line in found] == list(range(len(found)))
    assert 0 < len(found) < 100 * CHUNK_ROWS
    wait_for(lambda: chunks_left(running) == 0, 15)
    assert caller.delete(f"/v1/jobs/{job}").status_code == 204
    with transaction(running.sessions, write=False) as session:
        kept = set(session.scalars(select(File.id)))
    wait_for(lambda: {name.partition(".")[0] for name in files_in(running)} <= kept, 10)


def test_a_file_past_its_deadline_expires_with_the_lines_that_it_has(caller: httpx.Client):
    job = submit(caller, slow_rows(500 * CHUNK_ROWS), "slow", **{"Sluice-Deadline": "1.5"})

    document = ended(caller, job)

    assert (document["state"], document["error"]["code"]) == ("expired", "deadline_passed")
    assert document["progress"]["done"] == len(lines(caller, job)) < 500 * CHUNK_ROWS


def test_a_file_ends_once_the_right_to_its_model_is_withdrawn(running: Cluster):
    leaving = running.caller("slow")
    job = submit(leaving, slow_rows(500 * CHUNK_ROWS), "slow")
    wait_until_some_are_written(running, job)
    with transaction(running.sessions) as session:
        client_id = session.scalars(select(Job.client_id).where(Job.id == job)).one()
        set_grants(session, client_id, [GrantSpec("double")])

    document = ended(leaving, job)

    assert (document["state"], document["error"]["code"]) == ("canceled", "grant_withdrawn")


def test_a_client_has_one_file_read_at_a_time_where_that_is_the_bound(caller: httpx.Client):
    jobs = [submit(caller, slow_rows(3 * CHUNK_ROWS), "slow") for _ in range(3)]

    documents = [ended(caller, job) for job in jobs]

    spans = sorted((document["started_at"], document["finished_at"]) for document in documents)
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans)), spans


@pytest.mark.long
@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_file_is_read_to_its_end_from_a_sealed_store_though_redis_forgets_everything(
    redis_server: RedisServer, database_url: str, tmp_path: Path
):
    sealed = {"storage_key": KEY}
    with cluster(tmp_path, redis_server.url, database_url) as made:
        made.start_worker(**sealed)
        made.start("background-worker", worker_name="b", **sealed)
        for _ in range(2):
            made.start_gateway(**sealed)
        made.wait_for_slots(2, gateway=1)
        first = made.caller("slow")
        second = httpx.Client(base_url=made.gateways[1], headers=first.headers, timeout=60)
        made.clients.append(second)
        count = 8 * CHUNK_ROWS
        job = submit(first, slow_rows(count, 77), "slow")
        wait_until_some_are_written(made, job)

        with redis_link.connect(worker_settings(redis_server.url, database_url, tmp_path)) as forgetful:
            for key in forgetful.scan_iter(f"{made.key_prefix}:*"):
                forgetful.delete(key)

        assert ended(second, job)["state"] == "succeeded"
        found = lines(second, job)
        assert [line["predictions"][0] for line in found] == [[2.0 * row, 154.0] for row in range(count)]
        kept = b"".join(path.read_bytes() for path in (tmp_path / "store" / "files").iterdir())
        assert kept
        assert b"predictions" not in kept
        assert b",77]" not in kept
