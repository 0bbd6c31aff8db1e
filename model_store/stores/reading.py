"""Objects of a bucket read as files: any place of one, or many one after the other."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING

from model_store.block_file import BlockFile
from model_store.errors import ArtifactCorrupt

if TYPE_CHECKING:
    from typing_extensions import Buffer

# A row group of a table, or the end of an archive, in one request or two.
BLOCK_BYTES = 4 * 1024**2


class RangedObject(BlockFile):
    """An object's bytes from anywhere in it, fetched in blocks; raises what `read` does.

    And ArtifactCorrupt where there is less than `size_bytes`.
    """

    def __init__(self, size_bytes: int, read: Callable[[int, int], bytes]) -> None:
        super().__init__(BLOCK_BYTES)
        self._size = size_bytes
        self._read = read

    def _read_block(self, number: int) -> bytes:
        begin = number * BLOCK_BYTES
        end = min(begin + BLOCK_BYTES, self._size)
        block = self._read(begin, end)
        if len(block) < end - begin:
            # Without this, it would be taken for the object's end.
            raise ArtifactCorrupt(f"an object of the store has fewer than the {self._size:,} bytes that it is said to")
        return block


class ObjectSeries(io.RawIOBase):
    """Objects one after the other, `fetch` giving the one of a number; raises what it does."""

    def __init__(self, objects: int, fetch: Callable[[int], bytes]) -> None:
        super().__init__()
        self._objects = objects
        self._fetch = fetch
        self._next = 0
        self._left = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer, /) -> int:
        target = memoryview(buffer).cast("B")
        while not self._left and self._next < self._objects:
            self._left = memoryview(self._fetch(self._next))
            self._next += 1
        taken = self._left[: len(target)]
        target[: len(taken)] = taken
        self._left = self._left[len(taken) :]
        return len(taken)
