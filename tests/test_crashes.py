"""Blame for crashes: a version that keeps killing its process rests, and nobody is blamed for another's doing."""

from __future__ import annotations

import secrets
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import RedisServer
from workers.crashes import CRASHES, note_crash
from workers.lanes import Keys
from workers.watchdog import Record, Watchdog, read_record


@pytest.fixture
def keys() -> Keys:
    return Keys(f"t{secrets.token_hex(4)}")


def crash(redis_server: RedisServer, keys: Keys, folder: Path, running: list[tuple[str, int]], reason: str) -> bool:
    record = Record(folder, "slot")
    record.write(running)
    with redis_server.client() as client:
        return note_crash(client, keys, folder, "slot", reason)


def quarantined(redis_server: RedisServer, keys: Keys) -> bool:
    with redis_server.client() as client:
        return bool(client.exists(keys.quarantine("bad", 1)))


def test_three_crashes_in_five_minutes_quarantine_a_version(redis_server: RedisServer, keys: Keys, tmp_path: Path):
    ends = [crash(redis_server, keys, tmp_path, [("bad", 1)], "exitcode 1") for _ in range(CRASHES)]
    assert ends == [False] * (CRASHES - 1) + [True]
    assert quarantined(redis_server, keys)
    with redis_server.client() as client:
        assert 0 < client.pttl(keys.quarantine("bad", 1)) <= 300_000


@pytest.mark.parametrize("reason", ["signal 9 (SIGKILL)", "signal 15 (SIGTERM)"])
def test_kills_by_an_operator_do_not_count(redis_server: RedisServer, keys: Keys, tmp_path: Path, reason: str):
    for _ in range(2 * CRASHES):
        crash(redis_server, keys, tmp_path, [("bad", 1)], f"Worker exited prematurely: {reason} Job: 1.")
    assert not quarantined(redis_server, keys)


def test_no_version_is_blamed_where_several_were_running(redis_server: RedisServer, keys: Keys, tmp_path: Path):
    for _ in range(2 * CRASHES):
        crash(redis_server, keys, tmp_path, [("bad", 1), ("good", 1)], "signal 11 (SIGSEGV)")
    assert not quarantined(redis_server, keys)


def test_a_record_names_what_was_written_last_also_where_it_is_shorter(tmp_path: Path):
    record = Record(tmp_path, "slot")
    record.write([("a-model-with-a-long-name", 1), ("another-model-with-a-long-name", 2)])
    record.write_one(("a", 1))
    assert read_record(tmp_path, "slot") == [("a", 1)]
    record.write_one(("b", 2))
    record.write_one(("a", 1))
    assert read_record(tmp_path, "slot") == [("a", 1)]
    record.close()
    assert read_record(tmp_path, "slot") == []


def test_a_record_outlives_the_process_that_wrote_it_and_names_what_runs_now(tmp_path: Path):
    watchdog = Watchdog(Record(tmp_path, "slot"), 30, deadly=False)
    watchdog.inline(("fast", 1))
    assert read_record(tmp_path, "slot") == [("fast", 1)]
    number = watchdog.begin(("slow", 2))
    assert read_record(tmp_path, "slot") == [("slow", 2)]
    watchdog.end(number)
    assert read_record(tmp_path, "slot") == []
    watchdog.close()


def test_a_slot_without_a_record_was_running_nothing(tmp_path: Path):
    assert read_record(tmp_path, "nobody") == []
    (tmp_path / "sluice-running-odd.json").write_text("{torn")
    assert read_record(tmp_path, "odd") == []


HANG_HOLDING_THE_LOCK = """
import ctypes, sys
from pathlib import Path
from workers.watchdog import Record, Watchdog
watchdog = Watchdog(Record(Path(sys.argv[1]), "slot"), 0.5, deadly=True)
watchdog.inline(("bad", 1))
watchdog.pat()
ctypes.PyDLL(None).sleep(60)  # a native call that keeps the interpreter's lock: no Python code runs any more
"""


def test_a_native_call_that_keeps_the_interpreters_lock_is_ended_all_the_same(tmp_path: Path):
    ended = subprocess.run(
        [sys.executable, "-c", HANG_HOLDING_THE_LOCK, str(tmp_path)], capture_output=True, timeout=30
    )
    assert ended.returncode == 1
    assert b"Timeout" in ended.stderr
    assert read_record(tmp_path, "slot") == [("bad", 1)], "the record says whom to blame"


BUSY = """
import sys, time
from pathlib import Path
from workers.watchdog import Record, Watchdog
watchdog = Watchdog(Record(Path(sys.argv[1]), "slot"), 1.5, deadly=True)
watchdog.begin(("busy", 1), float(sys.argv[2]))
until = time.monotonic() + 4
while time.monotonic() < until:
    watchdog.pat()
    time.sleep(0.05)
"""


@pytest.mark.parametrize(("least_seconds", "code"), [(60, 0), (0, 1)], ids=["load", "inference"])
def test_a_load_may_take_longer_than_an_inference(tmp_path: Path, least_seconds: float, code: int):
    ended = subprocess.run(
        [sys.executable, "-c", BUSY, str(tmp_path), str(least_seconds)], capture_output=True, timeout=30
    )
    assert ended.returncode == code, ended.stderr
    assert (b"took too long" in ended.stderr) == bool(code)


KILLED_WHILE_IT_LOOKS = """
import os, signal, time
from workers.worker_process import Flag
flag = Flag()
for _ in range(5):
    child = os.fork()
    while child == 0:
        flag.is_set()
    time.sleep(0.05)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
flag.set()
child = os.fork()
if child == 0:
    os._exit(7 if flag.is_set() else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
"""


def test_a_child_that_is_killed_while_it_asks_whether_to_stop_leaves_the_answer_to_the_others():
    ended = subprocess.run([sys.executable, "-c", KILLED_WHILE_IT_LOOKS], capture_output=True, timeout=30)
    assert ended.returncode == 0, ended.stderr.decode()
