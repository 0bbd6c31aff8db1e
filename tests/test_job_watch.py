"""Waiting for jobs: what it costs when many do, and who brings the word."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from auth import clients
from auth.scopes import Scope
from gateway import job_watch
from model_store.database import transaction
from model_store.generation import bump_generation
from tests.conftest import RedisServer
from tests.event_kit import line, questions
from tests.live_gateway import LiveGateway, eventually, live_gateway, refused

WAITERS = 200
AWAY = "redis://127.0.0.1:1/0"


@contextlib.contextmanager
def gateway_at(folder: Path, redis_url: str, prefix: str = "t") -> Iterator[LiveGateway]:
    with live_gateway(folder, redis_url=redis_url, key_prefix=prefix) as running:
        yield running


def waiting(gateway: LiveGateway) -> int:
    """How many wait at a gateway."""
    return sum(len(watchers) for watchers in gateway.parts.watch._waiting.values())


@pytest.mark.long
def test_two_hundred_who_wait_ask_the_database_as_often_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(job_watch, "LOOK_SECONDS", 0.2)
    with gateway_at(tmp_path, AWAY) as gateway, ThreadPoolExecutor(WAITERS) as threads:
        mine = line(gateway)
        jobs = [mine.accept() for _ in range(20)]
        claimed = [mine.start(job) for job in jobs]
        limits = httpx.Limits(max_connections=WAITERS)
        with (
            httpx.Client(base_url=gateway.url, headers=mine.client.headers, timeout=60, limits=limits) as client,
            questions(gateway, "WHERE jobs.id = ") as looks,
        ):
            answers = [
                threads.submit(client.get, f"/v1/jobs/{jobs[number % len(jobs)]}", params={"wait": 60})
                for number in range(WAITERS)
            ]
            eventually(lambda: waiting(gateway) == WAITERS and len(looks) == WAITERS)
            with questions(gateway, "WHERE jobs.id IN") as shared:
                eventually(lambda: len(shared) >= 5)
            # However long they wait: one question for all of them at each look, and none of their own.
            assert len(looks) == WAITERS
            for one in claimed:
                mine.finish(one)
            found = [answer.result(30).json() for answer in answers]
        mine.client.close()
    assert {job["state"] for job in found} == {"succeeded"}
    assert len(looks) == 2 * WAITERS


def test_the_word_of_another_gateway_is_enough(
    redis_server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(job_watch, "LOOK_SECONDS", 3600.0)
    prefix = f"t{secrets.token_hex(4)}"
    with (
        gateway_at(tmp_path, redis_server.url, prefix) as here,
        gateway_at(tmp_path, redis_server.url, prefix) as there,
        ThreadPoolExecutor(1) as thread,
    ):
        mine = line(here)
        job = mine.accept()
        with mine.client, httpx.Client(base_url=there.url, headers=mine.client.headers) as elsewhere:
            answer = thread.submit(mine.client.get, f"/v1/jobs/{job}", params={"wait": 60}, timeout=60)
            eventually(lambda: waiting(here) == 1)
            there.parts.snapshot.refresh()
            assert elsewhere.post(f"/v1/jobs/{job}/cancel").status_code == 200
            assert answer.result(20).json()["state"] == "canceled"


def test_who_waited_and_may_not_see_jobs_any_more_is_told_so_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(job_watch, "LOOK_SECONDS", 0.1)
    with gateway_at(tmp_path, AWAY) as gateway, ThreadPoolExecutor(1) as thread:
        mine = line(gateway)
        job = mine.accept()
        claimed = mine.start(job)
        with mine.client:
            answer = thread.submit(mine.client.get, f"/v1/jobs/{job}", params={"wait": 60}, timeout=60)
            eventually(lambda: waiting(gateway) == 1)
            with transaction(gateway.parts.sessions) as session:
                clients.get(session, mine.client_id).scopes = Scope.METRICS_READ.value
                bump_generation(session)
            gateway.parts.snapshot.refresh()
            mine.finish(claimed)
            assert refused(answer.result(20), 403, "insufficient_scope")


def test_nobody_who_waits_is_nobody_who_asks(
    redis_server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(job_watch, "LOOK_SECONDS", 0.1)
    with gateway_at(tmp_path, redis_server.url) as gateway:
        mine = line(gateway)
        with mine.client:
            assert mine.client.get(f"/v1/jobs/{mine.accept()}?wait=0.3").json()["state"] == "queued"
        assert waiting(gateway) == 0
        task = gateway.parts.watch._task
        assert task is not None
        eventually(task.done)
