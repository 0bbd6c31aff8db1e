"""Rights that are taken away: every gateway refuses, with or without Redis, and what is queued does not run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from auth import clients
from auth.grants import USE, GrantSpec, set_grants
from auth.scopes import DEFAULT
from model_store.database import clock_ms, transaction
from tests.conftest import RedisServer
from tests.job_kit import accept, make_dispatcher
from tests.live_gateway import LiveGateway, eventually, live_gateway
from tests.queue_kit import Queue, make_queue, running_slot, wait_until, worker_settings
from tests.rights_kit import add_client, serve, token
from workers.lanes import Priority
from workers.tables import Job

JOBS = 200
# Those that a worker finds before the right is gone; the others are laid out afterwards.
FIRST = 8
MODEL = "double"


def withdraw(session: Session, client_id: str) -> None:
    set_grants(session, client_id, [GrantSpec("another")])


def expire(session: Session, client_id: str) -> None:
    set_grants(session, client_id, [GrantSpec(MODEL, actions=USE, expires_at=clock_ms(session))])


def disable(session: Session, client_id: str) -> None:
    clients.set_disabled(session, client_id, True)


@pytest.fixture
def queue(redis_server: RedisServer, database_url: str, tmp_path: Path) -> Iterator[Queue]:
    made = make_queue(worker_settings(redis_server.url, database_url, tmp_path), tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize(
    ("database_url", "take_away", "code"),
    [
        ("sqlite", withdraw, "grant_withdrawn"),
        ("postgresql", withdraw, "grant_withdrawn"),
        ("sqlite", expire, "grant_expired"),
        ("postgresql", disable, "client_disabled"),
        ("sqlite", clients.delete, "client_deleted"),
    ],
    indirect=["database_url"],
)
def test_of_200_queued_jobs_none_runs_after_the_right_is_gone(
    queue: Queue, take_away: Callable[[Session, str], None], code: str
):
    lane = queue.lane(Priority.BULK)
    for number in accept(queue, JOBS, ahead_limit=FIRST)[:FIRST]:
        queue.client.xadd(queue.keys.lane(lane), {"j": number})
    dispatcher = make_dispatcher(queue)
    with running_slot(queue) as slot:
        slot.ring(lane)
        wait_until(lambda: states(queue).get("succeeded", 0) > 0)
        with transaction(queue.sessions) as session:
            take_away(session, queue.client_id)
        with transaction(queue.sessions, write=False) as session:
            gone = clock_ms(session)
        # Nothing told the queue: it lays the others out, and they come up.
        until = time.monotonic() + 30
        while sum(states(queue).get(state, 0) for state in ("succeeded", "canceled")) < JOBS:
            assert time.monotonic() < until
            dispatcher.turn()
            slot.ring(lane)
            time.sleep(0.01)
    dispatcher.close_connections()
    with transaction(queue.sessions, write=False) as session:
        rows = session.execute(select(Job.state, Job.error_code, Job.started_at)).all()
    assert all(started <= gone for state, _, started in rows if state == "succeeded")
    canceled = [error for state, error, _ in rows if state == "canceled"]
    assert (set(canceled), len(canceled) >= JOBS - FIRST) == ({code}, True)


def test_two_gateways_refuse_and_one_of_them_has_lost_its_redis(redis_server: RedisServer, tmp_path: Path):
    (tmp_path / "redis").mkdir()
    lost = RedisServer(tmp_path / "redis")
    lost.start()
    database = {"database_url": f"sqlite:///{tmp_path / 'sluice.db'}"}
    with (
        live_gateway(tmp_path / "one", redis_url=redis_server.url, key_prefix="withdrawn", **database) as one,
        live_gateway(tmp_path / "two", redis_url=lost.url, **database) as two,
    ):
        serve(one.parts, MODEL)
        asked = {
            take_away: add_client(one.parts, name, DEFAULT, [GrantSpec(MODEL)])
            for name, take_away in (("w", withdraw), ("e", expire), ("d", disable), ("x", clients.delete))
        }
        tokens = [token(one.parts, client_id, DEFAULT) for client_id in asked.values()]
        eventually(lambda: answers(one, tokens) == answers(two, tokens) == [200] * 4)
        lost.kill()
        for take_away, client_id in asked.items():
            # As a third gateway would: neither is told.
            with transaction(one.parts.sessions) as session:
                take_away(session, client_id)
        eventually(lambda: answers(one, tokens) == answers(two, tokens) == [404, 404, 401, 401])


def answers(gateway: LiveGateway, tokens: list[dict[str, str]]) -> list[int]:
    path = f"{gateway.url}/v1/models/{MODEL}/metadata"
    return [httpx.get(path, headers=header).status_code for header in tokens]


def states(queue: Queue) -> dict[str, int]:
    with transaction(queue.sessions, write=False) as session:
        return dict(session.execute(select(Job.state, func.count()).group_by(Job.state)).all())
