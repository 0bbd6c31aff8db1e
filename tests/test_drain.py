"""A session of a slot: it answers what lies in its lanes, and forgets nothing when things die around it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from monitoring.metrics import FOREIGN_ENTRIES
from tests.conftest import RedisServer
from tests.queue_kit import (
    Caller,
    Queue,
    RunningSlot,
    make_queue,
    running_slot,
    serve_model,
    slow_model,
    wait_until,
    worker_settings,
)
from workers import drain
from workers.drain import Slot
from workers.heart import BEAT_SECONDS, Heart
from workers.hot_lanes import LANES_A_READ
from workers.lanes import JOB_FIELD, RING_FIELD, pack_bundle
from workers.protocols.body import Body
from workers.recovery import ENTRIES_A_TIME
from workers.session import run_session

pytestmark = pytest.mark.long  # it waits for what takes its time


@pytest.fixture
def queue(redis_server: RedisServer, tmp_path: Path) -> Iterator[Queue]:
    settings = worker_settings(redis_server.url, f"sqlite:///{tmp_path / 'sluice.db'}", tmp_path)
    made = make_queue(settings, tmp_path)
    yield made
    made.close()


@pytest.fixture
def slot(queue: Queue) -> Iterator[RunningSlot]:
    with running_slot(queue) as running:
        yield running


def predictions(body: bytes) -> object:
    return json.loads(body)["predictions"]


def test_each_caller_gets_the_answer_to_its_own_input(queue: Queue, slot: RunningSlot):
    caller = Caller(queue)
    lane = queue.lane()
    numbers = [number for i in range(50) for number in caller.ask(lane, (float(i), -1.0))]
    slot.ring(lane)
    answers = caller.collect(numbers)
    assert [predictions(answers[number].body) for number in numbers] == [[[2.0 * i, -2.0]] for i in range(50)]


def test_a_bad_input_spoils_no_other_answer_of_its_batch(queue: Queue, slot: RunningSlot):
    caller, lane = Caller(queue), queue.lane()
    good = caller.ask(lane, (1.0, 2.0))
    queue.client.xadd(queue.keys.lane(lane), {"b": _bundle(caller, 900, b'{"instances": [[1.0]]}')})
    slot.ring(lane)
    answers = caller.collect([*good, 900])
    assert predictions(answers[good[0]].body) == [[2.0, 4.0]]
    assert answers[900].status == 400
    assert "error" in json.loads(answers[900].body)


def test_answered_entries_leave_nothing_behind_and_keys_expire(queue: Queue, slot: RunningSlot):
    caller, lane = Caller(queue), queue.lane()
    numbers = caller.ask(lane, (1.0, 2.0))
    slot.ring(lane)
    caller.collect(numbers)
    wait_until(lambda: queue.client.xlen(queue.keys.lane(lane)) == 0, message="the entry was not deleted")
    caller.ask(lane, (3.0, 4.0))
    wait_until(lambda: queue.client.exists(caller.reply_to) == 1, message="no answer came")
    keys = list(queue.client.scan_iter(f"{queue.settings.key_prefix}:*"))
    assert keys
    assert [key for key in keys if queue.client.pttl(key) == -1] == []


def test_an_entry_past_its_deadline_is_dropped_without_running(queue: Queue, slot: RunningSlot):
    caller, lane = Caller(queue), queue.lane()
    late = caller.ask(lane, (1.0, 2.0), limit_ms=1)
    time.sleep(0.05)
    fresh = caller.ask(lane, (3.0, 4.0))
    slot.ring(lane)
    caller.collect(fresh)
    wait_until(lambda: queue.client.xlen(queue.keys.lane(lane)) == 0)
    assert late[0] not in caller.answers


def test_a_task_whose_token_no_longer_stands_returns_at_once(queue: Queue, slot: RunningSlot):
    queue.client.set(queue.keys.drain("default", "slot"), "another", px=3000)
    slot.start("mine")
    wait_until(lambda: slot.endings == ["outdated"])
    assert queue.client.get(queue.keys.drain("default", "slot")) == b"another"


def test_a_session_ends_when_another_holds_its_key(queue: Queue, slot: RunningSlot):
    slot.ring(queue.lane())
    wait_until(lambda: queue.client.exists(queue.keys.beat("default:slot")) == 1)
    queue.client.set(queue.keys.drain("default", "slot"), "another", px=10_000)
    wait_until(lambda: slot.endings == ["superseded"], 8)


def test_only_the_session_keeps_its_key_alive(queue: Queue, slot: RunningSlot):
    slot.ring(queue.lane())
    key = queue.keys.drain("default", "slot")
    time.sleep(4)
    assert queue.client.pttl(key) > 0, "the key was not renewed beyond its three seconds"
    slot.stop()
    assert queue.client.exists(key) == 0, "a session that ends takes its key with it"


def test_a_ring_that_was_read_but_not_acknowledged_is_heard_by_the_next_session(queue: Queue, slot: RunningSlot):
    lane = queue.lane()
    caller = Caller(queue)
    bell = queue.keys.bell("default", "slot")
    queue.client.xgroup_create(bell, "g", "0", mkstream=True)
    queue.client.xadd(bell, {"l": lane.name})
    # A session that died after reading its bell: the ring is pending under the slot's name.
    queue.client.xreadgroup("g", "default:slot", {bell: ">"})
    numbers = caller.ask(lane, (5.0, 6.0))
    queue.client.set(queue.keys.drain("default", "slot"), "token", px=3000)
    slot.start("token")
    assert predictions(caller.collect(numbers)[numbers[0]].body) == [[10.0, 12.0]]


@pytest.mark.parametrize("dead", ["default:slot", "default:elsewhere"], ids=["its-own", "another-slots"])
def test_entries_of_a_dead_session_are_answered_by_the_next_one(queue: Queue, slot: RunningSlot, dead: str):
    lane, caller = queue.lane(), Caller(queue)
    key = queue.keys.lane(lane)
    queue.client.xgroup_create(key, "g", "0", mkstream=True)
    numbers = caller.ask(lane, (1.0, 1.0), (2.0, 2.0))
    queue.client.xreadgroup("g", dead, {key: ">"})
    until = time.monotonic() + 15
    while time.monotonic() < until and numbers[1] not in caller.answers:
        slot.ring(lane)  # who waits, rings
        popped = queue.client.blpop([caller.reply_to], timeout=1)
        if popped:
            caller.take(popped[1])
    assert [predictions(caller.answers[number][0].body) for number in numbers] == [[[2.0, 2.0]], [[4.0, 4.0]]]
    wait_until(lambda: queue.client.xlen(key) == 0, message="the entries were not deleted")


def test_entries_of_a_session_that_lives_are_not_taken(queue: Queue, slot: RunningSlot):
    lane, caller = queue.lane(), Caller(queue)
    key = queue.keys.lane(lane)
    queue.client.xgroup_create(key, "g", "0", mkstream=True)
    caller.ask(lane, (1.0, 1.0))
    queue.client.xreadgroup("g", "default:busy", {key: ">"})
    queue.client.set(queue.keys.beat("default:busy"), "1", px=20_000)
    time.sleep(3.2)  # idle for longer than a heartbeat lives
    slot.ring(lane)
    fresh = caller.ask(lane, (3.0, 3.0))
    caller.collect(fresh)
    only_theirs = [{"name": b"default:busy", "pending": 1}]
    wait_until(
        lambda: queue.client.xpending(key, "g")["consumers"] == only_theirs, message="an answered entry was kept"
    )


def test_a_prediction_that_died_twice_is_answered_with_an_error(queue: Queue, slot: RunningSlot):
    lane, caller = queue.lane(), Caller(queue)
    key = queue.keys.lane(lane)
    queue.client.xgroup_create(key, "g", "0", mkstream=True)
    numbers = caller.ask(lane, (1.0, 1.0))
    entry = queue.client.xreadgroup("g", "default:slot", {key: ">"})[0][1][0][0]
    queue.client.xclaim(key, "g", "default:slot", 0, [entry])  # the second delivery
    slot.ring(lane)
    answer = caller.collect(numbers)[numbers[0]]
    assert answer.status == 503
    assert "died twice" in json.loads(answer.body)["error"]


def test_a_wiped_redis_is_served_again_within_seconds(queue: Queue, slot: RunningSlot):
    lane, caller = queue.lane(), Caller(queue)
    slot.ring(lane)
    caller.collect(caller.ask(lane, (1.0, 1.0)))
    for key in queue.client.scan_iter(f"{queue.settings.key_prefix}:*"):
        queue.client.delete(key)
    numbers = caller.ask(lane, (2.0, 3.0))
    until = time.monotonic() + 5
    while time.monotonic() < until and numbers[0] not in caller.answers:
        slot.ring(lane)
        popped = queue.client.blpop([caller.reply_to], timeout=1)
        if popped:
            caller.take(popped[1])
    assert predictions(caller.answers[numbers[0]][0].body) == [[4.0, 6.0]]


def test_one_lane_without_its_group_does_not_stop_the_others(queue: Queue, slot: RunningSlot):
    one, other, caller = queue.lane(), queue.lane(client_id="cli_other"), Caller(queue)
    both = caller.ask(one, (1.0, 1.0)) + caller.ask(other, (1.0, 1.0))
    slot.ring(one)
    slot.ring(other)
    caller.collect(both)
    queue.client.xgroup_destroy(queue.keys.lane(other), "g")
    caller.collect(caller.ask(one, (2.0, 2.0)) + caller.ask(other, (3.0, 3.0)))


def test_a_session_waits_for_redis_and_keeps_finished_answers(tmp_path: Path):
    server = RedisServer(tmp_path)
    server.start()
    settings = worker_settings(server.url, f"sqlite:///{tmp_path / 'sluice.db'}", tmp_path)
    queue = make_queue(settings, tmp_path)
    caller, lane = Caller(queue), queue.lane()
    with running_slot(queue) as slot:
        slot.ring(lane)
        caller.collect(caller.ask(lane, (1.0, 1.0)))
        server.kill()
        time.sleep(2)
        server.start()
        queue.client.connection_pool.disconnect()
        numbers = caller.ask(lane, (2.0, 2.0))
        slot.ring(lane)
        assert predictions(caller.collect(numbers, 5)[numbers[0]].body) == [[4.0, 4.0]]
        assert slot.endings == [], "the session ended although only Redis was away"
    queue.close()
    server.kill()


def test_an_unknown_version_is_answered_with_its_error(queue: Queue, slot: RunningSlot):
    lane, caller = queue.lane(model="nothing"), Caller(queue)
    numbers = caller.ask(lane, (1.0, 1.0))
    slot.ring(lane)
    assert caller.collect(numbers)[numbers[0]].status in (404, 503)


def test_a_quarantined_version_fails_fast_while_others_serve(queue: Queue, slot: RunningSlot):
    lane, other, caller = queue.lane(), queue.lane(model="nothing"), Caller(queue)
    queue.client.set(queue.keys.quarantine("double", queue.version), "1", px=5000)
    numbers = caller.ask(lane, (1.0, 1.0))
    slot.ring(lane)
    answer = caller.collect(numbers)[numbers[0]]
    assert answer.status == 503
    assert "crashed" in json.loads(answer.body)["error"]
    numbers = caller.ask(other, (1.0, 1.0))
    slot.ring(other)
    assert caller.collect(numbers)[numbers[0]].status != 200


def test_more_entries_than_one_look_brings_are_taken_over_from_a_dead_session(queue: Queue, slot: RunningSlot):
    lane, caller = queue.lane(), Caller(queue)
    key = queue.keys.lane(lane)
    queue.client.xgroup_create(key, "g", "0", mkstream=True)
    numbers = [number for i in range(ENTRIES_A_TIME + 20) for number in caller.ask(lane, (float(i), 0.0))]
    queue.client.xreadgroup("g", "default:slot", {key: ">"}, count=1000)
    # One ring only: the lane stays hot from then on.
    slot.ring(lane)
    answers = caller.collect(numbers)
    assert [predictions(answers[number].body) for number in numbers] == [
        [[2.0 * i, 0.0]] for i in range(ENTRIES_A_TIME + 20)
    ]


def test_a_lane_in_debt_does_not_wait_while_nobody_else_has_anything(queue: Queue, slot: RunningSlot):
    # One that is quick is enough: a session that sleeps does so each time, a busy machine does not.
    assert any(debt_seconds(queue, slot, turn) < 1.0 for turn in range(3)), "the session slept although there was work"


def debt_seconds(queue: Queue, slot: RunningSlot, turn: int) -> float:
    """How long the rest of what a lane in debt holds takes, with lanes that no turn before has used."""
    flood, quiet = (queue.lane(client_id=f"cli_{name}{turn}") for name in ("flood", "quiet"))
    caller = Caller(queue)
    first = caller.ask(quiet, (1.0, 1.0))
    slot.ring(quiet)
    caller.collect(first)
    # A first read takes 64 entries; each holds 64 predictions, which is a debt of many turns.
    numbers = [number for _ in range(100) for number in caller.ask(flood, *[(1.0, 2.0)] * 64)]
    slot.ring(flood)
    caller.collect(numbers[:1])
    began = time.monotonic()
    caller.collect(numbers)
    return time.monotonic() - began


def test_a_lane_beyond_those_of_one_read_is_read_at_once(queue: Queue, slot: RunningSlot):
    caller = Caller(queue)
    lanes = [queue.lane(client_id=f"cli_{i}") for i in range(LANES_A_READ + 20)]
    first = [number for lane in lanes for number in caller.ask(lane, (1.0, 1.0))]
    for lane in lanes:
        slot.ring(lane)
    caller.collect(first)
    began = time.monotonic()
    for lane in lanes:
        caller.collect(caller.ask(lane, (1.0, 1.0)))
    assert time.monotonic() - began < 8.0, "the session slept on other lanes than the one that had work"


def test_a_slow_batch_does_not_hold_up_others_when_a_session_has_lasted_its_time(
    queue: Queue, slot: RunningSlot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    serve_model(queue.sessions, queue.artifacts, slow_model(tmp_path / "slow.onnx"), "slow", batch_seconds=1.0)
    monkeypatch.setattr(drain, "SESSION_SECONDS", 0.5)
    caller, fast, slow = Caller(queue), queue.lane(), queue.lane(model="slow")
    first = caller.ask(fast, (1.0, 1.0))
    slot.ring(fast)
    caller.collect(first)
    long = caller.ask(slow, (1.0, 50_000.0))
    slot.ring(slow)
    time.sleep(0.7)
    for _ in range(2):  # the first only wakes the session, which then sees that its time is over
        caller.collect(caller.ask(fast, (1.0, 1.0)))
    assert slot.endings == []
    caller.collect(long, 30)
    wait_until(lambda: slot.endings == ["handed over"])


def test_a_process_serves_any_number_of_sessions(queue: Queue):
    child, name = queue.child(), "slot"
    for number in range(60):
        queue.client.set(queue.keys.drain("default", name), str(number), px=3000)
        assert run_session(child, Slot("default", name, str(number)), lambda: True) == "stopping"


def test_a_session_that_cannot_begin_leaves_its_slot_free(queue: Queue):
    child, key = queue.child(), queue.keys.drain("default", "slot")
    queue.settings.scratch_dir.write_text("in the way of the record's folder")
    queue.client.set(key, "token", px=3000)
    with pytest.raises(FileExistsError):
        run_session(child, Slot("default", "slot", "token"), lambda: False)
    wait_until(lambda: queue.client.exists(key) == 0, 8, message="a heart without a session keeps the slot")


def test_a_failure_that_nobody_foresaw_is_answered_and_the_session_goes_on(queue: Queue, slot: RunningSlot):
    lane, caller = queue.lane(), Caller(queue)
    slot.ring(lane)
    caller.collect(caller.ask(lane, (1.0, 1.0)))
    loaded = slot.child.cache.get("double", queue.version)
    del loaded.predictor._session  # type: ignore[attr-defined] # as if the runtime broke in a way of its own
    answer = caller.collect(numbers := caller.ask(lane, (1.0, 1.0)), 5)[numbers[0]]
    assert answer.status == 500
    assert slot.endings == []


def test_a_heart_does_not_take_back_a_key_that_its_session_gave_away(queue: Queue):
    key = queue.keys.drain("default", "slot")
    queue.client.set(key, "token", px=3000)
    heart = Heart(queue.client, queue.keys, ("default", "slot"), "token", queue.sessions)
    heart.start()
    heart.keep_key(False)
    queue.client.delete(key)
    time.sleep(1.5 * BEAT_SECONDS)
    assert queue.client.exists(key) == 0
    heart.close()


def _bundle(caller: Caller, number: int, body: bytes) -> bytes:
    return b"".join(pack_bundle(caller.reply_to, 20_000, [(number, Body(body))]))


def test_a_foreign_entry_is_dropped_and_stands_in_nobodys_way(
    queue: Queue, slot: RunningSlot, caplog: pytest.LogCaptureFixture
):
    lane, caller = queue.lane(), Caller(queue)
    bell = queue.keys.bell(queue.settings.pool, slot.name)
    dropped = FOREIGN_ENTRIES._value.get()
    # Neither a job's number nor its size is ever as large as some of these.
    for entry in ({"odd": "entry"}, {JOB_FIELD: "9" * 40}, {JOB_FIELD: "1:" + "9" * 400}, {JOB_FIELD: "-1"}):
        queue.client.xadd(queue.keys.lane(lane), entry)
    for odd_ring in ({"odd": lane.name}, {RING_FIELD: "nowhere"}):
        queue.client.xadd(bell, odd_ring)
    numbers = caller.ask(lane, (1.0, 1.0))
    slot.ring(lane)
    caller.collect(numbers)
    for key in (queue.keys.lane(lane), bell):
        wait_until(lambda key=key: queue.client.xlen(key) == 0, message="the foreign entry stays")
    assert FOREIGN_ENTRIES._value.get() - dropped == 6, "each is counted once"
    assert caplog.text.count("a foreign entry was dropped: a ring named no lane") == 2


def test_an_entry_canceled_after_it_was_read_is_acknowledged_by_the_next_session(queue: Queue, slot: RunningSlot):
    lane, caller = queue.lane(), Caller(queue)
    key = queue.keys.lane(lane)
    queue.client.xgroup_create(key, "g", "0", mkstream=True)
    caller.ask(lane, (1.0, 1.0))
    entry = queue.client.xreadgroup("g", "default:slot", {key: ">"})[0][1][0][0]
    queue.client.xdel(key, entry)
    slot.ring(lane)
    caller.collect(caller.ask(lane, (2.0, 2.0)))
    wait_until(lambda: queue.client.xpending(key, "g")["pending"] == 0, message="it is pending for ever")
