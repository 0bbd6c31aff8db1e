"""Files whose rows are lines: where to cut them, in one pass that holds a block at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import BinaryIO

import numpy as np

from workers.files.contract import Chunk, ChunkSize, FileInvalid, Members, Span

BLOCK_BYTES = 1024 * 1024
LINE_FEED, QUOTE = 10, 34
OFFSET, ROW = "offset", "row"


def cut_lines(
    file: BinaryIO, size: ChunkSize, checkpoint: Members | None, terms: Members, *, quoted: bool = False
) -> Iterator[Chunk]:
    """Chunks of whole lines; every line is a row, and a last one without its line feed too.

    With `quoted`, a line feed between quotation marks ends no row (RFC 4180, section 2). A row that is too long comes
    alone, without its bytes; `terms` say so (`too_long`). Raises FileInvalid where a quotation mark never ends.
    """
    offset, row = position(checkpoint)
    while True:
        file.seek(offset)
        block = file.read(size.size_bytes)
        if not block:
            return
        ends = line_ends(block, quoted=quoted)[: size.rows]
        told = terms
        if len(ends):
            rows, length = len(ends), int(ends[-1]) + 1
        elif len(block) < size.size_bytes:
            rows, length = 1, len(block)
            if quoted:
                require_even(block.count(b'"'), row)
        else:
            rows, length = 1, rest_of_line(file, block, size, row, quoted=quoted)
            told = terms if length <= size.row_bytes else {**terms, "too_long": length}
        data: Span | bytes = Span(offset, length) if told is terms else b""
        offset += length
        yield Chunk(row, rows, data, {OFFSET: offset, ROW: row + rows}, told)
        row += rows


def count_lines(file: BinaryIO, beat: Callable[[], None], *, quoted: bool = False) -> int:
    """How many rows a file of lines has; calls `beat` for every block."""
    file.seek(0)
    count, inside, last = 0, 0, b"\n"
    while block := file.read(BLOCK_BYTES):
        beat()
        last = block[-1:]
        if quoted and (inside or b'"' in block):
            values = np.frombuffer(block, np.uint8)
            outside = (np.cumsum(values == QUOTE) + inside) % 2 == 0
            count += int(np.count_nonzero((values == LINE_FEED) & outside))
            inside = (inside + block.count(b'"')) % 2
        else:
            count += block.count(b"\n")
    require_even(inside, count)
    return count + (last != b"\n")


def position(checkpoint: Members | None) -> tuple[int, int]:
    """Where the next row begins, in bytes, and its number."""
    if checkpoint is None:
        return 0, 0
    offset, row = checkpoint[OFFSET], checkpoint[ROW]
    if not isinstance(offset, int) or not isinstance(row, int):
        raise FileInvalid("the place where the file was read to is lost")
    return offset, row


def line_ends(block: bytes, *, quoted: bool) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
    """Where the line feeds are that end a row."""
    values = np.frombuffer(block, np.uint8)
    ends = values == LINE_FEED
    if quoted and b'"' in block:
        ends &= np.cumsum(values == QUOTE) % 2 == 0
    return np.flatnonzero(ends)


def rest_of_line(file: BinaryIO, block: bytes, size: ChunkSize, row: int, *, quoted: bool) -> int:
    """The length of the line that `block` begins and does not end, its line feed included."""
    length, marks = len(block), block.count(b'"') if quoted else 0
    while more := file.read(BLOCK_BYTES):
        values = np.frombuffer(more, np.uint8)
        ends = values == LINE_FEED
        if quoted:
            ends &= (np.cumsum(values == QUOTE) + marks) % 2 == 0
        found = np.flatnonzero(ends)
        if len(found):
            return length + int(found[0]) + 1
        length += len(more)
        marks += more.count(b'"') if quoted else 0
        if length > size.row_bytes:
            require_even(marks, row)
    require_even(marks, row)
    return length


def require_even(marks: int, row: int) -> None:
    """Raises FileInvalid: a mark too many makes one row of all that follows, and to skip it would lose them."""
    if marks % 2:
        raise FileInvalid(f"row {row} has a quotation mark that does not end")
