"""Idempotency keys: however often and wherever a request comes again, it makes one job."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from sqlalchemy import select, text, update

from auth.limits import Bounds
from model_store import registry
from model_store.database import transaction
from model_store.job_policies import JobPolicy, set_policy
from tests.conftest import RedisServer
from tests.processes import cluster, wait_for
from tests.quiet_gateway import QuietGateway
from tests.submit_kit import MODEL, ROWS, SUBMIT, caller, jobs_of, submit, submitting
from workers import idempotency
from workers.files.keeping import INPUT, NEVER
from workers.files.tables import File
from workers.idempotency import Claim, IdempotencyKey
from workers.redis_link import connect
from workers.sweep import Collaborators, Sweep

KEY = "8e03978e-40d5-43dd-bc93-6894a57f9324"


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[QuietGateway]:
    with submitting(tmp_path) as made:
        yield made


@pytest.fixture
def gateway_of_each(database_url: str, tmp_path: Path) -> Iterator[QuietGateway]:
    """On each database; larger bodies lie in the store."""
    with submitting(tmp_path, database_url=database_url, inline_bytes=2048) as made:
        yield made


def test_a_request_that_comes_again_gets_the_job_that_it_made(gateway_of_each: QuietGateway):
    # given a job that was submitted under a key
    headers = caller(gateway_of_each)
    first = submit(gateway_of_each.http, headers, idempotency_key=KEY)
    assert (first.status_code, "idempotent-replayed" in first.headers) == (202, False)
    # when the request comes again, with the key as the draft writes it and with less time left
    again = submit(gateway_of_each.http, headers, idempotency_key=f'"{KEY}"', sluice_deadline="9")
    # then the answer is the same job's, and says so
    assert (again.status_code, again.headers["idempotent-replayed"]) == (202, "true")
    assert again.headers["location"] == first.headers["location"]
    assert again.json()["id"] == first.json()["id"]
    assert len(jobs_of(gateway_of_each.parts.sessions)) == 1


def test_another_request_under_the_same_key_is_refused(gateway: QuietGateway):
    headers = caller(gateway)
    submit(gateway.http, headers, idempotency_key=KEY)
    others = [
        submit(gateway.http, headers, {"instances": [[1.0, 2.5]]}, idempotency_key=KEY),
        submit(gateway.http, headers, idempotency_key=KEY, sluice_priority="interactive"),
        gateway.http.post(
            f"/v1/models/{MODEL}/versions/1:submit", json=ROWS, headers={**headers, "idempotency-key": KEY}
        ),
    ]
    assert [answer.status_code for answer in others] == [422, 422, 422]
    assert "another request" in others[0].json()["error"]
    assert len(jobs_of(gateway.parts.sessions)) == 1


def test_a_key_is_its_clients_own_and_no_key_is_none(gateway: QuietGateway):
    one, other = caller(gateway, "one"), caller(gateway, "other")
    ids = {submit(gateway.http, headers, idempotency_key=KEY).json()["id"] for headers in (one, other)}
    ids |= {submit(gateway.http, one).json()["id"] for _ in range(2)}
    assert len(ids) == len(jobs_of(gateway.parts.sessions)) == 4


def test_the_open_inference_face_and_prefer_have_keys_too(gateway: QuietGateway):
    headers = {**caller(gateway), "idempotency-key": KEY, "prefer": "respond-async"}
    tensor = {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1.0, 2.0]}
    answers = [
        gateway.http.post(f"/v2/models/{MODEL}/infer", json={"inputs": [tensor]}, headers=headers) for _ in range(2)
    ]
    assert [answer.status_code for answer in answers] == [202, 202]
    assert answers[0].json()["id"] == answers[1].json()["id"]
    # and the same key at another face is another request
    assert gateway.http.post(f"/v1/models/{MODEL}:predict", json=ROWS, headers=headers).status_code == 422


def test_of_many_at_once_at_two_gateways_one_makes_the_job(
    gateway_of_each: QuietGateway, database_url: str, tmp_path: Path
):
    # given two gateways on one database, and large bodies, which lie in the store
    large = {"instances": [[1.0, 2.0]] * 400}
    with submitting(tmp_path, database_url=database_url, inline_bytes=2048) as second:
        headers = caller(gateway_of_each)
        second.parts.snapshot.refresh()
        begin = threading.Barrier(12)

        def send(number: int) -> httpx.Response:
            with httpx.Client(base_url=(gateway_of_each, second)[number % 2].http.base_url, timeout=30) as http:
                begin.wait()
                return submit(http, headers, large, idempotency_key=KEY)

        # when a dozen send the same request at the same time
        with ThreadPoolExecutor(12) as pool:
            answers = list(pool.map(send, range(12)))
    # then there is one job, everybody has its id, and one body is kept
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert sum("idempotent-replayed" in answer.headers for answer in answers) == 11
    assert len(jobs_of(gateway_of_each.parts.sessions)) == 1
    kept = [path for path in (tmp_path / "store").rglob("*") if path.is_file() and "input" in path.name]
    assert len(kept) == 1


def test_a_full_queue_and_a_policy_refuse_new_jobs_but_no_retry(gateway_of_each: QuietGateway):
    # given a client that may have one job waiting, and has it
    headers = caller(gateway_of_each, bounds=Bounds(queued_jobs=1, instances_per_day=3))
    first = submit(gateway_of_each.http, headers, idempotency_key=KEY)
    # when it asks for another, the key is not kept with the refusal
    refused = submit(gateway_of_each.http, headers, idempotency_key="other")
    assert refused.status_code == 429
    with transaction(gateway_of_each.parts.sessions, write=False) as session:
        assert session.scalars(select(IdempotencyKey.key)).all() == [KEY]
    # and when it asks for the first again, it gets it, and is charged once
    for _ in range(3):
        assert submit(gateway_of_each.http, headers, idempotency_key=KEY).json()["id"] == first.json()["id"]
    # nor does it matter that a policy shut the queue meanwhile
    with transaction(gateway_of_each.parts.sessions) as session:
        set_policy(session, MODEL, JobPolicy(deadline_seconds=1e-6))
    gateway_of_each.parts.snapshot.refresh()
    assert submit(gateway_of_each.http, headers, idempotency_key=KEY).json()["id"] == first.json()["id"]


def test_a_retry_after_the_job_was_forgotten_says_so_and_makes_no_other(gateway: QuietGateway):
    headers = caller(gateway)
    job = submit(gateway.http, headers, idempotency_key=KEY).json()["id"]
    assert gateway.http.delete(f"/v1/jobs/{job}", headers=headers).status_code == 204
    assert submit(gateway.http, headers, idempotency_key=KEY).status_code == 404
    assert jobs_of(gateway.parts.sessions) == []


def test_who_may_not_use_the_model_any_more_is_told_nothing_of_the_job(gateway: QuietGateway):
    headers = caller(gateway)
    submit(gateway.http, headers, idempotency_key=KEY)
    with transaction(gateway.parts.sessions) as session:
        registry.retire(session, MODEL, 1)
    gateway.parts.snapshot.refresh()
    assert submit(gateway.http, headers, idempotency_key=KEY).status_code == 404


def test_keys_last_for_a_day_and_are_purged_a_page_at_a_time(gateway_of_each: QuietGateway):
    # given keys of yesterday, and one of now
    sessions, pages = gateway_of_each.parts.sessions, idempotency.PAGE_ROWS
    with transaction(sessions) as session:
        idempotency.take(session, [Claim("c", f"old-{n}", b"r" * 32, f"j{n}") for n in range(pages + 1)])
        session.execute(update(IdempotencyKey).values(created_at=1))
        idempotency.take(session, [Claim("c", "new", b"r" * 32, "new")])
    # when one of the old ones comes again before the sweep comes to it, it is taken anew
    with transaction(sessions) as session:
        held = idempotency.take(session, [Claim("c", "old-0", b"s" * 32, "again")])
        assert held["c", "old-0"].job_id == "again"
    # then the sweep takes the rest, though they are more than a page
    parts = gateway_of_each.parts
    client = connect(parts.settings)
    with transaction(sessions) as session:
        session.execute(update(IdempotencyKey).where(IdempotencyKey.job_id == "again").values(created_at=1))
        idempotency.take(session, [Claim("c", "last", b"r" * 32, "last")])
    Sweep(Collaborators(sessions, client, parts.artifacts, parts.publisher, parts.settings, 8)).purge()
    client.close()
    with transaction(sessions, write=False) as session:
        assert set(session.scalars(select(IdempotencyKey.key))) == {"new", "last"}


def test_a_retry_after_a_gateway_was_killed_between_commit_and_answer_gets_the_one_job(
    redis_server: RedisServer, tmp_path: Path
):
    with cluster(tmp_path, redis_server.url, f"sqlite:///{tmp_path / 'sluice.db'}") as installation:
        # given a gateway, and a caller whose connection takes no answer
        installation.start_gateway()
        http = installation.caller(MODEL)
        url = urlsplit(installation.gateways[0])
        body = b'{"instances": [[1.0, 2.0]]}'
        head = (
            f"POST {SUBMIT} HTTP/1.1\r\nhost: {url.hostname}\r\nauthorization: {http.headers['authorization']}\r\n"
            f"idempotency-key: {KEY}\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        with socket.create_connection((url.hostname, url.port)) as connection:
            connection.sendall(head.encode() + body)
            # when the gateway is killed as soon as the job is committed
            wait_for(lambda: jobs_of(installation.sessions), 10)
            _kill(installation.processes[0])
        # then the retry at its successor gets that job
        installation.start_gateway()
        http.base_url = installation.gateways[1]
        again = http.post(SUBMIT, content=body, headers={"idempotency-key": KEY})
        assert (again.status_code, again.headers["idempotent-replayed"]) == (202, "true")
        assert [job.id for job in jobs_of(installation.sessions)] == [again.json()["id"]]


def _kill(process: subprocess.Popen[bytes]) -> None:
    os.kill(process.pid, signal.SIGKILL)
    process.wait(10)


def test_a_file_that_comes_again_is_its_job_also_where_no_further_file_may_wait(tmp_path: Path):
    with submitting(tmp_path, files_waiting=1) as gateway:
        headers = caller(gateway)

        def send(key: str) -> httpx.Response:
            named = {**headers, "idempotency-key": key}
            return gateway.http.post(f"/v1/models/{MODEL}:batch?format=jsonl", content=b"[1,2]\n", headers=named)

        # given a client with as many waiting files as it may have
        first = send("one")
        assert first.status_code == 202
        # when the same file comes again, and another one
        again, other = send("one"), send("other")
        # then the first is told of its job, and the other is refused and leaves no key
        assert (again.status_code, again.headers["idempotent-replayed"]) == (202, "true")
        assert again.json()["id"] == first.json()["id"]
        assert other.status_code == 429
        with transaction(gateway.parts.sessions, write=False) as session:
            assert session.scalars(select(IdempotencyKey.key)).all() == ["one"]


def test_a_file_whose_gateway_died_before_its_job_was_written_does_not_stay_for_ever(tmp_path: Path):
    with submitting(tmp_path) as gateway:
        headers = caller(gateway)
        path = f"/v1/models/{MODEL}:batch?format=jsonl"
        assert gateway.http.post(path, content=b"[1,2]\n", headers=headers).status_code == 202
        # given a database that takes no more jobs, and lets nobody clean up
        with transaction(gateway.parts.sessions) as session:
            session.execute(text("CREATE TRIGGER no_job BEFORE INSERT ON jobs BEGIN SELECT RAISE(ABORT, 'no'); END"))
            session.execute(text("CREATE TRIGGER stay BEFORE DELETE ON files BEGIN SELECT RAISE(ABORT, 'no'); END"))
        # when a file comes
        assert gateway.http.post(path, content=b"[3,4]\n", headers=headers).status_code >= 500
        # then it has an end of its own, which the one that has a job has not
        with transaction(gateway.parts.sessions, write=False) as session:
            ends = session.scalars(select(File.expires_at).where(File.purpose == INPUT).order_by(File.created_at)).all()
        assert ends[0] == NEVER
        assert ends[1] < NEVER
