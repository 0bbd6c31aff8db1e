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
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import workers
from model_store.errors import SluiceError
from model_store.signature import Tensors
from workers.errors import PredictionFailed, RunnerFailed, UploadRefused
from workers.runner import frames, scratch
from workers.runner.limits import Limits, tells_of_memory
from workers.runner.scratch import Scratch
from workers.settings import WorkerSettings

ENTRY = "workers.runner"
STDERR_BYTES = 16 * 1024
LOGGED_CHARACTERS = 4096
MESSAGE_CHARACTERS = 500
END_SECONDS = 2.0
# What a write into its folder meets where the child has laid something else in the way.
OBSTRUCTED = (FileExistsError, FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError)
MESSAGES = {
    "runner_timeout": "the model took too long and was stopped",
    "runner_memory": "the model needs more memory than it may have",
    "runner_disk": "the model writes larger files than it may",
    "runner_crashed": "the process that ran the model ended unexpectedly",
}

log = logging.getLogger(__name__)


class Runner:
    """One runner process with its private folder; use as a context manager, or `close()` it.

    It starts at once and answers one call at a time. After RunnerFailed it is dead and stays so.
    """

    def __init__(self, settings: WorkerSettings, *, limits: Limits | None = None, entry: str = ENTRY) -> None:
        """`entry` is the module to execute: one that calls `main` of workers/runner/__main__.py with its commands."""
        self._limits = limits or Limits.of(settings)
        self._calling = threading.RLock()
        try:
            scratch.sweep(settings.scratch_dir)
            folders = Scratch(settings.scratch_dir)
            with contextlib.ExitStack() as undo:
                undo.callback(folders.remove)
                self._process, self._channel = _start(folders, self._limits, entry)
                undo.pop_all()
        except OSError as error:
            log.warning("a runner cannot be started: %s", error)
            raise RunnerFailed(MESSAGES["runner_crashed"], code="runner_crashed") from error
        self.scratch: Path = folders.work
        self._stderr = _Tail(self._process.stdout)
        # Also runs when the object is forgotten, and at the interpreter's end.
        self._end = weakref.finalize(self, _end, os.getpid(), self._process, self._channel, self._calling, folders)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it can still be called."""
        return self._end.alive and not _has_ended(self._process.pid)

    def give(self, name: str, source: Path) -> None:
        """Copies a file into its folder, as a new file in the place of whatever has the name.

        The child executes what was uploaded: it may have laid a link there, which must not be written through. Raises
        RunnerFailed where something there cannot be replaced, and OSError on a full disk.
        """
        path = self.scratch / name
        with source.open("rb") as content:
            try:
                path.unlink(missing_ok=True)
                with path.open("xb") as copy:
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
            try:
                frames.send(self._channel, frame, deadline=deadline)
                header, outputs = frames.receive(self._channel, self._limits.answer_bytes, deadline=deadline)
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

    def _cause_of_death(self) -> str:
        """Why the runner went away, by its exit status and its last words."""
        ended = _has_ended(self._process.pid, END_SECONDS)
        self.close()
        if ended and self._process.returncode == -signal.SIGXCPU:
            return "runner_timeout"
        if ended and tells_of_memory(self._stderr.text()):
            return "runner_memory"
        return "runner_crashed"

    def _failed(self, code: str) -> RunnerFailed:
        self.close()
        # A crash report of Python's ends in a list of modules, which would push out what matters.
        words = self._stderr.text().partition("\nExtension modules:")[0][-LOGGED_CHARACTERS:]
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


class _Tail:
    """The last bytes of what a process prints; a thread reads on, or a full pipe would stop the process."""

    def __init__(self, stream: IO[bytes] | None) -> None:
        self._kept = b""
        self._thread = threading.Thread(target=self._read, args=(stream,), name="runner-stderr", daemon=True)
        self._thread.start()

    def text(self) -> str:
        """What is known so far; waits a moment for the end of a process that just died."""
        self._thread.join(END_SECONDS)
        return self._kept.decode(errors="replace").strip()

    def _read(self, stream: IO[bytes]) -> None:
        with stream:
            while chunk := stream.read(STDERR_BYTES):
                self._kept = (self._kept + chunk)[-STDERR_BYTES:]


def _start(folders: Scratch, limits: Limits, entry: str) -> tuple[subprocess.Popen[bytes], socket.socket]:
    ours, theirs = socket.socketpair()
    descriptor = str(theirs.fileno())
    # -P: the current folder, which holds what was uploaded, is no place to import from.
    command = [sys.executable, "-P", "-s", "-m", entry, descriptor, limits.to_json()]
    try:
        process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            command,
            bufsize=0,
            stdin=subprocess.PIPE,  # the lifeline: never written
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=[theirs.fileno()],
            cwd=folders.work,
            env=_environment(folders, limits),
            start_new_session=True,
            umask=0o077,
        )
    except BaseException:  # closed and raised again
        ours.close()
        raise
    finally:
        theirs.close()
    return process, ours


def _environment(folders: Scratch, limits: Limits) -> dict[str, str]:
    """The child's whole environment: nothing of the parent's, so no setting and no secret."""
    threads = str(limits.threads)
    return {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "HOME": str(folders.home),
        "TMPDIR": str(folders.tmp),
        "PYTHONPATH": str(Path(workers.__file__).parents[1]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONFAULTHANDLER": "1",
        "KERAS_HOME": str(folders.home),
        "KERAS_BACKEND": "tensorflow",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "TF_NUM_INTRAOP_THREADS": threads,
        "TF_NUM_INTEROP_THREADS": threads,
        "OMP_NUM_THREADS": threads,
        "OPENBLAS_NUM_THREADS": threads,
        "CUDA_VISIBLE_DEVICES": "-1",
        # Every arena reserves 64 MiB of the address space that the memory limit counts.
        "MALLOC_ARENA_MAX": "2",
        # No filter plug-in of HDF5 may be loaded.
        "HDF5_PLUGIN_PATH": "/nonexistent",
        "HDF5_PLUGIN_PRELOAD": "::",
    }


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
