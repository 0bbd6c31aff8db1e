"""NumPy archives (`.npz`): one array for each input, whose first axis counts the rows; compressed or not."""

from __future__ import annotations

import contextlib
import io
import math
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import IO, BinaryIO

import numpy as np

from model_store.errors import SluiceError
from model_store.signature import STRING, Tensor, Tensors, TensorSpec
from workers.files import row_lines
from workers.files.contract import Asked, Chunk, ChunkSize, FileInvalid, Members, Piece
from workers.files.lines import ROW
from workers.files.npy import HIGHEST_COUNT, Head, read_head
from workers.files.row_lines import UniformRows
from workers.protocols.contract import Contract

SUFFIX = ".npy"
MOST_MEMBERS = 1000
# `zipfile` reads a directory at once and makes an object of each member: one of gigabytes would take all memory.
DIRECTORY_BYTES = 1024 * 1024
# Of other methods `zipfile` unpacks all that it reads at once: megabytes of bzip2 may be gigabytes.
STORED_OR_DEFLATED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
HIGHEST_CHARACTER = 0x10FFFF
# Halves of characters in UTF-16, which UTF-8 has no bytes for.
SURROGATES, SURROGATE_BITS = np.uint32(0xD800), np.uint32(0x7FF)
UNREADABLE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError)


class NumpyArchive:
    """The format `npz`."""

    def chunks(
        self, file: BinaryIO, contract: Contract, size: ChunkSize, checkpoint: Members | None
    ) -> Iterator[Chunk]:
        with contextlib.ExitStack() as stack, readable():
            arrays = opened(stack, file, contract)
            total = rows_of(arrays)
            row_bytes = sum(head.row_bytes for _, head, _ in arrays)
            if row_bytes > size.row_bytes:
                raise FileInvalid(f"a row has {row_bytes} bytes, but a row may have {size.row_bytes}")
            row = first_of(checkpoint)
            for _, head, stream in arrays:
                # What is compressed is read on to there, a piece at a time.
                stream.seek(row * head.row_bytes, io.SEEK_CUR)
            terms: Members = {"arrays": [[spec.name, head.dtype.str, list(head.shape[1:])] for spec, head, _ in arrays]}
            at_once = max(1, min(size.rows, size.size_bytes // max(row_bytes, 1)))
            while row < total:
                rows = min(at_once, total - row)
                data = b"".join(bytes_of_rows(stream, head, rows, row) for _, head, stream in arrays)
                yield Chunk(row, rows, data, {ROW: row + rows}, terms)
                row += rows

    def total(self, file: BinaryIO, contract: Contract, _beat: Callable[[], None]) -> int | None:
        with contextlib.ExitStack() as stack, readable():
            return rows_of(opened(stack, file, contract))

    def pieces(self, asked: Asked, contract: Contract) -> list[Piece]:
        tensors: Tensors = {}
        offset = 0
        specs = {spec.name: spec for spec in contract.signature.inputs}
        for name, dtype, shape in asked.terms["arrays"]:  # type: ignore[union-attr,misc] # as `chunks` wrote it
            found = np.dtype(str(dtype))
            count = asked.rows * math.prod(shape)  # type: ignore[arg-type] # as above
            values = np.frombuffer(asked.data, found, count, offset).reshape(asked.rows, *shape)  # type: ignore[misc] # as above
            tensors[str(name)] = as_input(values, specs[str(name)])
            offset += values.nbytes
        return [UniformRows(asked.first_row, tensors, asked.rows)]

    def refusals(self, asked: Asked, error: SluiceError) -> bytes:
        return row_lines.refusals(asked, error)


Opened = tuple[TensorSpec, Head, IO[bytes]]


class BoundedReads:
    """A file of which no more than `most` bytes are read at once, until `most` is None; raises FileInvalid.

    Also where it is to be read from where no file can have bytes: of that, systems say no more than that it failed.
    """

    def __init__(self, file: BinaryIO, most: int) -> None:
        self._file = file
        self.most: int | None = most

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._file.tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        if whence == io.SEEK_SET and not 0 <= offset < HIGHEST_COUNT:
            raise FileInvalid("the archive's directory points out of the file")
        return self._file.seek(offset, whence)

    def read(self, size: int = -1, /) -> bytes:
        if self.most is None:
            return self._file.read(size)
        data = self._file.read(self.most + 1 if size < 0 else min(size, self.most + 1))
        if len(data) > self.most:
            raise FileInvalid(f"the archive's directory has more than {self.most} bytes")
        return data


def opened(stack: contextlib.ExitStack, file: BinaryIO, contract: Contract) -> list[Opened]:
    """The array of each input, open behind its head; raises FileInvalid where one does not fit the signature."""
    reads = BoundedReads(file, DIRECTORY_BYTES)
    try:
        archive = stack.enter_context(zipfile.ZipFile(reads))
    except zipfile.BadZipFile as error:
        raise FileInvalid(
            "the archive cannot be read: it is no .npz, or was cut off; make it with numpy.savez"
        ) from error
    reads.most = None
    names = archive.namelist()
    if len(names) > MOST_MEMBERS:
        raise FileInvalid(f"the archive has more than {MOST_MEMBERS} members")
    arrays: list[Opened] = []
    for spec, name in zip(contract.signature.inputs, member_names(names, contract), strict=True):
        if archive.getinfo(name).compress_type not in STORED_OR_DEFLATED:
            raise FileInvalid(f"{name!r} is neither stored nor deflated")
        stream = stack.enter_context(archive.open(name))
        head = read_head(stream, name)
        require_fit(spec, head, name)
        arrays.append((spec, head, stream))
    return arrays


def member_names(names: list[str], contract: Contract) -> list[str]:
    """The archive's member for each input; the only one, whatever its name, where there is one of both."""
    specs = contract.signature.inputs
    if len(specs) == len(names) == 1:
        return names
    missing = [spec.name for spec in specs if spec.name + SUFFIX not in names]
    if missing or len(names) != len(specs):
        expected = ", ".join(spec.name for spec in specs)
        present = ", ".join(repr(name.removesuffix(SUFFIX)) for name in names) or "none"
        raise FileInvalid(
            f"the archive must have an array for each input, and no other: {expected[:200]}; it has {present[:200]}"
        )
    return [spec.name + SUFFIX for spec in specs]


def require_fit(spec: TensorSpec, head: Head, name: str) -> None:
    if not spec.batched:
        raise FileInvalid("this version takes one instance at a time; send JSON Lines")
    wanted, found = spec.shape[1:], head.shape[1:]
    if len(head.shape) != len(spec.shape) or any(
        size != want for size, want in zip(found, wanted, strict=True) if want is not None
    ):
        shown = ",".join("-1" if size is None else str(size) for size in spec.shape)
        raise FileInvalid(f"{name!r} has shape {list(head.shape)}, but the input takes [{shown}]")
    if 0 in found and head.shape[0]:
        # Some bytes of a file could else announce billions of rows, each of them work.
        raise FileInvalid(f"{name!r} has shape {list(head.shape)}: its rows hold no values")
    if spec.dtype == STRING:
        fits = head.dtype.kind in "SU"
    else:
        # As numbers in JSON: whole ones may become fractions, never the other way round.
        fits = head.dtype.kind in "biuf" and np.can_cast(head.dtype, spec.numpy_dtype(), "same_kind")
    if not fits:
        raise FileInvalid(f"{name!r} has dtype {head.dtype}, but the input takes {spec.dtype}")


def as_input(values: Tensor, spec: TensorSpec) -> Tensor:
    """Values in the dtype of the signature; too large a float is infinity, as it is in JSON."""
    if spec.dtype == STRING:
        found = np.empty(values.shape, object)
        texts = values.reshape(-1).tolist()
        found.reshape(-1)[:] = [text.encode() if isinstance(text, str) else text for text in texts]
        return found
    with np.errstate(over="ignore"):
        return values.astype(spec.numpy_dtype(), copy=False)


def rows_of(arrays: list[Opened]) -> int:
    """The length that all arrays have in common."""
    lengths = {head.shape[0] for _, head, _ in arrays}
    if len(lengths) != 1:
        raise FileInvalid(f"the arrays have different numbers of rows: {', '.join(map(str, sorted(lengths)))[:200]}")
    return lengths.pop()


def first_of(checkpoint: Members | None) -> int:
    row = 0 if checkpoint is None else checkpoint[ROW]
    if not isinstance(row, int):
        raise FileInvalid("the place where the file was read to is lost")
    return row


def bytes_of_rows(stream: IO[bytes], head: Head, rows: int, row: int) -> bytes:
    """The bytes of the next rows, of which `row` is the first."""
    length = rows * head.row_bytes
    data = stream.read(length)
    if len(data) != length:
        raise FileInvalid(f"the archive ends within the rows from {row} on")
    if head.dtype.kind == "U":
        # Numbers of characters as they lie in the file: of one that there is not, numpy fails to make a text.
        numbers = np.frombuffer(data, np.dtype("u4").newbyteorder(head.dtype.byteorder))
        if ((numbers > HIGHEST_CHARACTER) | (numbers & ~SURROGATE_BITS == SURROGATES)).any():
            raise FileInvalid(f"one of the rows from {row} on holds a text with characters that there are not")
    return data


@contextlib.contextmanager
def readable() -> Iterator[None]:
    """Makes what `zipfile` raises of a broken archive a FileInvalid."""
    try:
        yield
    except UNREADABLE as error:
        raise FileInvalid(f"the archive cannot be read: {type(error).__name__}") from error
