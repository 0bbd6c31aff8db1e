"""The gateway's end of the queue: it rings while somebody waits, hands out each answer once, and cleans up."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy import select
from starlette.types import Message

from gateway.departures import LOOKED_AT_ENTRIES
from gateway.idempotent_submits import Accepted
from gateway.job_submission import JobSubmission, Submitted
from gateway.submission import CallerGone, Submission
from gateway.turns import bundles
from gateway.wire import JOINED_BYTES
from model_store.database import transaction
from tests.conftest import RedisServer
from tests.queue_kit import Queue, make_queue, running_slot, worker_settings
from workers import jobs
from workers.broker import broker
from workers.errors import DeadlinePassed, PoolDeserted, QueueFull
from workers.lanes import (
    BUNDLE_BYTES,
    BUNDLE_FIELD,
    BUNDLE_PREDICTIONS,
    GROUP,
    JOB_FIELD,
    Answer,
    Lane,
    Priority,
    pack_answers,
    unpack_bundle,
)
from workers.pools import OnePool, Pools
from workers.protocols.body import Body
from workers.publisher import Publisher
from workers.tables import Job

BODY = Body(b'{"instances": [[1.5, 2.0]]}')


@pytest.fixture
def queue(redis_server: RedisServer, tmp_path: Path) -> Iterator[Queue]:
    made = make_queue(worker_settings(redis_server.url, f"sqlite:///{tmp_path / 'sluice.db'}", tmp_path), tmp_path)
    yield made
    made.close()


@asynccontextmanager
async def submitting(queue: Queue, gateway: str = "", pools: Pools | None = None) -> AsyncIterator[Submission]:
    # Its messages go to a queue that no Celery worker reads: the test's slots are begun by the test.
    publisher = Publisher(broker(queue.settings))
    made = Submission(queue.settings, gateway or f"g{secrets.token_hex(3)}", publisher, pools=pools)
    await made.start()
    try:
        yield made
    finally:
        await made.close()


def announce(queue: Queue, slot: str) -> None:
    seconds, microseconds = queue.client.time()
    queue.client.zadd(queue.keys.slots("default"), {slot: seconds + microseconds / 1e6 + 60})


async def eventually(condition: Callable[[], bool], seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


def rings(queue: Queue, slot: str) -> int:
    return int(queue.client.xlen(queue.keys.bell("default", slot)))


def run(work: Awaitable[None]) -> None:
    async def within() -> None:
        async with asyncio.timeout(30):
            await work

    asyncio.run(within())


def test_a_lane_expires_whether_or_not_there_is_a_slot_to_ring(queue: Queue):
    async def work() -> None:
        async with submitting(queue) as submission:
            await lay_out(submission, "nobody")
            announce(queue, "w.0")
            await eventually(lambda: submission.slots == ("w.0",))
            await lay_out(submission, "somebody")

    async def lay_out(submission: Submission, client: str) -> None:
        lane = Lane("double", 1, Priority.INTERACTIVE, client)
        key = queue.keys.lane(lane)
        waiting = []
        for entries in (1, 2):  # the second is written within a second of the first one's ring
            waiting.append(asyncio.create_task(submission.predict(lane, BODY, 10)))
            await eventually(lambda entries=entries: queue.client.xlen(key) == entries)  # type: ignore[misc] # bound now
            assert queue.client.pttl(key) > 3_500_000
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)

    run(work())


def test_whoever_waits_rings_again_until_somebody_serves(queue: Queue):
    async def work() -> None:
        async with submitting(queue) as submission:
            lane = queue.lane()
            waiting = asyncio.create_task(submission.predict(lane, BODY, 20))
            await asyncio.sleep(0.3)  # nobody is announced yet: there is nobody to ring for
            announce(queue, "slot")
            await eventually(lambda: rings(queue, "slot") == 1)
            # What the ring set in motion is lost: the bell, and the session that should have begun.
            queue.client.delete(queue.keys.bell("default", "slot"), queue.keys.drain("default", "slot"))
            await eventually(lambda: rings(queue, "slot") >= 1)
            with running_slot(queue) as slot:
                token = queue.client.get(queue.keys.drain("default", "slot"))
                slot.start((token or b"").decode())
                if not token:
                    slot.ring(lane)
                answer = await waiting
            assert json.loads(answer.body) == {"predictions": [[3.0, 4.0]]}

    run(work())


def test_a_slot_that_does_not_serve_is_passed_over_for_the_next(queue: Queue):
    async def work() -> None:
        announce(queue, "one")
        announce(queue, "two")
        async with submitting(queue) as submission:
            waiting = asyncio.create_task(submission.predict(queue.lane(), BODY, 20))
            await eventually(lambda: rings(queue, "one") >= 1 and rings(queue, "two") >= 1)
            waiting.cancel()

    run(work())


def test_predictions_of_one_turn_share_an_entry_and_a_ring(queue: Queue):
    async def work() -> None:
        announce(queue, "slot")
        async with submitting(queue) as submission:
            lane = queue.lane()
            tasks = [asyncio.create_task(submission.predict(lane, BODY, 20)) for _ in range(10)]
            await eventually(lambda: queue.client.xlen(queue.keys.lane(lane)) > 0)
            assert queue.client.xlen(queue.keys.lane(lane)) == 1
            assert rings(queue, "slot") == 1
            for task in tasks:
                task.cancel()

    run(work())


def test_bodies_of_any_size_lie_in_their_entries_as_they_came(queue: Queue):
    """Small turns are written in one piece, large ones in many."""

    async def work() -> None:
        async with submitting(queue) as submission:
            for client, sizes in (("small", [0, 1, 300]), ("large", [JOINED_BYTES, 0, 3, 2 * BUNDLE_BYTES])):
                lane = Lane("double", 1, Priority.INTERACTIVE, client)
                bodies = [Body(bytes([65 + place]) * size) for place, size in enumerate(sizes)]
                waiting = [asyncio.create_task(submission.predict(lane, body, 10)) for body in bodies]
                await eventually(lambda lane=lane, bodies=bodies: laid_out(queue, lane) == bodies)  # type: ignore[misc] # bound now
                for task in waiting:
                    task.cancel()
                await asyncio.gather(*waiting, return_exceptions=True)

    run(work())


def laid_out(queue: Queue, lane: Lane) -> list[Body]:
    entries = queue.client.xrange(queue.keys.lane(lane))
    return [body for _, fields in entries for _, body in unpack_bundle(fields[BUNDLE_FIELD]).predictions]


def test_an_answer_that_comes_twice_is_handed_out_once(queue: Queue):
    async def work() -> None:
        async with submitting(queue, "gateway") as submission:
            waiting = asyncio.create_task(submission.predict(queue.lane(), BODY, 20))
            await asyncio.sleep(0.1)
            first, second = Answer(1, 200, b"first"), Answer(1, 200, b"second")
            queue.client.rpush(queue.keys.replies("gateway"), pack_answers([first]), pack_answers([second]))
            assert (await waiting).body == b"first"
            later = asyncio.create_task(submission.predict(queue.lane(), BODY, 20))
            await asyncio.sleep(0.3)
            assert not later.done()
            later.cancel()

    run(work())


def test_a_wait_that_is_over_ends_in_504_and_takes_its_entry_along(queue: Queue):
    async def work() -> None:
        async with submitting(queue) as submission:
            with pytest.raises(DeadlinePassed):
                await submission.predict(queue.lane(), BODY, 0.3)
            await eventually(lambda: queue.client.xlen(queue.keys.lane(queue.lane())) == 0)

    run(work())


async def hung_up() -> Message:
    await asyncio.sleep(0.4)
    return {"type": "http.disconnect"}


async def listening() -> Message:
    await asyncio.sleep(60)
    return {"type": "http.request"}


def test_a_caller_who_hangs_up_takes_an_entry_of_its_own_along(queue: Queue):
    async def work() -> None:
        async with submitting(queue) as submission:
            with pytest.raises(CallerGone):
                await submission.predict(queue.lane(), BODY, 20, hung_up)
            await eventually(lambda: queue.client.xlen(queue.keys.lane(queue.lane())) == 0)

    run(work())


def test_who_hangs_up_is_taken_out_of_an_entry_that_others_share(queue: Queue):
    async def work() -> None:
        async with submitting(queue) as submission:
            gone = asyncio.create_task(submission.predict(queue.lane(), BODY, 20, hung_up))
            other = Body(b'{"instances": [[4.0, 0.0]]}')
            stays = asyncio.create_task(submission.predict(queue.lane(), other, 20, listening))
            with pytest.raises(CallerGone):
                await gone
            await eventually(lambda: laid_out(queue, queue.lane()) == [other])
            with running_slot(queue) as slot:
                slot.ring(queue.lane())
                assert json.loads((await stays).body) == {"predictions": [[8.0, 0.0]]}

    run(work())


def test_whoever_leaves_the_rest_of_an_entry_takes_it_along(queue: Queue):
    async def work() -> None:
        async with submitting(queue) as submission:
            waits = [1.0, 1.0, 4.0]
            asked = [asyncio.create_task(submission.predict(queue.lane(), BODY, seconds)) for seconds in waits]
            await eventually(lambda: len(laid_out(queue, queue.lane())) == 3)
            await eventually(lambda: len(laid_out(queue, queue.lane())) == 1)
            [entry] = queue.client.xrange(queue.keys.lane(queue.lane()))
            assert unpack_bundle(entry[1][BUNDLE_FIELD]).limit_ms < queue.settings.synchronous_seconds * 1000 - 200
            await eventually(lambda: queue.client.xlen(queue.keys.lane(queue.lane())) == 0)
            assert all(isinstance(end, DeadlinePassed) for end in await asyncio.gather(*asked, return_exceptions=True))

    run(work())


def test_an_entry_that_a_worker_has_read_stays_when_its_caller_leaves(queue: Queue):
    async def work() -> None:
        async with submitting(queue) as submission:
            key = queue.keys.lane(queue.lane())
            asked = [asyncio.create_task(submission.predict(queue.lane(), BODY, seconds)) for seconds in (1.0, 20)]
            await eventually(lambda: len(laid_out(queue, queue.lane())) == 2)
            queue.client.xgroup_create(key, GROUP, "0")
            queue.client.xreadgroup(GROUP, "default:busy", {key: ">"})
            with pytest.raises(DeadlinePassed):
                await asked[0]
            await asyncio.sleep(0.6)  # it is looked at within a quarter of a second
            assert len(laid_out(queue, queue.lane())) == 2
            asked[1].cancel()

    run(work())


def test_a_canceled_job_leaves_its_lane_also_where_many_lie_before_it(queue: Queue):
    key = queue.keys.lane(queue.lane())
    for number in range(LOOKED_AT_ENTRIES + 2):
        queue.client.xadd(key, {JOB_FIELD: number})

    async def work() -> None:
        async with submitting(queue) as submission:
            for number in (0, LOOKED_AT_ENTRIES, LOOKED_AT_ENTRIES + 100):
                await submission.remove_job(queue.lane().name, number)

    run(work())
    left = [int(fields[JOB_FIELD]) for _, fields in queue.client.xrange(key)]
    assert left == [*range(1, LOOKED_AT_ENTRIES), LOOKED_AT_ENTRIES + 1]


def test_a_turn_is_split_into_entries_of_bounded_size():
    small = [(number, Body(b"x")) for number in range(BUNDLE_PREDICTIONS + 1)]
    assert [len(entry) for entry in bundles(small)] == [BUNDLE_PREDICTIONS, 1]
    sizes = {1: BUNDLE_BYTES, 2: 1, 3: 2 * BUNDLE_BYTES, 4: 1}
    large = [(number, Body(b"x" * size)) for number, size in sizes.items()]
    assert [[number for number, _ in entry] for entry in bundles(large)] == [[1], [2], [3], [4]]


def test_a_job_that_is_refused_leaves_no_input_in_the_store(queue: Queue):
    settings = queue.settings.model_copy(update={"queued_jobs_limit": 1, "inline_bytes": 0})

    async def work() -> None:
        async with submitting(queue) as submission:
            made = JobSubmission(settings, queue.sessions, queue.artifacts, submission)
            job = Submitted(queue.lane(Priority.BULK), "tensorflow_serving", 1, BODY.data, 8)
            kept = await made.submit(job)
            with pytest.raises(QueueFull):
                await made.submit(job)
            await made.close()
        assert [path.name for path in (queue.artifacts.root / "payloads").iterdir()] == [f"{kept.id}.input"]

    run(work())


def test_a_client_has_room_for_as_many_jobs_as_its_limit_says_and_again_once_some_ended(queue: Queue):
    settings = queue.settings.model_copy(update={"queued_jobs_limit": 5})

    async def work() -> None:
        async with submitting(queue) as submission:
            made = JobSubmission(settings, queue.sessions, queue.artifacts, submission)
            job = Submitted(queue.lane(Priority.BULK), "tensorflow_serving", 1, BODY.data, 8)
            answers = await asyncio.gather(*(made.submit(job) for _ in range(8)), return_exceptions=True)
            kept = [answer for answer in answers if isinstance(answer, Accepted)]
            assert len(kept) == 5, answers
            with pytest.raises(QueueFull):
                await made.submit(job)
            with transaction(queue.sessions) as session:
                job_of = session.scalars(select(Job).where(Job.id == kept[0].id)).one()
                assert jobs.cancel(session, job_of)
            assert await made.submit(job)
            with pytest.raises(QueueFull):
                await made.submit(job)
            await made.close()

    run(work())


class NobodysPool(OnePool):
    """`double` is for a pool that has no worker."""

    def __init__(self) -> None:
        super().__init__("default")
        self.named = ("default", "nobody")

    def of(self, model: str) -> str:
        return "nobody" if model == "double" else self.ordinary


def test_a_lane_that_nobody_can_be_rung_for_expires_all_the_same(queue: Queue):
    async def work() -> None:
        async with submitting(queue, pools=NobodysPool()) as submission:
            waiting = asyncio.create_task(submission.predict(queue.lane(), BODY, 5.0))
            key = queue.keys.lane(queue.lane())
            await eventually(lambda: queue.client.exists(key) == 1)
            assert queue.client.pttl(key) > 0
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)

    announce(queue, "w.0")
    run(work())


def test_a_prediction_for_a_pool_that_was_deserted_is_refused_at_once(queue: Queue, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("workers.slot_board.DESERTED_SECONDS", 0.0)

    async def work() -> None:
        async with submitting(queue, pools=NobodysPool()) as submission:
            with pytest.raises(PoolDeserted, match="no worker of the pool nobody"):
                await submission.predict(queue.lane(), BODY, 5.0)
            # Of those that name no pool, any worker may come back.
            other = asyncio.create_task(submission.predict(queue.lane(model="other"), BODY, 5.0))
            await eventually(lambda: queue.client.exists(queue.keys.lane(queue.lane(model="other"))) == 1)
            other.cancel()
            await asyncio.gather(other, return_exceptions=True)

    run(work())
