"""A file in which `map` keeps what was answered, so that a run that was broken off goes on where it was.

One line of JSON says for which call it is; then the answers follow in order, each behind a digest of its instances and
before a digest of itself. What was cut off at the end, when the process was killed, is written anew.
"""

from __future__ import annotations

import json
import os
import struct
import sys
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from sluice.answers import SluiceFailed
from sluice.exchange import encode_json
from sluice.predicted import Answer

DIGEST_BYTES = 16
_NO_HEAD = 2**32 - 1
# The digest of the instances, the head's length, the version or 0, the answer's length.
_RECORD = struct.Struct(f"<{DIGEST_BYTES}sIIQ")


class CheckpointInvalid(SluiceFailed):
    """The file is of another call, of other instances, or in use."""


class Checkpoint:
    """One run's file; close it, or use it as a context manager. Only its own user may read it."""

    def __init__(self, path: Path, call: dict[str, object]) -> None:
        """Opens the file, or makes it. Raises CheckpointInvalid, OSError."""
        self._path = path
        self._file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b")
        try:
            self._begin(json.dumps({"sluice_map": 1, **call}).encode() + b"\n")
        except BaseException:
            self._file.close()
            raise
        self._reading = True

    def next(self, instances: bytes) -> Answer | None:
        """What was answered for the instances with this digest, next in order; None where nothing was, yet.

        Raises CheckpointInvalid where they are others than those that were answered.
        """
        if not self._reading:
            return None
        start = self._file.tell()
        found = self._read()
        if found is None:
            self._reading = False
            self._file.seek(start)
            self._file.truncate()
            return None
        digest, answer = found
        if digest != instances:
            raise CheckpointInvalid(f"{self._path} was written for other instances: remove it to begin anew")
        return answer

    def append(self, instances: bytes, answer: Answer) -> None:
        """Keep what was answered for the next instances in order. Raises OSError."""
        head = _NO_HEAD if answer.head_bytes is None else answer.head_bytes
        record = _RECORD.pack(instances, head, answer.version or 0, len(answer.content)) + answer.content
        self._file.write(record + _digest(record))
        self._file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def _begin(self, line: bytes) -> None:
        if sys.platform != "win32":
            import fcntl

            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise CheckpointInvalid(f"{self._path} is in use by another run") from error
        found = self._file.readline(len(line) + 1)
        if found == line:
            return
        # A run that was killed at once may have left a part of its line.
        if not line.startswith(found):
            raise CheckpointInvalid(f"{self._path} is of another call than this one: remove it to begin anew")
        self._file.seek(0)
        self._file.truncate()
        self._file.write(line)
        self._file.flush()

    def _read(self) -> tuple[bytes, Answer] | None:
        """The next record; None where it is not all there."""
        fixed = self._file.read(_RECORD.size)
        if len(fixed) < _RECORD.size:
            return None
        digest, head, version, size = _RECORD.unpack(fixed)
        left = os.fstat(self._file.fileno()).st_size - self._file.tell()
        if size + DIGEST_BYTES > left:
            return None
        content = self._file.read(size)
        if self._file.read(DIGEST_BYTES) != _digest(fixed + content):
            return None
        return digest, Answer(content, None if head == _NO_HEAD else head, version or None)


def digest_of(given: object) -> bytes:
    """What tells instances from others. Raises TypeError, OSError for files that cannot be read."""
    if isinstance(given, dict):
        parts = [str(name).encode() + digest_of(value) for name, value in given.items()]
        return _digest(b"{" + b"".join(parts))
    if isinstance(given, np.ndarray) and given.dtype != object:
        return _digest(f"{given.dtype.str}{given.shape}".encode() + given.tobytes())
    return _digest(encode_json(given) or b"")


def _digest(data: bytes) -> bytes:
    return blake2b(data, digest_size=DIGEST_BYTES).digest()
