"""The stream of all of a client's jobs: each end at least once, whatever happens in between."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from sqlalchemy import event, update

from gateway import client_events, end_events, end_feed, ended_jobs
from gateway.end_events import Wanted
from gateway.ended_jobs import Place
from model_store.database import transaction
from tests.conftest import RedisServer
from tests.event_kit import Line, Reading, hurried, line, questions, reading
from tests.live_gateway import LiveGateway, eventually, live_gateway, refused
from workers.lanes import Keys
from workers.tables import Job

pytestmark = pytest.mark.long  # it waits for what takes its time


@contextlib.contextmanager
def gateway_at(folder: Path, redis_url: str, prefix: str = "", **settings: object) -> Iterator[LiveGateway]:
    prefix = prefix or f"t{secrets.token_hex(4)}"
    with live_gateway(folder, **{"redis_url": redis_url, "key_prefix": prefix, **settings}) as running:
        yield running


@pytest.fixture(scope="module")
def gateway(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGateway]:
    with gateway_at(tmp_path_factory.mktemp("gateway"), redis_server.url) as running:
        yield running


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    hurried(monkeypatch)


@pytest.fixture
def mine(gateway: LiveGateway) -> Iterator[Line]:
    made = line(gateway)
    with made.client:
        yield made


def begun(stream: Reading) -> None:
    """Waits until the stream has its place: whatever ends from then on belongs to it."""
    eventually(lambda: stream.last_id != "")


def test_every_end_of_the_clients_jobs_comes_and_nothing_of_anybody_elses(gateway: LiveGateway, mine: Line):
    other = line(gateway)
    before = mine.run()
    with other.client, reading(mine.client, "/v1/events") as stream, reading(other.client, "/v1/events") as theirs:
        begun(stream)
        begun(theirs)
        done = mine.run()
        canceled = mine.accept()
        mine.client.post(f"/v1/jobs/{canceled}/cancel")
        others = other.run()
        stream.wait(2)
        theirs.wait(1)
        again = mine.run()
        stream.wait(3)
    assert stream.ids == [done, canceled, again]
    assert stream.names == ["job.succeeded", "job.canceled", "job.succeeded"]
    assert before not in stream.ids
    assert theirs.ids == [others]
    assert "predictions" not in stream.events[0].job


def test_only_what_was_asked_for_comes(mine: Line):
    asked = {"types": "job.running, job.canceled", "model": "double"}
    with reading(mine.client, f"/v1/events?{httpx.QueryParams(asked)}") as stream:
        begun(stream)
        claimed = mine.start(mine.accept())
        assert stream.wait(1)[0].name == "job.running"
        mine.finish(claimed)
        mine.client.post(f"/v1/jobs/{mine.accept('other')}/cancel")
        canceled = mine.accept()
        mine.client.post(f"/v1/jobs/{canceled}/cancel")
        stream.wait(2)
    assert stream.names == ["job.running", "job.canceled"]
    assert stream.ids[1] == canceled

    assert refused(mine.client.get("/v1/events", params={"types": "job.done"}), 400, "event_type_unknown")
    assert refused(mine.client.get("/v1/events", params={"model": "no name"}), 422, "request_invalid")
    for last_id in ("1.2.1", "-1", "9" * 20):
        answer = mine.client.get("/v1/events", headers={"last-event-id": last_id})
        assert refused(answer, 400, "last_event_id_invalid")


def test_who_comes_back_is_told_what_was_missed_at_a_gateway_that_knows_nothing_of_it(
    redis_server: RedisServer, database_url: str, tmp_path: Path
):
    prefix, shared = f"t{secrets.token_hex(4)}", {"database_url": database_url}
    with gateway_at(tmp_path, redis_server.url, prefix, **shared) as gateway:
        mine = line(gateway)
        with reading(mine.client, "/v1/events") as stream:
            begun(stream)
            seen, late = mine.run(), mine.accept()
            mine.start(late)
            stream.wait(1)
        # One by a transaction that began while the reader was still there.
        mine.end_at(late, int(stream.last_id) - 5000)
        missed = [late, *(mine.run() for _ in range(3))]
    # The Redis that both shared has forgotten everything meanwhile.
    with contextlib.closing(redis_server.client()) as client:
        keys = client.keys(f"{prefix}*")
        if keys:
            client.delete(*keys)
    with (
        gateway_at(tmp_path, redis_server.url, prefix, **shared) as gateway,
        httpx.Client(base_url=gateway.url, headers=mine.client.headers) as client,
    ):
        again = Line(gateway, client)
        with reading(client, "/v1/events", stream.last_id) as stream:
            stream.wait(4)
            later = again.run()
            eventually(lambda: later in stream.ids)
    mine.client.close()
    # At least once, and not twice in one stream.
    assert [job for job in stream.ids if job != seen] == [*missed, later]
    assert len(set(stream.ids)) == len(stream.ids)


def test_an_end_that_became_visible_late_is_told_all_the_same(
    gateway: LiveGateway, mine: Line, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(end_feed, "FAR_LOOK_SECONDS", 0.5)
    monkeypatch.setattr(end_feed, "NEAR_MILLISECONDS", 100)
    with reading(mine.client, "/v1/events") as stream:
        begun(stream)
        began = int(stream.last_id)
        job = mine.accept()
        mine.start(job)
        # Others end and are seen before the transaction is committed in which this one did.
        later = mine.run()
        stream.wait(1)
        eventually(lambda: int(gateway.parts.end_feed.position or 0) > began + 200)
        mine.end_at(job, began + 1)
        stream.wait(2)
    assert stream.ids == [later, job]
    # Its id does not fall behind that of the one before.
    assert stream.events[1].id == stream.events[0].id


def test_an_end_that_became_visible_later_than_anybody_looks_back_is_told_where_redis_names_it(
    redis_server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in ("NEAR_MILLISECONDS", "OVERLAP_MILLISECONDS"):
        monkeypatch.setattr(end_feed, name, 0)
    prefix = f"t{secrets.token_hex(4)}"
    with gateway_at(tmp_path, redis_server.url, prefix) as gateway:
        mine = line(gateway)
        with mine.client, reading(mine.client, "/v1/events") as stream:
            begun(stream)
            job = mine.accept()
            mine.start(job)
            stream_began = int(stream.last_id)
            eventually(lambda: int(gateway.parts.end_feed.position or 0) > stream_began + 10)
            mine.end_at(job, stream_began + 1)
            tell(redis_server, prefix, job)
            assert stream.wait(1)[0].job["id"] == job


def tell(redis_server: RedisServer, prefix: str, job: str) -> None:
    """What a worker says once it has committed the end of a job."""
    with contextlib.closing(redis_server.client()) as client:
        eventually(lambda: client.publish(Keys(prefix).ends(), job) == 1)


def test_a_reader_that_falls_behind_is_closed_and_goes_on_where_it_was(mine: Line, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(end_events, "QUEUE_EVENTS", 2)
    monkeypatch.setattr(end_feed, "LEAST_SECONDS_BETWEEN_LOOKS", 1.0)
    with reading(mine.client, "/v1/events") as stream:
        begun(stream)
        jobs = [mine.run() for _ in range(8)]
        assert stream.over.wait(20)
    monkeypatch.undo()
    with reading(mine.client, "/v1/events", stream.last_id) as rest:
        eventually(lambda: set(jobs) <= {*stream.ids, *rest.ids})


def test_many_readers_cost_no_more_questions_than_one(gateway: LiveGateway, mine: Line):
    with contextlib.ExitStack() as streams:
        readers = [streams.enter_context(reading(mine.client, "/v1/events")) for _ in range(15)]
        for reader in readers:
            begun(reader)
        begun_at = time.monotonic()
        with questions(gateway, "jobs.finished_at >=") as asked:
            jobs = [mine.run() for _ in range(5)]
            for reader in readers:
                reader.wait(5)
        seconds = time.monotonic() - begun_at
    assert all(reader.ids == jobs for reader in readers)
    # Two for each look: where a page ends, and what is on it.
    assert len(asked) <= 2 * (seconds / end_feed.LEAST_SECONDS_BETWEEN_LOOKS + 1)
    # Nobody listens any more, so nobody looks.
    eventually(lambda: gateway.parts.end_feed._task.done())


def test_ends_come_though_redis_is_away(tmp_path: Path):
    with gateway_at(tmp_path, "redis://127.0.0.1:1/0") as gateway:
        mine = line(gateway)
        with mine.client, reading(mine.client, "/v1/events") as stream:
            begun(stream)
            job = mine.run()
            assert stream.wait(1)[0].job["id"] == job


def test_redis_brings_the_end_of_a_job_forward(
    redis_server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(end_feed, "LOOK_SECONDS", 60.0)
    prefix = f"t{secrets.token_hex(4)}"
    with gateway_at(tmp_path, redis_server.url, prefix) as gateway:
        mine = line(gateway)
        with mine.client, reading(mine.client, "/v1/events") as stream:
            begun(stream)
            job = mine.run()
            tell(redis_server, prefix, job)
            assert stream.wait(1)[0].job["id"] == job


def test_pages_of_ends_are_complete_though_many_end_in_one_millisecond(gateway: LiveGateway, mine: Line):
    jobs = [mine.run() for _ in range(7)]
    with transaction(gateway.parts.sessions) as session:
        session.execute(update(Job).where(Job.id.in_(jobs[:5])).values(finished_at=5000))
        session.execute(update(Job).where(Job.id.in_(jobs[5:])).values(finished_at=5001))
    found, after = [], Place(5000)
    while after is not None:
        with transaction(gateway.parts.sessions, write=False) as session:
            page, after = ended_jobs.page(session, [mine.client_id], after, most=2)
        found += [job.id for job in page if job.finished_at < 6000]
    assert found == jobs


def test_readers_that_missed_much_read_a_few_pages_at_a_time(gateway: LiveGateway, mine: Line):
    job, now, most, lock = mine.run(), [0], [0], threading.Lock()

    def begin(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if "finished_at >= " in statement:
            with lock:
                now[0] += 1
                most[0] = max(most[0], now[0])
            time.sleep(0.02)

    def end(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if "finished_at >= " in statement:
            with lock:
                now[0] -= 1

    async def read() -> list[str]:
        feed = end_feed.EndFeed(gateway.parts.sessions)
        pages = await asyncio.gather(*(feed.page(mine.client_id, Place(0)) for _ in range(6)))
        return [one.document.decode() for events, _ in pages for one in events]

    engine = gateway.parts.engine
    event.listen(engine, "before_cursor_execute", begin)
    event.listen(engine, "after_cursor_execute", end)
    try:
        found = asyncio.run(read())
    finally:
        event.remove(engine, "before_cursor_execute", begin)
        event.remove(engine, "after_cursor_execute", end)
    assert [job in document for document in found] == [True] * 6
    assert most[0] <= end_feed.MOST_CATCHING_UP


def test_what_a_reader_missed_long_ago_is_not_kept_in_memory(gateway: LiveGateway, mine: Line):
    jobs = [mine.run() for _ in range(4)]
    for place, job in enumerate(jobs[:3]):
        mine.end_at(job, 1_000_000 + place)

    async def missed() -> list[int]:
        """How many are remembered after each that is told."""
        feed = end_feed.EndFeed(gateway.parts.sessions)
        reader = client_events._Reader(feed, Wanted(mine.client_id), 1_000_000, await feed.now())
        return [len(reader._told) async for text in reader.missed() if text is not None]

    assert asyncio.run(missed()) == [0, 0, 0, 1]
