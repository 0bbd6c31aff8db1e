"""Bytes by digest in a folder that all processes share: written once and atomically, verified when opened.

`blobs/ab/<sha256>` holds models and their variants, `payloads/<name>` inputs and results of jobs that are too large for
SQL, `files/<name>` what clients upload to be read (model_store/files.py), `incoming/` what is still being written: a
file there belongs to nobody after its writer died.

With keys, everything that is written from then on is encrypted (model_store/sealed_files.py). Names stay the digests of
what is inside, which is what an opened file is compared with.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from io import BufferedRandom, BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from model_store.errors import ArtifactCorrupt, ArtifactMissing, SealBroken, StoreEncrypted
from model_store.files import context_of, path_of
from model_store.payloads import SEALED, open_payload
from model_store.payloads import context_of as context_of_payload
from model_store.receipts import Receipt, Stored, full_disk

if TYPE_CHECKING:
    # Only where a store is encrypted: importing the cipher takes memory that every prediction process would pay for.
    from model_store.sealed_files import AtRest
    from model_store.settings import StoreSettings

PIECE_BYTES = 1024 * 1024
# An empty file in the store's folder, once a process with a storage key has used it.
ENCRYPTED = "encrypted"
DIGEST = re.compile(r"[0-9a-f]{64}")
PAYLOAD_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}")


class Artifacts:
    """The store in the folder `root`; `limit_bytes` bounds what `receive` takes, not what Sluice itself adds.

    With `at_rest`, what is written is encrypted; without it, what is encrypted cannot be read.
    """

    def __init__(self, root: Path, limit_bytes: int, at_rest: AtRest | None = None) -> None:
        self.root = root
        self.limit_bytes = limit_bytes
        self._at_rest = at_rest

    @classmethod
    def of(cls, settings: StoreSettings) -> Artifacts:
        """The store that the settings name; raises SealingKeysInvalid, and StoreEncrypted without the key of one."""
        mark = settings.store_dir / ENCRYPTED
        if settings.storage_key is None:
            # One process without the key, of many, would write everything readable from then on.
            if mark.exists():
                raise StoreEncrypted(
                    f"the store {settings.store_dir} is encrypted: it cannot be used without SLUICE_STORAGE_KEY"
                )
            return cls(settings.store_dir, settings.upload_limit_bytes)
        from model_store.sealed_files import AtRest
        from model_store.sealing import SealingKeys

        keys = SealingKeys.parse(settings.storage_key.get_secret_value())
        settings.store_dir.mkdir(mode=0o750, parents=True, exist_ok=True)
        mark.touch(mode=0o640)
        return cls(settings.store_dir, settings.upload_limit_bytes, AtRest(keys))

    def receive(self) -> Receipt:
        """An empty file to write an upload into, as a context manager."""
        return self._receipt(self.limit_bytes)

    def receive_file(self, name: str, limit_bytes: int) -> Receipt:
        """An empty file to write what a client uploads into, kept under a name (model_store/files.py)."""
        target = path_of(self, name)
        return self._receipt(limit_bytes, lambda temporary, _: _move(temporary, target), context_of(name))

    def plain(self, file: BinaryIO, context: bytes) -> BinaryIO:
        """The plain bytes of a file that may be encrypted; raises SealBroken, ArtifactCorrupt."""
        return file if self._at_rest is None else self._at_rest.plain(file, context)

    def add_file(self, path: Path) -> Stored:
        """Copies a file into the store, in pieces; raises ArtifactEmpty, StoreFull."""
        with path.open("rb") as source, self._receipt(None) as receipt:
            while piece := source.read(PIECE_BYTES):
                receipt.write(piece)
            return receipt.commit()

    def path(self, digest: str) -> Path:
        """Where the bytes of `digest` are, if they are there."""
        if not DIGEST.fullmatch(digest):
            raise ValueError(f"not a SHA-256 in hexadecimal: {digest[:80]!r}")
        return self.root / "blobs" / digest[:2] / digest

    def exists(self, digest: str) -> bool:
        return self.path(digest).is_file()

    @contextlib.contextmanager
    def opened(self, digest: str) -> Iterator[Path]:
        """A path, good within the context, of a file whose bytes were just found to have this digest.

        What may be encrypted is decrypted into memory, and the path is that of the memory. Raises ArtifactMissing, or
        ArtifactCorrupt for other bytes, a symbolic link, or anything but a regular file.
        """
        with self._open_regular(digest) as file:
            if self._at_rest is None:
                _require_digest(file, digest)
                yield self.path(digest)
                return
            with os.fdopen(os.memfd_create("artifact", os.MFD_CLOEXEC), "w+b") as memory:
                _copy(self._at_rest.pieces(file), memory, digest)
                _require_digest(memory, digest)
                yield Path(f"/proc/self/fd/{memory.fileno()}")

    def seal(self, digest: str) -> bool:
        """Writes an artifact again unless it is encrypted under the newest key; returns whether it did.

        Raises what `opened` does, and StoreFull.
        """
        if self._at_rest is None:
            return False
        with self._open_regular(digest) as file:
            if self._at_rest.is_newest(file):
                return False
        with self.opened(digest) as path:
            self.add_file(path)
        return True

    def digests(self) -> Iterator[str]:
        """All digests in the store."""
        return (path.name for path in (self.root / "blobs").glob("??/*") if DIGEST.fullmatch(path.name))

    def sealed(self, name: str, data: bytes) -> bytes:
        """A payload's bytes as they are to be kept under this name, in SQL or in a file."""
        return data if self._at_rest is None else self._at_rest.seal(name, data)

    def unsealed(self, name: str, data: bytes) -> bytes:
        """What `sealed` was given; raises ArtifactCorrupt."""
        if data[:1] != SEALED:
            return data
        if self._at_rest is None:
            raise ArtifactCorrupt("a payload is encrypted, and this process has no SLUICE_STORAGE_KEY")
        try:
            return self._at_rest.unseal(name, data)
        except SealBroken as error:
            raise ArtifactCorrupt(f"a payload cannot be decrypted: {error}") from error

    def _open_regular(self, digest: str) -> BufferedReader:
        path = self.path(digest)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            raise ArtifactMissing(f"the store has no artifact {digest}") from None
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise ArtifactCorrupt(f"artifact {digest} is a symbolic link") from error
            raise
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise ArtifactCorrupt(f"artifact {digest} is not a regular file")
        return os.fdopen(descriptor, "rb")

    def delete(self, digest: str) -> None:
        """Removes the bytes of `digest`; they may be gone already."""
        self.path(digest).unlink(missing_ok=True)

    def put_payload(self, name: str, data: bytes) -> None:
        """Keeps a job's input or result under a name, durably; raises StoreFull."""
        target = self.payload_path(name)
        with full_disk():
            file, temporary = self._create()
            try:
                with file:
                    self._write_payload(file, name, data)
                    file.flush()
                    os.fsync(file.fileno())
                _move(temporary, target)
            finally:
                temporary.unlink(missing_ok=True)

    def get_payload(self, name: str) -> bytes:
        """The bytes kept under a name; raises ArtifactMissing, ArtifactCorrupt."""
        with open_payload(self, name) as file:
            return file.read()

    def delete_payload(self, name: str) -> None:
        self.payload_path(name).unlink(missing_ok=True)

    def sweep_incoming(self, older_than_seconds: float) -> int:
        """Removes what writers that died left behind; returns how many files."""
        return _sweep(self.root / "incoming", older_than_seconds)

    def sweep_blobs(self, older_than_seconds: float, in_use: Callable[[str], bool]) -> int:
        """Removes blobs that nothing refers to and that nobody stored within the last `older_than_seconds`.

        An upload's bytes lie here a moment before its row is committed, and a variant's for a whole preparation: the
        age protects both, since storing the same bytes again renews it. Returns how many files were removed.
        """
        removed = 0
        for path in (self.root / "blobs").glob("??/*"):
            if _age_seconds(path) > older_than_seconds and not in_use(path.name):
                removed += self._remove_if_still_old(path, older_than_seconds)
        return removed

    def _remove_if_still_old(self, path: Path, older_than_seconds: float) -> int:
        # Moved away first: what is looked at then is exactly what is removed, also when the same bytes are stored now.
        aside = self.root / "incoming" / secrets.token_hex(16)
        aside.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        try:
            path.rename(aside)
        except FileNotFoundError:
            return 0
        if _age_seconds(aside) <= older_than_seconds:
            aside.rename(path)
            return 0
        aside.unlink()
        return 1

    def _receipt(
        self, limit_bytes: int | None, keep: Callable[[Path, str], None] | None = None, context: bytes | None = None
    ) -> Receipt:
        with full_disk():
            file, temporary = self._create()
            sealed = None
            if self._at_rest is not None:
                sealed = self._at_rest.writer(file) if context is None else self._at_rest.writer(file, context)
        return Receipt(file, temporary, limit_bytes, keep or self._keep, sealed)

    def _create(self) -> tuple[BinaryIO, Path]:
        temporary = self.root / "incoming" / secrets.token_hex(16)
        temporary.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        return os.fdopen(descriptor, "wb"), temporary

    def _keep(self, temporary: Path, digest: str) -> None:
        # The same bytes may lie there already: writing over them changes nothing, and heals a file that was damaged.
        _move(temporary, self.path(digest))

    def _write_payload(self, file: BinaryIO, name: str, data: bytes) -> None:
        if self._at_rest is None or len(data) <= PIECE_BYTES:
            file.write(self.sealed(name, data))
            return
        # In pieces, so that it can be read in pieces.
        writer = self._at_rest.writer(file, context_of_payload(name))
        writer.write(data)
        writer.finish()

    def payload_path(self, name: str) -> Path:
        """Where the bytes kept under a name are, if they are there."""
        if not PAYLOAD_NAME.fullmatch(name):
            raise ValueError(f"not a payload's name: {name[:80]!r}")
        return self.root / "payloads" / name


def _require_digest(file: BufferedReader | BufferedRandom, digest: str) -> None:
    file.seek(0)
    if hashlib.file_digest(file, "sha256").hexdigest() != digest:
        raise ArtifactCorrupt(
            f"artifact {digest} does not have the bytes that were stored, or is encrypted and this process has not "
            "the SLUICE_STORAGE_KEY"
        )


def _copy(pieces: Iterator[bytes], memory: BinaryIO, digest: str) -> None:
    try:
        for piece in pieces:
            memory.write(piece)
    except SealBroken as error:
        raise ArtifactCorrupt(f"artifact {digest} cannot be decrypted: {error}") from error
    memory.flush()


def _move(temporary: Path, target: Path) -> None:
    target.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
    temporary.replace(target)
    # The name is as much a promise as the bytes: without this, a power cut may forget it.
    descriptor = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sweep(folder: Path, older_than_seconds: float) -> int:
    removed = 0
    for path in folder.glob("*"):
        if _age_seconds(path) > older_than_seconds:
            path.unlink(missing_ok=True)
            removed += 1
    return removed


def _age_seconds(path: Path) -> float:
    """Seconds since the file was written; 0 for one that is gone, so that nobody acts on it."""
    try:
        return time.time() - path.lstat().st_mtime
    except FileNotFoundError:
        return 0.0
