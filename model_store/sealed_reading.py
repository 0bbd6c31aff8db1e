"""Reading a sealed file from anywhere in it: zip archives and tables are read from their end, spans from the middle."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, BinaryIO

from model_store.block_file import BlockFile
from model_store.errors import ArtifactCorrupt, SealBroken

if TYPE_CHECKING:
    from collections.abc import Callable


class SealedFile(BlockFile):
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
        super().__init__(piece_bytes)
        self._file = file
        self._head_bytes = head_bytes
        self._stored_bytes = piece_bytes + tag_bytes
        self._decrypt = decrypt
        # Not asked of the file's descriptor: an object of a bucket has none.
        sealed_bytes = file.seek(0, io.SEEK_END) - head_bytes
        self._pieces = max(1, -(-sealed_bytes // self._stored_bytes))
        self._size = (self._pieces - 1) * piece_bytes + len(self._block(self._pieces - 1))

    def close(self) -> None:
        self._file.close()
        super().close()

    def _read_block(self, number: int) -> bytes:
        self._file.seek(self._head_bytes + number * self._stored_bytes)
        stored = self._file.read(self._stored_bytes)
        try:
            return self._decrypt(number, stored, number == self._pieces - 1)
        except SealBroken as error:
            raise ArtifactCorrupt(f"a file cannot be decrypted: {error}") from error
