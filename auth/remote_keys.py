"""Keys of another issuer, fetched from its JWKS address in a thread of their own, never while a request waits."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection, Mapping
from urllib.parse import urlsplit

from auth.compact import strict_json
from auth.errors import KeyUnacceptable
from auth.public_keys import VerifyingKey, read_key
from auth.trusted_issuers import is_loopback

log = logging.getLogger(__name__)

REFRESH_SECONDS = 300.0
# Whoever sends tokens with made-up names of keys makes us ask this often, and no more.
PAUSE_SECONDS = 10.0
FIRST_SECONDS = 5.0
TIMEOUT_SECONDS = 5.0
WHOLE_SECONDS = 10.0
MOST_BYTES = 256 * 1024
MOST_BRACKETS = 2000
MOST_KEYS = 100


class JwksUnavailable(Exception):
    """The address did not answer with a set of keys; the message says why, for the log."""


class RemoteKeys:
    """The keys at one address as they were fetched last; `key` may be asked from any thread and never waits.

    The last good set stays while the address does not answer, for `keep_seconds`.
    """

    def __init__(
        self,
        url: str,
        algorithms: Collection[str],
        *,
        keep_seconds: float,
        pause_seconds: float = PAUSE_SECONDS,
        refresh_seconds: float = REFRESH_SECONDS,
    ) -> None:
        self._url = url
        self._algorithms = tuple(algorithms)
        self._keep_seconds = keep_seconds
        self._pause_seconds = pause_seconds
        self._refresh_seconds = refresh_seconds
        self._keys: Mapping[str, VerifyingKey] = {}
        self._good_until = float("-inf")
        self._wanted = threading.Event()
        self._asked = threading.Event()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to fetch; waits for the first answer, some seconds at most."""
        self._thread = threading.Thread(target=self._keep_fetching, name="jwks", daemon=True)
        self._thread.start()
        self._asked.wait(FIRST_SECONDS)

    def close(self) -> None:
        self._stop.set()
        self._wanted.set()
        if self._thread is not None:
            self._thread.join(timeout=WHOLE_SECONDS + 1)

    def key(self, kid: str) -> VerifyingKey | None:
        """The key of this name. None for one that is unknown, which is asked for soon, and for a set grown too old."""
        found = self._keys.get(kid) if time.monotonic() < self._good_until else None
        if found is None:
            self._wanted.set()
        return found

    def refresh(self) -> None:
        """Fetch once; raises JwksUnavailable."""
        asked_at = time.monotonic()
        keys = read_set(fetch(self._url), self._algorithms)
        self._keys, self._good_until = keys, asked_at + self._keep_seconds

    def _keep_fetching(self) -> None:
        while not self._stop.is_set():
            try:
                self.refresh()
            except JwksUnavailable as error:
                log.warning("keys of %s could not be fetched: %s", urlsplit(self._url).hostname, error)
            except Exception:  # the thread's edge: keys must go on being fetched
                log.exception("keys of %s could not be read", urlsplit(self._url).hostname)
            self._asked.set()
            self._stop.wait(self._pause_seconds)
            self._wanted.wait(self._refresh_seconds)
            self._wanted.clear()


def fetch(url: str) -> bytes:
    """What the address answers, if it is 200 and small; follows no redirect. Raises JwksUnavailable."""
    import httpx  # here: most gateways trust no other issuer, and each would carry it

    host = urlsplit(url).hostname or ""
    until = time.monotonic() + WHOLE_SECONDS
    # Not compressed: the limit is on what is read, and a small answer could unpack to a huge one.
    headers = {"accept": "application/jwk-set+json, application/json", "accept-encoding": "identity"}
    try:
        # A proxy of the environment cannot reach what listens on this machine's loopback address.
        with (
            httpx.Client(timeout=TIMEOUT_SECONDS, follow_redirects=False, trust_env=not is_loopback(host)) as http,
            http.stream("GET", url, headers=headers) as answer,
        ):
            if answer.status_code != 200:
                raise JwksUnavailable(f"the answer's status is {answer.status_code}")
            if answer.headers.get("content-encoding", "identity") != "identity":
                raise JwksUnavailable("the answer is compressed")
            body = bytearray()
            for chunk in answer.iter_raw():
                body += chunk
                if len(body) > MOST_BYTES or time.monotonic() > until:
                    raise JwksUnavailable(f"the answer has more than {MOST_BYTES} bytes, or came too slowly")
            return bytes(body)
    except httpx.HTTPError as error:
        raise JwksUnavailable(type(error).__name__) from error


def read_set(body: bytes, algorithms: Collection[str]) -> Mapping[str, VerifyingKey]:
    """The usable signature keys of a JWK Set by their names; raises JwksUnavailable where there are none.

    Others are passed over, as RFC 7517, section 5, wants it; so are all that share a name.
    """
    try:
        listed = strict_json(body, MOST_BRACKETS).get("keys")
    except (ValueError, RecursionError):
        listed = None
    if not isinstance(listed, list) or len(listed) > MOST_KEYS:
        raise JwksUnavailable("the answer is no JWK Set")
    found: dict[str, VerifyingKey] = {}
    repeated: set[str] = set()
    for document in listed:
        key = _usable(document, algorithms)
        if key is not None:
            repeated |= {key.kid} & found.keys()
            found[key.kid] = key
    usable = {kid: key for kid, key in found.items() if kid not in repeated}
    if not usable:
        raise JwksUnavailable(f"none of {len(listed)} keys can be used for: {' '.join(algorithms)}")
    return usable


def _usable(document: object, algorithms: Collection[str]) -> VerifyingKey | None:
    try:
        return read_key(document, algorithms) if isinstance(document, dict) else None
    except KeyUnacceptable:
        return None
