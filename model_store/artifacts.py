"""Bytes by digest in a store that all processes share: written once and atomically, verified when opened.

`blobs/ab/<sha256>` holds models and their variants, `payloads/<name>` inputs and results of jobs that are too large for
SQL, `files/<name>` what clients upload to be read (model_store/files.py), `incoming/` what is still being written: a
file there belongs to nobody after its writer died. The store is a folder, or a bucket (model_store/stores).

With keys, everything that is written from then on is encrypted (model_store/sealed_files.py). Names stay the digests of
what is inside, which is what an opened file is compared with.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeAlias, TypeVar

from model_store.errors import ArtifactCorrupt, ArtifactMissing, SealBroken
from model_store.files import context_of, file_name
from model_store.payloads import SEALED, open_payload, payload_name
from model_store.payloads import context_of as context_of_payload
from model_store.receipts import Receipt, Stored, full_disk
from model_store.stores.folder import FolderStore
from model_store.stores.store import BLOBS, Copy, Store
from monitoring.metrics import STORE_DAMAGED

if TYPE_CHECKING:
    # Only where a store is encrypted: importing the cipher takes memory that every prediction process would pay for.
    from model_store.sealed_files import AtRest
    from model_store.settings import StoreSettings

log = logging.getLogger(__name__)

T = TypeVar("T")
Readable: TypeAlias = Callable[[Copy, str, contextlib.ExitStack], T]
"""What makes of a copy something to read from, having found that it has a digest; raises ArtifactCorrupt."""

PIECE_BYTES = 1024 * 1024
DIGEST = re.compile(r"[0-9a-f]{64}")


class Artifacts:
    """The store in `store`, or in the folder `root`; `limit_bytes` bounds what `receive` takes, not what Sluice adds.

    With `at_rest`, what is written is encrypted; without it, what is encrypted cannot be read. Where the store is a
    bucket, every method but the names' own may raise StoreUnavailable, and `root` is the folder for what is at hand.
    """

    def __init__(self, root: Path, limit_bytes: int, at_rest: AtRest | None = None, store: Store | None = None) -> None:
        self.root = root
        self.limit_bytes = limit_bytes
        self.store = store or FolderStore(root)
        self._at_rest = at_rest

    @classmethod
    def of(cls, settings: StoreSettings) -> Artifacts:
        """The store that the settings name; raises SealingKeysInvalid, and StoreEncrypted without the key of one.

        Of a bucket, the latter is found out when something is first written to it.
        """
        store, at_rest = store_of(settings), None
        if settings.storage_key is not None:
            from model_store.sealed_files import AtRest
            from model_store.sealing import SealingKeys

            at_rest = AtRest(SealingKeys.parse(settings.storage_key.get_secret_value()))
        store.agree(encrypted=at_rest is not None)
        return cls(settings.store_dir, settings.upload_limit_bytes, at_rest, store)

    def receive(self) -> Receipt:
        """An empty file to write an upload into, as a context manager."""
        return self._receipt(self.limit_bytes)

    def receive_file(self, name: str, limit_bytes: int) -> Receipt:
        """An empty file to write what a client uploads into, kept under a name (model_store/files.py)."""
        target = file_name(name)
        return self._receipt(limit_bytes, lambda temporary, _: self.store.keep(temporary, target), context_of(name))

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
        """Where the bytes of `digest` are on this machine, if they are there."""
        return self.store.path(blob_name(digest))

    def exists(self, digest: str) -> bool:
        return self.store.exists(blob_name(digest))

    @contextlib.contextmanager
    def opened(self, digest: str) -> Iterator[Path]:
        """A path, good within the context, of a file whose bytes were just found to have this digest.

        What may be encrypted is decrypted into memory, and the path is that of the memory. A copy at hand that was
        damaged is reported, and fetched again. Raises ArtifactMissing, or ArtifactCorrupt for other bytes in the store
        itself, a symbolic link, or anything but a regular file.
        """
        with contextlib.ExitStack() as held:
            yield self._verified(digest, held, self._readable)

    @contextlib.contextmanager
    def reading(self, digest: str) -> Iterator[BinaryIO]:
        """The bytes of a file that were just found to have this digest, decrypted as they are read: none are held.

        Raises what `opened` does.
        """
        with contextlib.ExitStack() as held:
            yield self._verified(digest, held, self._plain)

    def _verified(self, digest: str, held: contextlib.ExitStack, readable: Readable[T]) -> T:
        damage: ArtifactCorrupt | None = None
        try:
            for copy in self.store.copies(blob_name(digest)):
                with contextlib.ExitStack() as opened:
                    opened.enter_context(copy.file)
                    try:
                        found = readable(copy, digest, opened)
                    except ArtifactCorrupt as error:
                        damage = error
                        STORE_DAMAGED.labels(copy.place).inc()
                        log.error("damaged in the %s: %s", copy.place, error.message)  # noqa: TRY400 - it is no failure of ours
                        continue
                    held.push(opened.pop_all())
                    return found
        except FileNotFoundError:
            raise ArtifactMissing(f"the store has no artifact {digest}") from None
        raise damage or ArtifactMissing(f"the store has no artifact {digest}")

    def _readable(self, copy: Copy, digest: str, opened: contextlib.ExitStack) -> Path:
        if self._at_rest is None:
            _require_digest(copy.file, digest)
            return copy.path
        memory = opened.enter_context(os.fdopen(os.memfd_create("artifact", os.MFD_CLOEXEC), "w+b"))
        _copy(self._at_rest.pieces(copy.file), memory, digest)
        _require_digest(memory, digest)
        return Path(f"/proc/self/fd/{memory.fileno()}")

    def _plain(self, copy: Copy, digest: str, opened: contextlib.ExitStack) -> BinaryIO:
        try:
            file = copy.file if self._at_rest is None else opened.enter_context(self._at_rest.plain_artifact(copy.file))
        except SealBroken as error:
            raise ArtifactCorrupt(f"artifact {digest} cannot be decrypted: {error}") from error
        _require_digest(file, digest)
        file.seek(0)
        return file

    def seal(self, digest: str) -> bool:
        """Writes an artifact again unless it is encrypted under the newest key; returns whether it did.

        Raises what `opened` does, and StoreFull.
        """
        if self._at_rest is None:
            return False
        try:
            with self.store.open(blob_name(digest)) as file:
                if self._at_rest.is_newest(file):
                    return False
        except FileNotFoundError:
            raise ArtifactMissing(f"the store has no artifact {digest}") from None
        with self.opened(digest) as path:
            self.add_file(path)
        return True

    def digests(self) -> Iterator[str]:
        """All digests in the store."""
        return (entry.name for entry in self.store.entries(BLOBS) if DIGEST.fullmatch(entry.name))

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

    def delete(self, digest: str) -> None:
        """Removes the bytes of `digest`; they may be gone already."""
        self.store.delete(blob_name(digest))

    def put_payload(self, name: str, data: bytes) -> None:
        """Keeps a job's input or result under a name, durably; raises StoreFull."""
        target = payload_name(name)
        with full_disk():
            file, temporary = self.store.create()
            try:
                with file:
                    self._write_payload(file, name, data)
                    file.flush()
                    os.fsync(file.fileno())
                self.store.keep(temporary, target)
            finally:
                temporary.unlink(missing_ok=True)

    def get_payload(self, name: str) -> bytes:
        """The bytes kept under a name; raises ArtifactMissing, ArtifactCorrupt."""
        with open_payload(self, name) as file:
            return file.read()

    def delete_payload(self, name: str) -> None:
        """Removes what is kept under a name; it may be gone already, or go a moment later."""
        self.store.delete(payload_name(name))

    def sweep_incoming(self, older_than_seconds: float) -> int:
        """Removes what writers that died left behind; returns how many files."""
        return self.store.sweep_incoming(older_than_seconds)

    def sweep_blobs(self, older_than_seconds: float, in_use: Callable[[str], bool]) -> int:
        """Removes blobs that nothing refers to and that nobody stored within the last `older_than_seconds`.

        An upload's bytes lie here a moment before its row is committed, and a variant's for a whole preparation: the
        age protects both, since storing the same bytes again renews it. Returns how many files were removed.
        """
        removed = 0
        for entry in self.store.entries(BLOBS):
            if entry.age_seconds > older_than_seconds and not in_use(entry.name):
                removed += self.store.remove_if_old(f"{BLOBS}/{entry.name[:2]}/{entry.name}", older_than_seconds)
        return removed

    def _receipt(
        self, limit_bytes: int | None, keep: Callable[[Path, str], None] | None = None, context: bytes | None = None
    ) -> Receipt:
        with full_disk():
            file, temporary = self.store.create()
            sealed = None
            if self._at_rest is not None:
                sealed = self._at_rest.writer(file) if context is None else self._at_rest.writer(file, context)
        return Receipt(file, temporary, limit_bytes, keep or self._keep, sealed)

    def _keep(self, temporary: Path, digest: str) -> None:
        # The same bytes may lie there already: writing over them changes nothing, and heals a file that was damaged.
        self.store.keep(temporary, blob_name(digest))

    def _write_payload(self, file: BinaryIO, name: str, data: bytes) -> None:
        if self._at_rest is None or len(data) <= PIECE_BYTES:
            file.write(self.sealed(name, data))
            return
        # In pieces, so that it can be read in pieces.
        writer = self._at_rest.writer(file, context_of_payload(name))
        writer.write(data)
        writer.finish()

    def payload_path(self, name: str) -> Path:
        """Where the bytes kept under a name are, where the store is a folder."""
        return self.store.path(payload_name(name))


def store_of(settings: StoreSettings) -> Store:
    """The place that the settings name; nothing is asked of it yet."""
    if not settings.store_url:
        return FolderStore(settings.store_dir)
    from model_store.stores.s3 import S3Store

    return S3Store(settings)


def blob_name(digest: str) -> str:
    """What the store calls the bytes of a digest."""
    if not DIGEST.fullmatch(digest):
        raise ValueError(f"not a SHA-256 in hexadecimal: {digest[:80]!r}")
    return f"{BLOBS}/{digest[:2]}/{digest}"


def _require_digest(file: BinaryIO, digest: str) -> None:
    file.seek(0)
    found = hashlib.file_digest(file, "sha256")  # type: ignore[arg-type] # typed for files that can be read into
    if found.hexdigest() != digest:
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
