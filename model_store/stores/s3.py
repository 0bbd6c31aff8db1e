"""A bucket as the store: objects are written as wholes, artifacts are read through a cache on this machine's disk.

S3 neither appends nor renames. A series is an object for each segment, `files/<name>/<number>`; and what the sweep
finds old it asks for once more right before it removes it. Between these two calls somebody could store the same bytes
again: bytes to which nothing referred for a day, in the milliseconds of one round trip.
"""

from __future__ import annotations

import io
import itertools
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from model_store.errors import StoreEncrypted, StoreFull, StoreUnavailable
from model_store.receipts import full_disk
from model_store.stores.bucket import PAGE_KEYS, Bucket, Object
from model_store.stores.cache import Cache
from model_store.stores.folder import ENCRYPTED
from model_store.stores.reading import BLOCK_BYTES, ObjectSeries, RangedObject
from model_store.stores.removals import Removals
from model_store.stores.store import BLOBS, FILES, Appender, Copy, Entry, Store
from monitoring.metrics import STORE_FETCHES

if TYPE_CHECKING:
    from model_store.settings import StoreSettings

log = logging.getLogger(__name__)

# The second one tells bytes that are damaged in the bucket from some that were on their way here.
FETCHES = 2


class S3Store(Store):
    """The bucket that the settings name; `store_dir` is the local folder."""

    def __init__(self, settings: StoreSettings) -> None:
        super().__init__(settings.store_dir)
        self._bucket = Bucket(settings)
        self._cache = Cache(settings.store_dir / "cache", settings.store_cache_bytes)
        self._removals = Removals(self._remove)
        self._encrypted: bool | None = None
        self._agreed = False

    def agree(self, *, encrypted: bool) -> None:
        # Asked of the bucket before the first write: a gateway also starts while the bucket is away.
        self._encrypted = encrypted

    def keep(self, temporary: Path, name: str) -> None:
        self._require_agreement()
        self._bucket.put_file(temporary, name)
        if name.startswith(BLOBS):
            # Whoever needs it next is often on the same machine.
            self._cache.take(temporary, _last(name))
        else:
            temporary.unlink()

    def open(self, name: str) -> BinaryIO:
        found = self._bucket.head(name)
        ranged = RangedObject(found.size_bytes, lambda start, end: self._bucket.read(name, start, end))
        return io.BufferedReader(ranged, min(BLOCK_BYTES, max(found.size_bytes, io.DEFAULT_BUFFER_SIZE)))

    def copies(self, name: str) -> Iterator[Copy]:
        digest = _last(name)
        cached = self._cache.open(digest)
        STORE_FETCHES.labels("miss" if cached is None else "hit").inc()
        if cached is not None:
            yield _copy("cache", cached)
        for _ in range(FETCHES):
            self._cache.forget(digest)
            yield _copy("store", self._fetched(name))
        self._cache.forget(digest)

    def path(self, name: str) -> Path:
        return self._cache.path(_last(name))

    def exists(self, name: str) -> bool:
        try:
            self._bucket.head(name)
        except FileNotFoundError:
            return False
        return True

    def delete(self, name: str) -> None:
        if name.startswith(BLOBS):
            self._bucket.delete([name])
            self._cache.forget(_last(name))
        else:
            self._removals.add(name)

    def entries(self, folder: str) -> Iterator[Entry]:
        if folder == BLOBS:
            for found in self._bucket.objects(f"{folder}/"):
                yield Entry(_last(found.key), found.age_seconds)
            return
        # The segments of a series follow each other, and the youngest says when it was written to.
        for name, group in itertools.groupby(self._bucket.objects(f"{folder}/"), key=_second):
            yield Entry(name, min(found.age_seconds for found in group))

    def remove_if_old(self, name: str, older_than_seconds: float) -> int:
        try:
            if self._bucket.head(name).age_seconds <= older_than_seconds:
                return 0
        except FileNotFoundError:
            return 0
        self._bucket.delete([name])
        self._cache.forget(_last(name))
        return 1

    def sweep_incoming(self, older_than_seconds: float) -> int:
        removed = super().sweep_incoming(older_than_seconds)
        try:
            return removed + self._bucket.abort_uploads(older_than_seconds)
        except StoreUnavailable as error:
            # Not every server knows uploads in parts, nor may everybody list them: the rest is swept all the same.
            log.info("uploads in parts that nobody ended are left in the bucket: %s", error)
            return removed

    def appender(self, name: str) -> Appender:
        self._require_agreement()
        if next(self._bucket.objects(f"{name}/"), None) is not None:
            raise FileExistsError(f"{name} has begun already")
        return _ObjectAppender(self._bucket, name)

    def open_series(self, name: str, segments: int) -> BinaryIO:
        def fetch(number: int) -> bytes:
            key = segment_key(name, number)
            return self._bucket.read(key, 0, self._bucket.head(key).size_bytes)

        return io.BufferedReader(ObjectSeries(segments, fetch))

    def segments(self, name: str) -> int:
        return sum(1 for _ in self._bucket.objects(f"{name}/"))

    def settle(self) -> None:
        self._removals.finish()

    def _remove(self, names: Sequence[str]) -> None:
        keys = list(names)
        for name in names:
            if name.startswith(FILES):
                keys += [found.key for found in self._bucket.objects(f"{name}/")]
        for start in range(0, len(keys), PAGE_KEYS):
            self._bucket.delete(keys[start : start + PAGE_KEYS])

    def _require_agreement(self) -> None:
        if self._agreed or self._encrypted is None:
            return
        if self._encrypted:
            self._bucket.put(ENCRYPTED, b"by processes with a storage key\n")
        elif self.exists(ENCRYPTED):
            raise StoreEncrypted(
                f"the store {self._bucket.url} is encrypted: it cannot be used without SLUICE_STORAGE_KEY"
            )
        self._agreed = True

    def _fetched(self, name: str) -> BinaryIO:
        file, temporary = self.create()
        file.close()
        try:
            try:
                self._download(name, temporary)
            except StoreFull:
                self._cache.clear()
                self._download(name, temporary)
            opened = temporary.open("rb")
            self._cache.take(temporary, _last(name))
            return opened
        finally:
            temporary.unlink(missing_ok=True)

    def _download(self, name: str, temporary: Path) -> None:
        with full_disk():
            self._bucket.get_file(name, temporary)


class _ObjectAppender(Appender):
    def __init__(self, bucket: Bucket, name: str) -> None:
        self._bucket = bucket
        self._name = name

    def write(self, number: int, offset_bytes: int, segment: bytes) -> None:  # noqa: ARG002 - an object knows no place
        self._bucket.put(segment_key(self._name, number), segment)

    def close(self) -> None:
        """Each segment was written by itself."""


def segment_key(name: str, number: int) -> str:
    """Where the segment of a number lies; keys have the order of numbers."""
    return f"{name}/{number:010}"


def _copy(place: str, file: BinaryIO) -> Copy:
    # Not its name, which another process may take away to make room.
    return Copy(place, file, Path(f"/proc/self/fd/{file.fileno()}"))


def _last(name: str) -> str:
    return name.rpartition("/")[2]


def _second(found: Object) -> str:
    return found.key.split("/")[1]
