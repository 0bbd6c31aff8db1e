"""Bodies of requests and answers: the bytes, and the little that must be known to read them.

The gateway passes a body on as it came; what it takes from the request's path and headers travels beside it.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple

# The head of a body that is text from its first byte to its last.
TEXT = 2**32 - 1

_STORED_HEAD = struct.Struct("<BI")  # a NUL, with which no JSON begins, and the head


class Dialect(IntEnum):
    """Whose protocol a body is in; numbers are on the wire between gateway and workers and never change."""

    TENSORFLOW_SERVING = 0
    OPEN_INFERENCE = 1
    # A chunk of a file: its head says which rows it is, and in what format (workers/files/).
    ROWS = 2
    MLFLOW = 3
    MLFLOW_CSV = 4
    CLASSIFY = 5
    REGRESS = 6
    # Files as they are: images, recordings, texts.
    FILES = 7
    EXPLAIN = 8

    @property
    def label(self) -> str:
        """The name in a job's row."""
        return self.name.lower()


class Body(NamedTuple):
    """The bytes of a request or an answer; `head` counts the bytes of JSON in front of tensors, or is TEXT.

    An answer says of how many `instances` it is; of a request that nobody has parsed this is not known.
    """

    data: bytes
    dialect: int = Dialect.TENSORFLOW_SERVING
    head: int = TEXT
    instances: int = 0


def stored(body: Body) -> bytes:
    """The body as one run of bytes, for a row or a file: text as it is, else behind its head."""
    return body.data if body.head == TEXT else _STORED_HEAD.pack(0, body.head) + body.data


HEAD_BYTES = _STORED_HEAD.size


def head_of_stored(beginning: bytes) -> int | None:
    """The head that `stored` put in front, by the first `HEAD_BYTES` of what it gave; None for text."""
    if beginning[:1] != b"\0" or len(beginning) < HEAD_BYTES:
        return None
    head: int = _STORED_HEAD.unpack_from(beginning)[1]
    return head


def restored(data: bytes, dialect: int) -> Body:
    """What `stored` was given."""
    if data[:1] != b"\0":
        return Body(data, dialect)
    _, head = _STORED_HEAD.unpack_from(data)
    return Body(data[_STORED_HEAD.size :], dialect, head)


def dialect_named(label: str) -> Dialect:
    """The dialect of a job's row."""
    return Dialect[label.upper()]
