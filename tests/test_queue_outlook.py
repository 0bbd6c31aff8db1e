"""What a queued job is told of its wait, and what is refused since it would wait too long."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from sqlalchemy import update

from auth.grants import GrantSpec
from auth.scopes import Scope
from gateway.load_shedding import LONGEST_RETRY_SECONDS
from model_store.database import transaction
from model_store.job_policies import JobPolicy, set_policy
from tests.conftest import RedisServer
from tests.live_gateway import live_gateway
from tests.processes import wait_for
from tests.quiet_gateway import QuietGateway
from tests.submit_kit import MODEL, ROWS, caller, jobs_of, make_available, submit, submitting
from workers import waiting
from workers.lane_counts import count_out
from workers.lanes import Lane, Priority
from workers.tables import Job

pytestmark = pytest.mark.long  # it waits for what takes its time


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[QuietGateway]:
    with submitting(tmp_path) as made:
        yield made


def look(gateway: QuietGateway) -> None:
    asyncio.run(gateway.parts.outlook.look())


def shown(gateway: QuietGateway, headers: dict[str, str], answer: httpx.Response) -> dict[str, object]:
    found: dict[str, object] = gateway.http.get(f"/v1/jobs/{answer.json()['id']}", headers=headers).json()
    return found


def keep_to(gateway: QuietGateway, policy: JobPolicy) -> None:
    with transaction(gateway.parts.sessions) as session:
        set_policy(session, MODEL, policy)
    gateway.parts.snapshot.refresh()


def test_a_queued_job_knows_what_is_ahead_and_when_it_will_begin(gateway: QuietGateway):
    # given two clients with jobs that wait
    one, other = caller(gateway, "one"), caller(gateway, "other")
    mine = [submit(gateway.http, one) for _ in range(20)]
    for _ in range(5):
        submit(gateway.http, other)
    look(gateway)
    # when the first and the last of one are looked at
    first, last = shown(gateway, one, mine[0]), shown(gateway, one, mine[-1])
    # then each knows its place, and that the other client's come in between
    assert (first["queue_position"], first["jobs_ahead"]) == (1, {"own": 0, "others": 0})
    assert (last["queue_position"], last["jobs_ahead"]) == (20, {"own": 19, "others": 5})
    assert 0.0 == first["estimated_wait_seconds"] < last["estimated_wait_seconds"]  # type: ignore[operator]
    assert str(last["created_at"]) < str(last["estimated_start_at"])


def test_the_estimate_follows_the_rate_at_which_jobs_leave(gateway: QuietGateway):
    # given a queue, and what is guessed of it
    headers = caller(gateway)
    answers = [submit(gateway.http, headers) for _ in range(60)]
    look(gateway)
    guessed = shown(gateway, headers, answers[-1])["estimated_wait_seconds"]
    # when jobs leave it far more slowly than that
    for _ in range(3):
        taken = [job for job in jobs_of(gateway.parts.sessions) if job.state == "queued"][:2]
        with transaction(gateway.parts.sessions) as session:
            session.execute(update(Job).where(Job.number <= taken[-1].number).values(state="canceled"))
            count_out(session, [(job.lane, job.dispatched_at is None) for job in taken])
        asyncio.run(asyncio.sleep(0.05))
        look(gateway)
    # then the last one will have to wait longer than was thought, though there are fewer
    assert shown(gateway, headers, answers[-1])["estimated_wait_seconds"] > guessed  # type: ignore[operator]


def test_places_in_the_midst_of_a_long_lane_are_reckoned(gateway: QuietGateway):
    headers = caller(gateway)
    for _ in range(60):
        submit(gateway.http, headers)
    jobs = jobs_of(gateway.parts.sessions)
    with transaction(gateway.parts.sessions, write=False) as session:
        # Counted up to ten from either end, where they are exact; in between, as if evenly numbered.
        places = [waiting.position(session, job, most=10) for job in jobs]
    assert places[:10] == list(range(1, 11))
    assert places[-10:] == list(range(51, 61))
    assert all(abs((place or 0) - number) <= 2 for number, place in enumerate(places, start=1))


def test_a_job_that_would_wait_longer_than_the_policy_allows_is_refused(gateway: QuietGateway):
    # given a client with a queue, and another without
    flood, other = caller(gateway, "flood"), caller(gateway, "other")
    for _ in range(40):
        submit(gateway.http, flood)
    keep_to(gateway, JobPolicy(queue_seconds=0.001))
    look(gateway)
    # when both submit
    refused, taken = submit(gateway.http, flood), submit(gateway.http, other)
    # then the one is told when to come again, and the other, which would begin at once, is not refused
    assert (refused.status_code, taken.status_code) == (503, 202)
    assert 1 <= int(refused.headers["retry-after"]) <= LONGEST_RETRY_SECONDS
    assert "would wait" in refused.json()["error"]
    # and its interactive jobs do not wait for its bulk ones
    assert submit(gateway.http, flood, sluice_priority="interactive").status_code == 202


def test_a_job_that_could_not_begin_before_its_own_deadline_is_refused(gateway: QuietGateway):
    headers = caller(gateway)
    for _ in range(40):
        submit(gateway.http, headers)
    look(gateway)
    assert submit(gateway.http, headers, sluice_deadline="0.001").status_code == 503
    assert submit(gateway.http, headers, sluice_deadline="600").status_code == 202


def test_a_lane_whose_jobs_have_waited_too_long_takes_no_more(gateway: QuietGateway):
    headers = caller(gateway)
    submit(gateway.http, headers)
    with transaction(gateway.parts.sessions) as session:
        session.execute(update(Job).values(created_at=Job.created_at - 100_000))
    keep_to(gateway, JobPolicy(queue_seconds=60))
    look(gateway)
    refused = submit(gateway.http, headers)
    assert refused.status_code == 503
    assert re.search(r"have waited for 10\d seconds", refused.json()["error"])


def test_a_prediction_that_others_wait_in_front_of_too_long_is_refused_at_once(
    redis_server: RedisServer, tmp_path: Path
):
    # given a model whose policy bounds the wait, no worker, and a prediction that waits
    with live_gateway(tmp_path, redis_url=redis_server.url, key_prefix="outlook", synchronous_seconds=3) as gateway:
        make_available(gateway.parts.sessions)
        with transaction(gateway.parts.sessions) as session:
            set_policy(session, MODEL, JobPolicy(queue_seconds=0.1))
        asker = gateway.client([Scope.PREDICT], [GrantSpec(MODEL)])
        path = f"/v1/models/{MODEL}:predict"
        first = threading.Thread(target=lambda: asker.post(path, json=ROWS), daemon=True)
        first.start()
        # when it has waited for longer than that
        lane = Lane(MODEL, 1, Priority.INTERACTIVE, next(iter(gateway.parts.snapshot.rights.clients)))
        wait_for(lambda: gateway.parts.submission.age(lane) > 0.1, 10)
        refused = asker.post(path, json=ROWS)
        # then the next one is not queued behind it
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert "have waited" in refused.json()["error"]
        first.join()
        asker.close()
