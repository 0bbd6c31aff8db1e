"""The parent side of decoding single files: one runner for all requests of a process, started by the first file.

Decoders of strangers' bytes do not run beside other clients' inputs and what else a prediction process holds. A round
trip to a runner that is there takes 0.15 ms more than decoding here; starting one takes 0.2 to 0.5 s.
"""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Any

import numpy as np

from model_store.signature import Signature, Tensor, Tensors
from workers.decoding.given import FILES, VALUES
from workers.errors import (
    DecodingAway,
    DecodingUnavailable,
    LockdownUnavailable,
    PredictionFailed,
    RunnerFailed,
    UploadRefused,
)
from workers.protocols.file_inputs import DECODED_BYTES
from workers.protocols.file_reading import FileUnfit, Given
from workers.runner.limits import Limits
from workers.runner.process import Runner
from workers.settings import RunnerSettings

MEMORY_BYTES = 2 * 1024**3
# The largest images that are taken need half a second each; other requests with files wait meanwhile.
CALL_SECONDS = 5.0
# Between two starts that fail: each takes time from everybody else's predictions.
REST_SECONDS = 2.0
COMMAND = "decoding_read_files"
UNAVAILABLE = "format_unavailable"
MESSAGE_CHARACTERS = 200
ENDINGS = {
    "runner_timeout": "decoding takes too long",
    "runner_memory": "decoding takes too much memory",
}


class FileRunner:
    """Reads files in a runner; one that a file ends is replaced for the next. May be called from several threads."""

    def __init__(self, settings: RunnerSettings) -> None:
        self._settings = settings
        self._turn = threading.Lock()
        self._runner: Runner | None = None
        # What became of the last start, where it failed.
        self._failure: DecodingUnavailable | None = None
        self._rests_until = 0.0

    def read(self, given: Given) -> Tensor:
        """As workers/protocols/file_reading.py says."""
        terms = {
            "kind": given.kind,
            "signature": Signature((given.spec,), ()).to_json(),
            "specification": given.specification,
            "most_bytes": DECODED_BYTES,
        }
        contents = np.empty(len(given.files), object)
        contents[:] = given.files
        with self._turn:
            answer, tensors = self._call(terms, {FILES: contents})
        if "wrong" in answer:
            raise _wrong(answer["wrong"], len(given.files))
        return _checked(tensors.get(VALUES), given)

    @property
    def pid(self) -> int | None:
        """Of the runner that read last; None where there is none."""
        return None if self._runner is None else self._runner.pid

    def close(self) -> None:
        """End the runner, if there is one."""
        with self._turn:
            if self._runner is not None:
                self._runner.close()
                self._runner = None

    def _call(self, terms: dict[str, Any], tensors: Tensors) -> tuple[dict[str, Any], Tensors]:
        try:
            return self._asked(terms, tensors)
        except RunnerFailed as error:
            raise FileUnfit(0, ENDINGS.get(error.code, "the process that decoded it ended unexpectedly")) from error
        except UploadRefused as error:
            if error.code == UNAVAILABLE:
                raise DecodingUnavailable(error.message) from error
            raise FileUnfit(0, error.message) from error
        except PredictionFailed as error:
            raise FileUnfit(0, "it cannot be decoded") from error

    def _asked(self, terms: dict[str, Any], tensors: Tensors) -> tuple[dict[str, Any], Tensors]:
        older = self._runner
        runner = self._started()
        try:
            return runner.call(COMMAND, terms, tensors, timeout_seconds=CALL_SECONDS)
        except RunnerFailed as error:
            if error.code != "runner_crashed" or runner is not older:
                raise
        # It may have been killed for what others did, by want of memory say: a new one tells whether it was the file.
        return self._started().call(COMMAND, terms, tensors, timeout_seconds=CALL_SECONDS)

    def _started(self) -> Runner:
        """The runner that is there, or a new one; what became of an idle one is no file's fault."""
        if self._runner is None or not self._runner.alive:
            self._runner = None
            if self._failure is not None and time.monotonic() < self._rests_until:
                raise type(self._failure)(self._failure.message)
            open_files = self._settings.runner_open_files
            limits = Limits(MEMORY_BYTES, file_bytes=0, open_files=open_files, answer_bytes=DECODED_BYTES)
            try:
                with contextlib.ExitStack() as undo:
                    runner = Runner(self._settings, limits=limits)
                    undo.callback(runner.close)
                    runner.lockdown  # noqa: B018 - waits for its start, which is no part of a file's time
                    undo.pop_all()
            except LockdownUnavailable as error:
                raise self._rested(DecodingUnavailable(error.message)) from error
            except RunnerFailed as error:
                raise self._rested(DecodingAway("the process that decodes files cannot be started")) from error
            self._failure = None
            self._runner = runner
        return self._runner

    def _rested(self, failure: DecodingUnavailable) -> DecodingUnavailable:
        self._failure, self._rests_until = failure, time.monotonic() + REST_SECONDS
        return failure


def _wrong(told: object, files: int) -> FileUnfit:
    """What the child says of a file; it is not trusted, as a file may have taken it over."""
    match told:
        case [int(number), str(message)] if 0 <= number < files:
            shown = "".join(character for character in message if character.isprintable())
            return FileUnfit(number, shown[:MESSAGE_CHARACTERS])
        case _:
            return FileUnfit(0, "it cannot be decoded")


def _checked(values: Tensor | None, given: Given) -> Tensor:
    shape = (len(given.files), *given.spec.shape[1:])
    fits = (
        values is not None
        and values.dtype == given.spec.numpy_dtype()
        and len(values.shape) == len(shape)
        and all(size > 0 and want in (None, size) for size, want in zip(values.shape, shape, strict=True))
    )
    if values is None or not fits:
        raise FileUnfit(0, "it cannot be decoded")
    return values
