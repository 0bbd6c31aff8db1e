"""What a format of files has to offer: cutting a file into chunks, and reading the rows of one.

The two halves run in different processes. A background worker cuts: it knows the signature, but looks no closer at the
rows than it has to. The worker that runs a chunk reads them, and may see all of it at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO, Protocol

from model_store.errors import SluiceError
from model_store.signature import Tensors
from workers.protocols.body import Body
from workers.protocols.contract import Contract

Json = None | bool | int | float | str | Sequence["Json"] | Mapping[str, "Json"]
Members = Mapping[str, Json]
"""A JSON object of a format's own: small, since it is written to SQL with every chunk."""


@dataclass(frozen=True, slots=True)
class Span:
    """A run of the file's own bytes."""

    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class ChunkSize:
    """Where to cut: a chunk has at most so many rows and, unless one row alone is longer, bytes; a row has a limit."""

    rows: int
    size_bytes: int
    row_bytes: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """Rows that follow each other: `first_row` counts from 0.

    `data` is a span where the rows lie in the file as they are, and bytes of the format's own making elsewhere. `terms`
    is told to whoever reads them; with `checkpoint` the reading goes on behind this chunk. `total` is how many rows the
    file has, where that was not known before.
    """

    first_row: int
    rows: int
    data: bytes | Span
    checkpoint: Members
    terms: Members = field(default_factory=dict)
    total: int | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """A chunk as the worker gets it that runs it."""

    first_row: int
    rows: int
    data: bytes
    terms: Members


class RowsRequest(Protocol):
    """Rows that are predicted together, as the request of a dialect is; most formats have one for all good rows.

    `instances` counts the first dimension of the tensors, which may be more than the rows.
    """

    @property
    def first_row(self) -> int: ...

    @property
    def tensors(self) -> Tensors: ...

    @property
    def instances(self) -> int: ...

    def format(self, outputs: Tensors, contract: Contract) -> Body:
        """One line for each row, each with its line feed; raises PredictionFailed."""

    def refused(self, error: SluiceError) -> bytes:
        """The same lines where the prediction failed."""

    def single(self) -> Sequence[RowsRequest]:
        """One request for each row, or itself alone where it has one: a row the model fails on must not fail others."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The finished line of a row that cannot be read, with its line feed."""

    first_row: int
    line: bytes


Piece = RowsRequest | Refused
"""What a chunk consists of; pieces follow each other, and each begins at its `first_row`."""


class Format(Protocol):
    """One format of files."""

    def chunks(
        self, file: BinaryIO, contract: Contract, size: ChunkSize, checkpoint: Members | None, /
    ) -> Iterator[Chunk]:
        """The chunks from a checkpoint on, or from the beginning; none is empty.

        `file` can be sought in; nothing of its size may be held. Raises FileInvalid where no row can be told from the
        next; a row that is only wrong in itself is left to `pieces`.
        """

    def total(self, file: BinaryIO, contract: Contract, beat: Callable[[], None], /) -> int | None:
        """How many rows the file has, where one pass over its bytes at most tells it; None elsewhere.

        `beat` is to be called every few megabytes.
        """

    def pieces(self, asked: Asked, contract: Contract, /) -> list[Piece]:
        """The rows of a chunk, in their order; never raises: a row that is wrong is Refused."""

    def refusals(self, asked: Asked, error: SluiceError, /) -> bytes:
        """A line for every row of a chunk that could not be run at all."""


class FileInvalid(SluiceError):
    """A file that cannot be read on; the message names the row."""

    status = 400
    code = "file_invalid"
