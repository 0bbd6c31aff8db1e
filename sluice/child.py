"""One child process of `sluice up`: how it is started, how it ended, how it is stopped."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from sluice.logbook import Logbook

LEASH = Path(__file__).with_name("leash.py")


@dataclass(frozen=True, slots=True)
class Program:
    """What to run. `stop_seconds` is how long it may take to end by itself after SIGTERM."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    folder: Path
    stop_seconds: float = 10.0


@dataclass(frozen=True, slots=True)
class Ending:
    """How a process ended; `code` as subprocess has it: negative is the signal that killed it."""

    code: int

    def __str__(self) -> str:
        if self.code < 0:
            with contextlib.suppress(ValueError):
                return f"was killed by {signal.Signals(-self.code).name}"
            return f"was killed by signal {-self.code}"
        return f"ended with exit code {self.code}"


def leashed(command: Sequence[str]) -> list[str]:
    """The command, made to end with this process; start it from a thread that lives as long as it shall."""
    return [sys.executable, "-I", "-S", str(LEASH), str(os.getpid()), *command]


class Child:
    """A running process in a process group of its own, so that nothing of it is missed when it must go."""

    def __init__(self, program: Program, logbook: Logbook) -> None:
        self.program = program
        self.logbook = logbook
        self.started_at = time.monotonic()
        self._lock = threading.Lock()  # whoever waits for an errand may be another thread than the one that watches
        with logbook.open() as log:
            self._process = _start(program, log)

    @property
    def pid(self) -> int:
        return self._process.pid

    def ending(self) -> Ending | None:
        """How it ended, or None while it runs; what is left of its group is killed with it."""
        with self._lock:
            if self._process.returncode is None:
                # WNOWAIT looks without reaping: while the leader is a zombie no other group can have got its number.
                if os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                    return None
                self._kill_group()
            return Ending(self._process.wait())

    def ask_to_stop(self) -> None:
        """SIGTERM to the process, which ends what it has started itself."""
        if self.ending() is None:
            os.kill(self.pid, signal.SIGTERM)

    def wait(self, until: float) -> Ending:
        """Wait for its end until a moment of the monotonic clock; what runs then is killed with its whole group."""
        while (ending := self.ending()) is None:
            if time.monotonic() >= until:
                self._kill_group()
            time.sleep(0.02)
        return ending

    def _kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)


def _start(program: Program, log: IO[bytes]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603 - the commands are our own
        leashed(program.command),
        env=dict(program.environment),
        cwd=program.folder,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        # Ctrl-C reaches the foreground group only: `sluice up` alone decides about order.
        process_group=0,
    )
