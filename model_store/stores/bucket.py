"""Calls to a bucket that speaks S3: each has a deadline, and none waits for a server that is known to be away.

Spoken with s3fs, whose calls run on a thread of their own in each process. Nothing of it is imported, and no thread
begun, before the first call: a process that was forked makes its own, and one that needs no store pays nothing.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import os
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from model_store.errors import StoreFull, StoreUnavailable
from model_store.receipts import FULL
from monitoring.metrics import STORE_CALLS

if TYPE_CHECKING:
    from s3fs import S3FileSystem

    from model_store.settings import StoreSettings

log = logging.getLogger(__name__)

T = TypeVar("T")

CONNECT_SECONDS = 5.0
# Beside the time for a call: even a poor connection moves a file at this pace.
LEAST_BYTES_PER_SECOND = 1024**2
# After a call to which nobody answered, others are refused at once: threads must not gather behind it.
REST_SECONDS = 5.0
PAGE_KEYS = 1000
FULL_CODES = frozenset({"InsufficientStorage", "QuotaExceeded", "StorageFull", "XMinioStorageFull"})
# MinIO's and others' word for a disk that is full, in RFC 4918, section 11.5.
INSUFFICIENT_STORAGE = 507
NOT_IMPLEMENTED = 501


@dataclass(frozen=True, slots=True)
class Object:
    """What a bucket says of one of its objects; the key is without the prefix."""

    key: str
    size_bytes: int
    age_seconds: float


class Bucket:
    """The objects of a bucket whose keys begin with a prefix.

    Every method raises StoreUnavailable where the server does not answer in time, or refuses; StoreFull where it says
    that it is full; FileNotFoundError where an object is not there.
    """

    def __init__(self, settings: StoreSettings) -> None:
        self.url = settings.store_url
        self._name, _, prefix = settings.store_url.removeprefix("s3://").partition("/")
        self._prefix = prefix.strip("/") + "/" if prefix.strip("/") else ""
        self._settings = settings
        self._made: tuple[int, S3FileSystem] | None = None
        self._rests_until = 0.0

    def put_file(self, path: Path, key: str) -> None:
        """Writes an object from a file; it is there as a whole or not at all."""
        seconds = self._seconds(path.stat().st_size)
        self._wait("put", lambda fs: fs._put_file(str(path), self._full(key)), seconds)

    def put(self, key: str, data: bytes) -> None:
        """Writes a small object."""
        self._call("put", "put_object", self._seconds(len(data)), Key=self._prefix + key, Body=data)

    def get_file(self, key: str, path: Path) -> None:
        """Writes an object's bytes to a file."""
        size = self.head(key).size_bytes
        self._wait("get", lambda fs: fs._get_file(self._full(key), str(path)), self._seconds(size))

    def read(self, key: str, start: int, end: int) -> bytes:
        """An object's bytes from one place up to another; what lies beyond its end is not there."""
        if end <= start:
            return b""  # a range of nothing is none that S3 knows
        seconds = self._seconds(end - start)
        found: bytes = self._wait("get", lambda fs: fs._cat_file(self._full(key), start=start, end=end), seconds)
        return found

    def head(self, key: str) -> Object:
        """What the bucket says of an object."""
        answer = self._call("head", "head_object", self._settings.store_seconds, Key=self._prefix + key)
        return Object(key, int(answer["ContentLength"]), _age(answer["LastModified"]))

    def objects(self, prefix: str) -> Iterator[Object]:
        """All objects whose keys begin so, in the order of their keys; asked for page by page."""
        more: dict[str, str] = {}
        while True:
            answer = self._call(
                "list",
                "list_objects_v2",
                self._settings.store_seconds,
                Prefix=self._prefix + prefix,
                MaxKeys=PAGE_KEYS,
                **more,
            )
            for found in answer.get("Contents", []):
                yield Object(found["Key"][len(self._prefix) :], int(found["Size"]), _age(found["LastModified"]))
            if not answer.get("IsTruncated"):
                return
            more = {"ContinuationToken": answer["NextContinuationToken"]}

    def delete(self, keys: Sequence[str]) -> None:
        """Removes up to PAGE_KEYS objects; some may be gone already."""
        listed = {"Objects": [{"Key": self._prefix + key} for key in keys], "Quiet": True}
        answer = self._call("delete", "delete_objects", self._settings.store_seconds, Delete=listed)
        if errors := answer.get("Errors"):
            raise StoreUnavailable(f"the store does not delete: {errors[0].get('Code', 'no reason given')}")

    def abort_uploads(self, older_than_seconds: float) -> int:
        """Ends uploads in parts that nobody ends any more, a page of them; returns how many."""
        seconds = self._settings.store_seconds
        answer = self._call("list", "list_multipart_uploads", seconds, Prefix=self._prefix, MaxUploads=PAGE_KEYS)
        old = [found for found in answer.get("Uploads", []) if _age(found["Initiated"]) > older_than_seconds]
        for found in old:
            self._call("delete", "abort_multipart_upload", seconds, Key=found["Key"], UploadId=found["UploadId"])
        return len(old)

    def _full(self, key: str) -> str:
        return f"{self._name}/{self._prefix}{key}"

    def _seconds(self, size_bytes: int) -> float:
        return self._settings.store_seconds + size_bytes / LEAST_BYTES_PER_SECOND

    def _call(self, operation: str, method: str, seconds: float, **arguments: object) -> Any:  # noqa: ANN401 - botocore's own
        return self._wait(operation, lambda fs: fs._call_s3(method, Bucket=self._name, **arguments), seconds)

    def _wait(self, operation: str, begin: Callable[[S3FileSystem], Awaitable[T]], seconds: float) -> T:
        if time.monotonic() < self._rests_until:
            STORE_CALLS.labels(operation, "refused").inc()
            raise _away()
        fs = self._filesystem()
        future = asyncio.run_coroutine_threadsafe(_within(begin, fs, seconds), fs.loop)
        try:
            # The call ends itself in time; a thread that died would not.
            answer = future.result(seconds + CONNECT_SECONDS)
        except Exception as error:  # another library's edge: it raises what four libraries below it do
            outcome, raised = self._understood(error)
            STORE_CALLS.labels(operation, outcome).inc()
            raise raised from error
        STORE_CALLS.labels(operation, "ok").inc()
        return answer

    def _understood(self, error: Exception) -> tuple[str, Exception]:
        """What a failed call counts as, and what it is to callers."""
        if isinstance(error, FileNotFoundError) and "bucket" not in str(error).lower():
            return "missing", FileNotFoundError(str(error))
        response: dict[str, Any] = getattr(error.__cause__, "response", None) or getattr(error, "response", None) or {}
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        code = str(response.get("Error", {}).get("Code", ""))
        if status == INSUFFICIENT_STORAGE or code in FULL_CODES:
            return "full", StoreFull("the store is full; nothing was kept")
        if isinstance(error, OSError) and error.errno in FULL:
            return "full", error  # this machine's own disk
        if status and (status < 500 or status == NOT_IMPLEMENTED):
            log.error("the store %s refuses a call: %s %s", self.url, status, code)
            return "refused", StoreUnavailable(f"the store refuses this installation's calls: {code or status}")
        if not isinstance(error, concurrent.futures.CancelledError):
            self._rests_until = time.monotonic() + REST_SECONDS
        log.warning("the store %s does not answer: %s: %s", self.url, type(error).__name__, error)
        return "away", _away()

    def _filesystem(self) -> S3FileSystem:
        # Neither connections nor the thread that runs them survive a fork.
        if self._made is None or self._made[0] != os.getpid():
            self._made = os.getpid(), _connect(self._settings)
        return self._made[1]


async def _within(begin: Callable[[S3FileSystem], Awaitable[T]], fs: S3FileSystem, seconds: float) -> T:
    async with asyncio.timeout(seconds):
        return await begin(fs)


def _connect(settings: StoreSettings) -> S3FileSystem:
    from s3fs import S3FileSystem

    key, secret = settings.store_access_key, settings.store_secret_key
    made = S3FileSystem(
        # Without them botocore looks where it always does: the environment, a profile, the machine's own role.
        key=None if key is None else key.get_secret_value(),
        secret=None if secret is None else secret.get_secret_value(),
        endpoint_url=settings.store_endpoint or None,
        client_kwargs={"region_name": settings.store_region} if settings.store_region else {},
        config_kwargs={
            "connect_timeout": CONNECT_SECONDS,
            "read_timeout": settings.store_seconds,
            "retries": {"max_attempts": 1, "mode": "standard"},
        },
        use_listings_cache=False,
        skip_instance_cache=True,
    )
    made.retries = 2
    # aiohttp's own tasks fail beside the call, which has said so.
    made.loop.set_exception_handler(_told_already)
    return made


def _told_already(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    log.debug("beside a call to the store: %s", context.get("exception") or context.get("message"))


def _away() -> StoreUnavailable:
    return StoreUnavailable("the store does not answer; try again", retry_after_seconds=int(REST_SECONDS))


def _age(moment: datetime) -> float:
    return (datetime.now(UTC) - moment).total_seconds()
