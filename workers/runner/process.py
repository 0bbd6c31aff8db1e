"""The parent side of a runner: starts the process, calls it and ends it; one that hangs or dies is an error value."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from model_store.errors import SluiceError
from model_store.signature import Tensors
from workers.errors import LockdownUnavailable, PredictionFailed, RunnerFailed, UploadRefused
from workers.runner import frames, scratch
from workers.runner.environment import environment
from workers.runner.identity import Identity
from workers.runner.limits import Limits, tells_of_memory
from workers.runner.lockdown import OWN_USER, Level, Lockdown
from workers.runner.scratch import Scratch
from workers.runner.tail import Tail
from workers.settings import RunnerSettings

ENTRY = "workers.runner"
LOGGED_CHARACTERS = 4096
MESSAGE_CHARACTERS = 500
END_SECONDS = 2.0
# Python and numpy take 0.3 s to start; a busy machine many times that.
START_SECONDS = 60.0
# What a write into its folder meets where the child has laid something else in the way.
OBSTRUCTED = (FileExistsError, FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError)
MESSAGES = {
    "runner_timeout": "the model took too long and was stopped",
    "runner_memory": "the model needs more memory than it may have",
    "runner_disk": "the model writes larger files than it may",
    "runner_crashed": "the process that ran the model ended unexpectedly",
    "runner_forbidden": "the model made a call to the system that it may not make",
}

log = logging.getLogger(__name__)


class Runner:
    """One runner process with its private folder; use as a context manager, or `close()` it.

    It starts at once and answers one call at a time. After RunnerFailed it is dead and stays so.
    """

    def __init__(self, settings: RunnerSettings, *, limits: Limits | None = None, entry: str = ENTRY) -> None:
        """`entry` is the module to execute: one that calls `main` of workers/runner/__main__.py with its commands."""
        self._limits = limits or Limits.of(settings)
        self._demanded = Level[settings.runner_lockdown.upper()]
        self._lockdown: Lockdown | None = None
        self._calling = threading.RLock()
        identity = _identity(settings)
        self._own_user = bool(settings.runner_user) and identity is not None
        try:
            scratch.sweep(settings.scratch_dir)
            folders = Scratch(settings.scratch_dir)
            with contextlib.ExitStack() as undo:
                undo.callback(folders.remove)
                self._process, self._channel = _start(folders, self._limits, entry, identity)
                undo.pop_all()
        except OSError as error:
            log.warning("a runner cannot be started: %s", error)
            raise RunnerFailed(MESSAGES["runner_crashed"], code="runner_crashed") from error
        self.scratch: Path = folders.work
        self._stderr = Tail(self._process.stdout)
        # Also runs when the object is forgotten, and at the interpreter's end.
        self._end = weakref.finalize(self, _end, os.getpid(), self._process, self._channel, self._calling, folders)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it can still be called."""
        return self._end.alive and not _has_ended(self._process.pid)

    @property
    def lockdown(self) -> Lockdown:
        """What the runner told of itself before it read anything; waits for its start.

        Raises LockdownUnavailable where that is less than the settings demand, and RunnerFailed as `call` does.
        """
        if self._lockdown is not None:
            return self._lockdown
        with self._calling, self._failing():
            return self._greeted(time.monotonic() + START_SECONDS)

    def give(self, name: str, source: Path) -> None:
        """Copies a file into its folder, as a new file in the place of whatever has the name.

        The child executes what was uploaded: it may have laid a link there, which must not be written through. Raises
        RunnerFailed where something there cannot be replaced, OSError on a full disk, and what `lockdown` raises.
        """
        with source.open("rb") as content:
            self.give_bytes(name, content)

    def give_bytes(self, name: str, content: BinaryIO) -> None:
        """As `give`, for whatever can be read in pieces."""
        path = self.scratch / name
        user = self.lockdown.user
        try:
            path.unlink(missing_ok=True)
            with path.open("xb") as copy:
                if user != os.geteuid():
                    os.chown(copy.fileno(), user, -1)
                shutil.copyfileobj(content, copy, 1024**2)
        except OBSTRUCTED as error:
            raise self._failed("runner_crashed") from error

    def call(
        self, command: str, arguments: Mapping[str, Any], tensors: Tensors, *, timeout_seconds: float
    ) -> tuple[dict[str, Any], Tensors]:
        """Run a command and return its answer and tensors.

        Raises what the command raised as far as it may pass (PredictionFailed, UploadRefused), PredictionFailed for
        any other exception in it, and RunnerFailed when the runner died, hung or passed a limit.
        """
        frame = frames.encode({"command": command, "arguments": dict(arguments)}, tensors)
        with self._calling:
            if not self._end.alive:
                raise RunnerFailed(MESSAGES["runner_crashed"], code="runner_crashed")
            deadline = time.monotonic() + timeout_seconds
            with self._failing():
                self._greeted(deadline)
                frames.send(self._channel, frame, deadline=deadline)
                header, outputs = frames.receive(self._channel, self._limits.answer_bytes, deadline=deadline)
        if "error" in header:
            raise self._raised(header["error"])
        answer = header.get("answer")
        if not isinstance(answer, dict):
            raise self._failed("runner_crashed")
        return answer, outputs

    def close(self) -> None:
        """End the process, wait for it and remove its folder; again does nothing."""
        self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _greeted(self, deadline: float) -> Lockdown:
        if self._lockdown is None:
            header, _ = frames.receive(self._channel, 0, deadline=deadline)
            try:
                found = Lockdown.from_json(header.get("lockdown"))
            except ValueError as error:
                raise frames.FrameInvalid("the first frame tells of no lock-down") from error
            if found.level < self._demanded or (self._own_user and OWN_USER in found.missing):
                demanded = f"{self._demanded}, as another user," if self._own_user else str(self._demanded)
                raise LockdownUnavailable(
                    f"nothing that was uploaded is loaded here: the lock-down of runners is {found}; {demanded} is "
                    "demanded. Give the workers what is missing (docs/operations.md, Lock-down) or demand less with "
                    "SLUICE_RUNNER_LOCKDOWN, then upload again"
                )
            self._lockdown = found
        return self._lockdown

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        """Whatever goes wrong with the channel ends the runner."""
        try:
            yield
        except TimeoutError as error:
            raise self._failed("runner_timeout") from error
        except frames.FrameInvalid as error:
            raise self._failed("runner_crashed") from error
        except (OSError, EOFError) as error:
            raise self._failed(self._cause_of_death()) from error
        except BaseException:  # closed and raised again
            # A signal's exception, say: the answer that comes now would be taken for that of the next call.
            self.close()
            raise

    def _cause_of_death(self) -> str:
        """Why the runner went away, by its exit status and its last words."""
        ended = _has_ended(self._process.pid, END_SECONDS)
        self.close()
        if ended and self._process.returncode == -signal.SIGXCPU:
            return "runner_timeout"
        if ended and self._process.returncode == -signal.SIGSYS:
            return "runner_forbidden"
        if ended and tells_of_memory(self._stderr.text(END_SECONDS)):
            return "runner_memory"
        return "runner_crashed"

    def _failed(self, code: str) -> RunnerFailed:
        self.close()
        # A crash report of Python's ends in a list of modules, which would push out what matters.
        words = self._stderr.text(END_SECONDS).partition("\nExtension modules:")[0][-LOGGED_CHARACTERS:]
        log.warning("a runner ended: %s, exit status %s: %s", code, self._process.returncode, words)
        return RunnerFailed(MESSAGES[code], code=code)

    def _raised(self, error: object) -> SluiceError:
        """The exception that an error frame stands for; the child is not trusted to fill it in properly."""
        kind, code, message = (
            str(error.get(part, "")) if isinstance(error, dict) else "" for part in ("kind", "code", "message")
        )
        if kind in MESSAGES:
            return self._failed(kind)
        shown = "".join(character for character in message if character.isprintable())[:MESSAGE_CHARACTERS]
        if kind == "refused" and code.isascii() and code.replace("_", "").isalnum():
            return UploadRefused(shown, code=code[:64])
        return PredictionFailed(shown or "the model failed")


def _start(
    folders: Scratch, limits: Limits, entry: str, identity: Identity | None
) -> tuple[subprocess.Popen[bytes], socket.socket]:
    ours, theirs = socket.socketpair()
    descriptor = str(theirs.fileno())
    # -P: the current folder, which holds what was uploaded, is no place to import from.
    command = [sys.executable, "-P", "-s", "-m", entry, descriptor, limits.to_json(), str(identity or "")]
    try:
        process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            command,
            bufsize=0,
            stdin=subprocess.PIPE,  # the lifeline: never written
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=[theirs.fileno()],
            cwd=folders.work,
            env=environment(folders, limits),
            start_new_session=True,
            umask=0o077,
        )
    except BaseException:  # closed and raised again
        ours.close()
        raise
    finally:
        theirs.close()
    return process, ours


def _identity(settings: RunnerSettings) -> Identity | None:
    """The user that a runner shall have; None for the worker's own, which is no choice unless it is root."""
    if os.geteuid() != 0 or settings.runner_user in ("0", "root"):
        return None
    try:
        return Identity.named(settings.runner_user) if settings.runner_user else Identity.unused()
    except KeyError as error:
        raise LockdownUnavailable(f"SLUICE_RUNNER_USER: there is no user {settings.runner_user}") from error


def _has_ended(pid: int, within_seconds: float = 0.0) -> bool:
    """Whether our child has ended, or does so in time; it is not reaped, so that its number stays its own."""
    until = time.monotonic() + within_seconds
    with contextlib.suppress(ChildProcessError):  # closed by another thread
        while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            if time.monotonic() >= until:
                return False
            time.sleep(0.005)
    return True


def _end(
    owner: int,
    process: subprocess.Popen[bytes],
    channel: socket.socket,
    calling: threading.RLock,
    folders: Scratch,
) -> None:
    if os.getpid() != owner:  # a forked copy of the parent ends: the runner is not its to end
        return
    with contextlib.suppress(ProcessLookupError):
        # Its whole group, before it is reaped: whatever it started goes with it.
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdin is not None:
        process.stdin.close()
    with calling:  # a call in another thread reads the end of the channel first, then its descriptor may be used again
        channel.close()
    folders.remove()
