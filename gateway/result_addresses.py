"""Addresses of large results: whoever has one may read that result until it expires, without a token.

What is signed is the job and the moment of expiry, with HMAC-SHA-256 under keys derived from the master keys. An
address says nothing about what may be read: that the job is there and its client enabled is asked when it is used.
"""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Callable
from dataclasses import dataclass

from model_store.errors import SluiceError
from model_store.sealing import SealingKeys

PATH = "/v1/results/"
PURPOSE = b"sluice result addresses 1"
_TOKEN = re.compile(r"([A-Za-z0-9_-]{1,64})\.([0-9]{1,12})\.([A-Za-z0-9_-]{43})")


class ResultNotFound(SluiceError):
    """One text for an address that nobody signed, for a result that is gone, and for a client that is disabled."""

    status = 404
    code = "result_not_found"

    def __init__(self) -> None:
        super().__init__("there is no such result, or not any more")


class ResultAddressExpired(SluiceError):
    """An address that was good once; the job gives another one."""

    status = 410
    code = "result_address_expired"

    def __init__(self) -> None:
        super().__init__("this address has expired; the job's document has a new one")


@dataclass(frozen=True, slots=True)
class ResultAddress:
    """Where a result can be read, and until when, in seconds since 1970."""

    path: str
    expires_at: int


class ResultAddresses:
    """Makes and reads addresses; `now` is in seconds since 1970 and the same at every gateway."""

    def __init__(self, master_keys: SealingKeys, seconds: float, now: Callable[[], float]) -> None:
        self._keys = master_keys.derived(PURPOSE)
        self._seconds = seconds
        self._now = now

    def make(self, job_id: str) -> ResultAddress:
        """A new address of a job's result."""
        expires_at = int(self._now() + self._seconds)
        return ResultAddress(f"{PATH}{job_id}.{expires_at}.{_signature(self._keys[0], job_id, expires_at)}", expires_at)

    def read(self, token: str) -> str:
        """The job whose result an address is of; raises ResultNotFound (404), ResultAddressExpired (410)."""
        found = _TOKEN.fullmatch(token)
        if found is None:
            raise ResultNotFound
        job_id, expires_at, signature = found[1], int(found[2]), found[3]
        # Every key is tried, whichever fits: how long that takes says nothing.
        fits = [hmac.compare_digest(signature, _signature(key, job_id, expires_at)) for key in self._keys]
        if not any(fits):
            raise ResultNotFound
        if expires_at <= self._now():
            raise ResultAddressExpired
        return job_id


def _signature(key: bytes, job_id: str, expires_at: int) -> str:
    signed = hmac.digest(key, f"{job_id}.{expires_at}".encode(), "sha256")
    return base64.urlsafe_b64encode(signed).rstrip(b"=").decode()
