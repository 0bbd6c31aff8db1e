"""Files read from any place, block by block, such as sealed ones and objects of a bucket."""

from __future__ import annotations

import io
from abc import abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Buffer


class BlockFile(io.RawIOBase):
    """Plain bytes of which one block is remembered; who derives from it sets `_size`, in bytes, and reads blocks."""

    def __init__(self, block_bytes: int) -> None:
        super().__init__()
        self._block_bytes = block_bytes
        self._size = 0
        self._position = 0
        self._known: tuple[int, bytes] = (-1, b"")

    @abstractmethod
    def _read_block(self, number: int) -> bytes:
        """The block of a number, counted from 0; only the last one may be shorter."""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def readinto(self, buffer: Buffer, /) -> int:
        target = memoryview(buffer).cast("B")
        if self._position >= self._size:
            return 0
        number, start = divmod(self._position, self._block_bytes)
        piece = self._block(number)[start : start + len(target)]
        target[: len(piece)] = piece
        self._position += len(piece)
        return len(piece)

    def _block(self, number: int) -> bytes:
        if self._known[0] != number:
            self._known = (number, self._read_block(number))
        return self._known[1]
