"""Programs that start programs of their own: groups of processes, ended and reaped as a whole."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.failures import BenchmarkFailed

STOP_SECONDS = 15.0
KILL_SECONDS = 10.0
LOOK_SECONDS = 0.05
SHOWN = 1500
# From linux/prctl.h.
PR_SET_CHILD_SUBREAPER, PR_GET_CHILD_SUBREAPER = 36, 37


@dataclass(frozen=True, slots=True)
class Group:
    """A process that leads a group, and the file that all of it writes to."""

    leader: subprocess.Popen[bytes]
    output: Path

    def require_running(self) -> None:
        """Raises BenchmarkFailed, with the end of what it wrote, once the leader has ended."""
        if self.leader.poll() is not None:
            raise self.failed(f"ended with {self.leader.returncode}")

    def failed(self, text: str) -> BenchmarkFailed:
        return BenchmarkFailed(f"{text}; the end of {self.output}:\n{self.said()[-SHOWN:]}")

    def said(self) -> str:
        return self.output.read_text(errors="replace")


@contextlib.contextmanager
def running(command: list[str], environment: Mapping[str, str], folder: Path, output: Path) -> Iterator[Group]:
    """Run a program in a group of its own for the length of the block; nothing is left of it.

    Raises BenchmarkFailed.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    with adopting(), started(command, environment, folder, output) as leader:
        yield Group(leader, output)


@contextlib.contextmanager
def started(
    command: list[str], environment: Mapping[str, str], folder: Path, output: Path
) -> Iterator[subprocess.Popen[bytes]]:
    with output.open("wb") as file:
        try:
            leader = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd=folder,
                start_new_session=True,
            )
        except OSError as error:
            raise BenchmarkFailed(f"{command[0]}: {error}") from error
    try:
        yield leader
    finally:
        stop(leader)


@contextlib.contextmanager
def adopting() -> Iterator[None]:
    """What our children leave behind becomes our own child, so that we can reap it (Linux)."""
    process = ctypes.CDLL(None)
    before = ctypes.c_int()
    process.prctl(PR_GET_CHILD_SUBREAPER, ctypes.byref(before))
    process.prctl(PR_SET_CHILD_SUBREAPER, 1)
    try:
        yield
    finally:
        process.prctl(PR_SET_CHILD_SUBREAPER, before.value)


def stop(leader: subprocess.Popen[bytes]) -> None:
    """End the whole group and reap it: asked first, killed what is left after a while."""
    with contextlib.suppress(ProcessLookupError):
        leader.send_signal(signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        leader.wait(STOP_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader.pid, signal.SIGKILL)
    leader.wait(KILL_SECONDS)
    until = time.monotonic() + KILL_SECONDS
    while time.monotonic() < until and reap(leader.pid):
        time.sleep(LOOK_SECONDS)


def reap(group: int) -> bool:
    """Reap who has ended in a group of ours; whether somebody is left in it."""
    try:
        while os.waitpid(-group, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True
