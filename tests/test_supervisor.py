"""The supervisor of `sluice up` with small programs in the places of the real ones."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sluice.child import Child, Program
from sluice.logbook import Logbook
from sluice.supervisor import Supervisor

# Starts a child of its own in another session, writes both process numbers, and waits for SIGTERM.
FAMILY = """
import os, signal, subprocess, sys, time
child = subprocess.Popen(["sleep", "1000"], start_new_session=True)
signal.signal(signal.SIGTERM, lambda *_: (child.kill(), child.wait(), print("ended in order", flush=True), sys.exit(0)))
open("pids.new", "w").write(f"{os.getpid()} {child.pid}")
os.rename("pids.new", "pids")
time.sleep(1000)
"""
# A supervisor of FAMILY, as a program of its own.
DRIVER = """
import sys, time
from pathlib import Path
from sluice.child import Program
from sluice.supervisor import Supervisor
from sluice.orphans import Orphans
supervisor = Supervisor(Path("."), lambda text: print(text, flush=True), Orphans())
supervisor.start([Program("family", [sys.executable, "-c", sys.argv[1]], {}, Path("."))])
while True:
    supervisor.watch()
    time.sleep(0.05)
"""


def until(condition: Callable[[], object], seconds: float = 20) -> None:
    """Wait for a condition; fail where it does not come true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    """Whether a process does anything: a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def read_pids(folder: Path) -> list[int]:
    until((folder / "pids").exists)
    return [int(word) for word in (folder / "pids").read_text().split()]


class Watched:
    """A supervisor, its warnings, and a way to let it work until something has happened."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.warnings: list[str] = []
        self.supervisor = Supervisor(folder, self.warnings.append)

    def program(self, name: str, code: str, **options: float) -> Program:
        return Program(name, [sys.executable, "-c", code], {}, self.folder, **options)

    def until(self, condition: Callable[[], object]) -> None:
        def look() -> object:
            self.supervisor.watch()
            return condition()

        until(look)


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    watched = Watched(tmp_path)
    yield watched
    watched.supervisor.stop()


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A supervisor in a process of its own: it takes every child of its process that it does not know for an orphan."""
    process = subprocess.Popen([sys.executable, "-c", DRIVER, FAMILY], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    with process:
        yield process
        process.kill()
    # The programs of a supervisor that was killed end with it; what they had started is for them to end.
    for pid in read_pids(tmp_path):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def test_a_dead_program_is_started_again_and_the_reason_told(watched: Watched) -> None:
    # given a program that says something and fails
    code = "open('starts', 'a').write('x'); print('out of cheese'); raise SystemExit(3)"
    watched.supervisor.start([watched.program("mouse", code)])

    # when it has died twice
    watched.until(lambda: len(watched.warnings) == 2)

    # then it was told why, with its last line, and the wait doubles
    assert "mouse (process " in watched.warnings[0]
    assert "ended with exit code 3; starting it again in 0.5 s" in watched.warnings[0]
    assert "out of cheese" in watched.warnings[0]
    assert "starting it again in 1 s" in watched.warnings[1]
    assert (watched.folder / "starts").read_text() == "xx"


def test_a_program_killed_by_a_signal_is_reported_by_the_signals_name(watched: Watched) -> None:
    watched.supervisor.start([watched.program("victim", "import time; time.sleep(1000)")])
    (member,) = watched.supervisor.members
    assert member.child is not None

    os.kill(member.child.pid, signal.SIGKILL)
    watched.until(lambda: watched.warnings)

    assert "was killed by SIGKILL" in watched.warnings[0]


def test_what_a_killed_program_had_started_is_ended_too(driver: subprocess.Popen[str], tmp_path: Path) -> None:
    # given a program that has started another one, in a session of its own
    parent, child = read_pids(tmp_path)

    # when it is killed without a chance to end that one
    os.kill(parent, signal.SIGKILL)

    # then the other one is ended, while the program is started again
    until(lambda: not is_running(child))
    assert driver.stdout is not None
    assert "was killed by SIGKILL" in driver.stdout.readline()
    until(lambda: read_pids(tmp_path)[0] != parent)


def test_programs_stop_in_the_reverse_order_of_their_tiers(watched: Watched) -> None:
    # given three tiers of programs that note when they are told to stop
    for name in ("first", "second", "third"):
        code = (
            "import pathlib, signal, sys, time\n"
            f"signal.signal(signal.SIGTERM, lambda *_: (open('order', 'a').write('{name} '), sys.exit(0)))\n"
            f"pathlib.Path('{name}').touch()\ntime.sleep(1000)"
        )
        watched.supervisor.start([watched.program(name, code)])
        until((watched.folder / name).exists)

    watched.supervisor.stop()

    assert (watched.folder / "order").read_text() == "third second first "
    assert not watched.warnings


def test_a_program_that_ignores_sigterm_is_killed_after_its_time(watched: Watched) -> None:
    code = (
        "import pathlib, signal, time; signal.signal(15, signal.SIG_IGN); pathlib.Path('deaf').touch(); time.sleep(99)"
    )
    watched.supervisor.start([watched.program("deaf", code, stop_seconds=0.2)])
    until((watched.folder / "deaf").exists)
    (member,) = watched.supervisor.members
    assert member.child is not None
    pid = member.child.pid

    watched.supervisor.stop()

    assert not is_running(pid)
    assert watched.warnings == ["deaf did not stop by itself and was killed"]


def test_nothing_outlives_a_supervisor_that_is_killed(driver: subprocess.Popen[str], tmp_path: Path) -> None:
    parent, _ = read_pids(tmp_path)

    driver.kill()
    driver.wait()

    until(lambda: not is_running(parent))


def test_warnings_in_a_log_are_passed_on_and_other_lines_are_not(watched: Watched) -> None:
    lines = [{"level": "info", "message": "all is well"}, {"level": "warning", "message": "the disk is nearly full"}]
    text = "\n".join(json.dumps(line) for line in lines) + "\nnot JSON\n"
    watched.supervisor.start([watched.program("talker", f"import time; print({text!r}, flush=True); time.sleep(1000)")])

    watched.until(lambda: watched.warnings)

    assert watched.warnings == ["talker: the disk is nearly full"]


def test_a_flood_of_warnings_does_not_fill_the_terminal(watched: Watched) -> None:
    flood = json.dumps({"level": "error", "message": "again"}) + "\n"
    code = f"import time; print({flood!r} * 500, end='', flush=True); open('done', 'w').close(); time.sleep(1000)"
    watched.supervisor.start([watched.program("flood", code)])

    watched.until(lambda: (watched.folder / "done").exists() and watched.warnings)
    watched.supervisor.watch()

    assert watched.warnings == ["flood: again"] * 5 + [f"flood: more warnings are in {watched.folder / 'flood.log'}"]


def test_a_log_file_stays_small(tmp_path: Path) -> None:
    # given a log whose file may have 1,000 bytes, in use by a child
    logbook = Logbook(tmp_path / "child.log", limit_bytes=1000)
    with logbook.open() as file:
        file.write(b"old\n" * 300)

        # when it is cut and written to again
        logbook.cut()
        file.write(b"new\n")

    # then the old text is beside it, and what comes next stands at the start of the file
    assert (tmp_path / "child.log").read_bytes() == b"new\n"
    assert (tmp_path / "child.log.1").read_bytes() == b"old\n" * 300
    assert logbook.last_lines(5) == ["new"]


def test_a_program_that_cannot_be_executed_ends_with_a_reason_in_its_log(tmp_path: Path) -> None:
    child = Child(Program("none", ["/nonexistent/program"], {}, tmp_path), Logbook(tmp_path / "none.log"))

    ending = child.wait(time.monotonic() + 20)

    assert ending.code != 0
    assert "No such file or directory" in child.logbook.last_lines(1)[0]
