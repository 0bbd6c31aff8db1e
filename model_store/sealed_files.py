"""Files that are encrypted at rest, in pieces, so that none of them is ever whole in memory while it is written.

Each file has a key of its own, sealed in its head under the ring's key; changing the ring's key changes heads only. The
pieces are AES-256-GCM under the file's key with a counter for a nonce that says which piece is the last: the STREAM
construction (Hoang, Reyhanitabar, Rogaway, Vizár: "Online Authenticated-Encryption and its Nonce-Reuse
Misuse-Resistance", CRYPTO 2015). No piece can be changed, moved, left out or taken from another file.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from io import BufferedReader
from typing import BinaryIO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from model_store.errors import SealBroken
from model_store.sealed_reading import SealedFile
from model_store.sealing import KEY_BYTES, OVERHEAD_BYTES, SealingKeys

# Not ASCII, so that no text begins with it, and with a format's number at its end.
MARK = b"\x89SLSEAL\x01"
ARTIFACT = b"artifact"
PIECE_BYTES = 256 * 1024
TAG_BYTES = 16
HEAD_BYTES = len(MARK) + OVERHEAD_BYTES + KEY_BYTES


class AtRest:
    """What keeps files and payloads encrypted under a ring of keys."""

    def __init__(self, keys: SealingKeys) -> None:
        self._keys = keys

    def writer(self, file: BinaryIO, context: bytes = ARTIFACT) -> SealedWriter:
        """What writes an artifact's bytes to a file, encrypted; `context` says what else the file is, if not that."""
        # Which artifact it is, the digest of what is inside says: it is not known before the end.
        return SealedWriter(file, self._keys, context)

    def plain(self, file: BinaryIO, context: bytes) -> BinaryIO:
        """A file's plain bytes from anywhere in it, encrypted or not; raises SealBroken, ArtifactCorrupt."""
        if not is_sealed(file):
            return file
        pieces = _Pieces(_file_key(file, self._keys, context))
        return BufferedReader(SealedFile(file, HEAD_BYTES, PIECE_BYTES, TAG_BYTES, pieces.decrypt_at), PIECE_BYTES)

    def plain_artifact(self, file: BinaryIO) -> BinaryIO:
        """The same of an artifact's file."""
        return self.plain(file, ARTIFACT)

    def pieces(self, file: BinaryIO) -> Iterator[bytes]:
        """The plain pieces of an artifact's file, encrypted or not; raises SealBroken."""
        if is_sealed(file):
            return read_sealed(file, self._keys, ARTIFACT)
        return iter(lambda: file.read(PIECE_BYTES), b"")

    def is_newest(self, file: BinaryIO) -> bool:
        """Whether a file is encrypted, and its key sealed under the newest of the ring."""
        return is_sealed(file) and self._keys.is_current(_head(file))

    def seal(self, name: str, data: bytes) -> bytes:
        """A payload's bytes as they are kept under a name."""
        return self._keys.seal(data, b"payload|" + name.encode())

    def unseal(self, name: str, data: bytes) -> bytes:
        """What `seal` was given; raises SealBroken."""
        return self._keys.open(data, b"payload|" + name.encode())


class SealedWriter:
    """Writes what it is given to a file, encrypted; `finish` must be called, or the file cannot be read."""

    def __init__(self, file: BinaryIO, keys: SealingKeys, context: bytes) -> None:
        key = os.urandom(KEY_BYTES)
        self._file = file
        self._pieces = _Pieces(key)
        self._waiting = bytearray()
        file.write(MARK + keys.seal(key, context))

    def write(self, data: bytes) -> None:
        self._waiting += data
        # A full piece is kept back until more comes: the last one is told apart from the others.
        while len(self._waiting) > PIECE_BYTES:
            self._file.write(self._pieces.encrypt(bytes(self._waiting[:PIECE_BYTES]), last=False))
            del self._waiting[:PIECE_BYTES]

    def finish(self) -> None:
        """Writes the last piece; the file stays open."""
        self._file.write(self._pieces.encrypt(bytes(self._waiting), last=True))
        self._waiting.clear()


def is_sealed(file: BinaryIO) -> bool:
    """Whether a file begins as sealed ones do; its position is the beginning again afterwards."""
    file.seek(0)
    begins = file.read(len(MARK)) == MARK
    file.seek(0)
    return begins


def read_sealed(file: BinaryIO, keys: SealingKeys, context: bytes) -> Iterator[bytes]:
    """The plain pieces of a sealed file, each verified before it is given; raises SealBroken."""
    pieces = _Pieces(_file_key(file, keys, context))
    piece = file.read(PIECE_BYTES + TAG_BYTES)
    while True:
        following = file.read(PIECE_BYTES + TAG_BYTES)
        yield pieces.decrypt(piece, last=not following)
        if not following:
            return
        piece = following


class _Pieces:
    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)
        self._number = 0

    def encrypt(self, piece: bytes, *, last: bool) -> bytes:
        return self._cipher.encrypt(self._nonce(last=last), piece, None)

    def decrypt_at(self, number: int, piece: bytes, last: bool) -> bytes:
        """The piece of a number, counted from 0, in any order."""
        self._number = number
        return self.decrypt(piece, last=last)

    def decrypt(self, piece: bytes, *, last: bool) -> bytes:
        try:
            return self._cipher.decrypt(self._nonce(last=last), piece, None)
        except (InvalidTag, ValueError):
            raise SealBroken("a sealed file was changed or cut") from None

    def _nonce(self, *, last: bool) -> bytes:
        self._number += 1
        return self._number.to_bytes(11, "big") + (b"\x01" if last else b"\x00")


def _file_key(file: BinaryIO, keys: SealingKeys, context: bytes) -> bytes:
    return keys.open(_head(file), context)


def _head(file: BinaryIO) -> bytes:
    file.seek(0)
    head = file.read(HEAD_BYTES)
    if head[: len(MARK)] != MARK or len(head) != HEAD_BYTES:
        raise SealBroken("a sealed file has no head")
    return head[len(MARK) :]
