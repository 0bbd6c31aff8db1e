"""Reading a sealed file from anywhere in it: zip archives and tables are read from their end, spans from the middle."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, BinaryIO

from model_store.errors import ArtifactCorrupt, SealBroken

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Buffer

PIECES_BUFFERED = 1


class SealedFile(io.RawIOBase):
    """The plain bytes of a sealed file; each piece is verified as it is read, and one is remembered.

    That the file was not cut is known from its last piece, which says so: it is read first.
    """

    def __init__(
        self,
        file: BinaryIO,
        head_bytes: int,
        piece_bytes: int,
        tag_bytes: int,
        decrypt: Callable[[int, bytes, bool], bytes],
    ) -> None:
        super().__init__()
        self._file = file
        self._head_bytes = head_bytes
        self._piece_bytes = piece_bytes
        self._stored_bytes = piece_bytes + tag_bytes
        self._decrypt = decrypt
        # Not asked of the file's descriptor: an object of a bucket has none.
        sealed_bytes = file.seek(0, io.SEEK_END) - head_bytes
        self._pieces = max(1, -(-sealed_bytes // self._stored_bytes))
        self._position = 0
        self._known: tuple[int, bytes] = (-1, b"")
        self._size = (self._pieces - 1) * piece_bytes + len(self._piece(self._pieces - 1))

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
        number, start = divmod(self._position, self._piece_bytes)
        piece = self._piece(number)[start : start + len(target)]
        target[: len(piece)] = piece
        self._position += len(piece)
        return len(piece)

    def close(self) -> None:
        self._file.close()
        super().close()

    def _piece(self, number: int) -> bytes:
        if self._known[0] != number:
            self._file.seek(self._head_bytes + number * self._stored_bytes)
            stored = self._file.read(self._stored_bytes)
            try:
                self._known = (number, self._decrypt(number, stored, number == self._pieces - 1))
            except SealBroken as error:
                raise ArtifactCorrupt(f"a file cannot be decrypted: {error}") from error
        return self._known[1]
