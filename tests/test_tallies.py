"""What is counted of versions: how the times of batches are divided, and how processes add it up in Redis."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from gateway.inference_statistics import InferenceStatistics
from gateway.submission import Submission
from model_store.signature import Signature, Tensors, TensorSpec
from tests.conftest import RedisServer
from tests.onnx_models import line
from tests.queue_kit import Caller, Queue, make_queue, running_slot, worker_settings
from workers import tallies
from workers.batches import Loaded, predict_all
from workers.broker import broker
from workers.errors import PredictionFailed
from workers.kept_statistics import MOST_SIZES, question, tally_of
from workers.protocols.body import Body
from workers.protocols.contract import Contract
from workers.publisher import Publisher
from workers.redis_clock import RedisClock
from workers.redis_link import Reply, Wire
from workers.runtimes.onnx import OnnxPredictor
from workers.statistics_telling import StatisticsTelling
from workers.tallies import Course, Tallies, Tally

SIGNATURE = Signature((TensorSpec("x", "float32", (None, 2)),), (TensorSpec("y", "float32", (None, 1)),))
VERSION = ("line", 1)
ROW = Body(b'{"instances": [[1, 2]]}')


@pytest.fixture
def queue(redis_server: RedisServer, tmp_path: Path) -> Iterator[Queue]:
    made = make_queue(worker_settings(redis_server.url, f"sqlite:///{tmp_path / 'sluice.db'}", tmp_path), tmp_path)
    yield made
    made.close()


@pytest.fixture
def loaded(tmp_path: Path) -> Loaded:
    predictor = OnnxPredictor(line(tmp_path / "line.onnx", weights=[2.0, 3.0], bias=1.0), SIGNATURE, 0)
    return Loaded(Contract("line", 1, SIGNATURE, 100), predictor, 4, 1, 0.0001)


def kept(queue: Queue, model: str = "double", version: int = 1) -> Tally:
    """What Redis has of a version."""
    return tally_of(Wire(queue.client).execute([question(queue.keys, (model, version))])[0])


def course(*sizes: int, answered: int = 1) -> Course:
    """Inferences of these sizes that took a microsecond for each instance."""
    made = Course(input_ns=1000, output_ns=2000, answered=answered)
    for size in sizes:
        made.ran(0, 1000 * size, size)
    return made


def test_what_one_process_told_stays_when_the_next_one_tells(queue: Queue):
    # given a process that answered three predictions, and ended
    lane = queue.lane()
    for rows in (((1.0, 1.0), (2.0, 2.0), (3.0, 3.0)), ((4.0, 4.0),)):
        with running_slot(queue) as slot:
            caller = Caller(queue)
            numbers = caller.ask(lane, *rows)
            time.sleep(0.05)
            slot.ring(lane)
            caller.collect(numbers)
    # when another one of the same slot has answered one, then all four are there
    found = kept(queue)
    assert (found.instances, found.computed, found.queued) == (4, 4, 4)
    assert sum(size * batch.count for size, batch in found.batches.items()) == 4
    # Each of them waited for longer than it slept here.
    assert found.queue_ns > 4 * 45_000_000
    assert queue.client.pttl(queue.keys.statistics("double", 1)) > 0


def test_what_redis_did_not_take_is_told_later_and_once(queue: Queue):
    counted = Tallies()
    telling = StatisticsTelling(queue.keys, counted)
    counted.ran(VERSION, course(1))
    with redis.Redis(port=1, retry=Retry(NoBackoff(), 0)) as nobody, pytest.raises(redis.ConnectionError):
        telling.tell(Wire(nobody))
    counted.ran(VERSION, course(2, 2, answered=3))
    counted.ended(VERSION, succeeded=True, nanoseconds=5_000_000)
    for _ in range(2):
        telling.tell(Wire(queue.client))
    found = kept(queue, *VERSION)
    assert (found.executions, found.instances, found.computed, found.succeeded) == (3, 5, 4, 1)
    assert {size: batch.count for size, batch in found.batches.items()} == {1: 1, 2: 2}
    assert (found.input_ns, found.infer_ns, found.output_ns) == (4000, 1000 + 3 * 4000, 8000)
    assert (found.succeeded_ns, found.last_ms > 0) == (5_000_000, True)


class BusyWire(Wire):
    """A connection during each of whose round trips another prediction ends."""

    def __init__(self, client: redis.Redis, counted: Tallies) -> None:
        super().__init__(client)
        self._counted = counted
        self.trips = 0

    def execute(self, commands: Sequence[bytes]) -> list[Reply]:
        self.trips += 1
        assert self.trips < 9, "it does not end while predictions do"
        self._counted.ended(VERSION, succeeded=True, nanoseconds=1)
        return super().execute(commands)


def test_what_is_counted_while_it_is_told_is_told_the_next_time(queue: Queue):
    counted = Tallies()
    wire = BusyWire(queue.client, counted)
    counted.ended(VERSION, succeeded=True, nanoseconds=1)
    for trips in (1, 2):
        StatisticsTelling(queue.keys, counted).tell(wire)
        assert (wire.trips, kept(queue, *VERSION).succeeded) == (trips, trips)


class BusySubmission(Submission):
    """A gateway's end of the queue, during each of whose round trips another prediction ends."""

    statistics: InferenceStatistics
    trips = 0

    async def ask(self, commands: Sequence[bytes]) -> list[Reply]:
        self.trips += 1
        assert self.trips < 9, "it does not end while predictions do"
        self.statistics.count(VERSION, 200, 0.1)
        return await super().ask(commands)


def test_who_asks_a_busy_gateway_is_told_what_was_counted_before(queue: Queue):
    async def asked() -> tuple[int, int]:
        submission = BusySubmission(queue.settings, "busy", Publisher(broker(queue.settings)))
        statistics = submission.statistics = InferenceStatistics(submission, queue.keys)
        await submission.start()
        statistics.count(VERSION, 200, 0.1)
        try:
            [found] = await statistics.of([VERSION])
        finally:
            await submission.close()
        return found.succeeded, submission.trips

    assert asyncio.run(asked()) == (1, 2)


def test_sizes_of_batches_are_bounded_however_many_processes_count(queue: Queue):
    for first in (1, 41):
        counted = Tallies()
        telling = StatisticsTelling(queue.keys, counted)
        for size in range(first, first + 40):
            counted.ran(VERSION, course(size))
            telling.tell(Wire(queue.client))
    found = kept(queue, *VERSION)
    assert set(found.batches) == set(range(1, MOST_SIZES + 1))
    assert found.executions == 80


def test_what_others_wrote_is_left_out():
    words = [b"executions", b"9" * 30, b"instances", b"-3", b"computed", b"7", b"3:count", b"2", b"3:none", b"2",
             b"x:count", b"1", b"\xff", b"1", b"queue_us", b"5", b"odd"]  # fmt: skip
    found = tally_of(words)
    assert (found.executions, found.instances, found.computed, found.queue_ns) == (0, 0, 7, 5000)
    assert {size: batch.count for size, batch in found.batches.items()} == {3: 2}
    assert tally_of(redis.ResponseError("WRONGTYPE")) == tally_of([]) == Tally()


def test_no_more_versions_are_counted_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tallies, "MOST_VERSIONS", 2)
    counted = Tallies()
    for number in (1, 2, 3, 1):
        counted.ended(("m", number), succeeded=False, nanoseconds=1)
    assert {version: tally.failed for version, tally in counted.take(9).items()} == {("m", 1): 2, ("m", 2): 1}
    assert counted.take(9) == {}


def test_the_wait_for_another_thread_s_inference_is_no_inference(loaded: Loaded):
    # given an inference that another thread runs
    ran = threading.Event()

    def at_once(tensors: Tensors) -> Tensors:
        ran.set()
        return loaded.run(tensors)

    with loaded.turn:
        thread = threading.Thread(target=predict_all, args=(loaded, [ROW], at_once))
        thread.start()
        # when one waits for it
        assert not ran.wait(1.0)
    thread.join(20)
    # then it waited in the queue
    tally = loaded.tallies.take(1)[VERSION]
    assert tally.queue_ns > 100_000_000
    assert tally.infer_ns < tally.queue_ns
    assert tally.batches[1].infer_ns == tally.infer_ns


def test_what_fails_together_and_runs_alone_is_counted_as_it_ran(loaded: Loaded):
    def picky(tensors: Tensors) -> Tensors:
        if len(tensors["x"]) > 1 or tensors["x"][0, 0] > 8:
            raise PredictionFailed("it fails for this")
        return loaded.run(tensors)

    outcomes = predict_all(loaded, [ROW, Body(b'{"instances": [[9, 9]]}'), ROW, Body(b"{}")], picky)
    assert [isinstance(outcome, Body) for outcome in outcomes] == [True, False, True, False]
    tally = loaded.tallies.take(1)[VERSION]
    assert (tally.executions, tally.instances, tally.computed) == (2, 2, 2)
    assert {size: batch.count for size, batch in tally.batches.items()} == {1: 2}


def test_how_long_entries_waited_is_reckoned_by_redis_s_clock(queue: Queue):
    clock = RedisClock()
    assert clock.waited_ns([1, 2], time.monotonic()) == 0
    now_ms = int(clock.now_ms(Wire(queue.client)))
    waited_ns = clock.waited_ns([now_ms - 1000, now_ms - 3000], time.monotonic())
    # Two of them, half a millisecond each that their dates were rounded by.
    assert 3_999_000_000 <= waited_ns < 24_000_000_000
    assert clock.waited_ns([now_ms + 60_000], time.monotonic()) == 0
