"""A job in the Python client: submit one safely, wait for it, follow it, cancel it."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import datetime
from functools import partial
from typing import Literal, Protocol, TypedDict
from urllib.parse import quote

import httpx

from sluice.answers import Json, Refused, Unreachable
from sluice.event_reading import PATIENCE_SECONDS, JobEvent, read_events

WAIT_SECONDS = 30
AWAY_SECONDS = 60.0
AWAY_PAUSE_SECONDS = 2.0
# What says that a gateway comes back, or has too much to do.
PASSING = {429, 502, 503, 504}
SUBMIT_TRIES = 5
LONGEST_PAUSE_SECONDS = 30.0
# What a file of rows is, by how its name ends.
FORMATS = {
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".npz": "npz", ".parquet": "parquet", ".zip": "images"
}  # fmt: skip


class SubmitOptions(TypedDict, total=False):
    """What may be asked of a job; the key names the submit, for as long as it may be sent again."""

    idempotency_key: str
    deadline: float | datetime
    """In seconds from now, or a moment with a time zone: later it is not worth running."""
    priority: Literal["interactive", "bulk"]
    max_attempts: int
    webhook: str
    """An address to tell of its end."""


class Gateway(Protocol):
    """What a job asks of its client."""

    def get(self, path: str, **query: str | int) -> Json: ...

    def post(self, path: str, body: object = None) -> Json: ...

    def download(self, path: str) -> Iterator[bytes]: ...

    def stream(self, path: str, headers: dict[str, str], **query: str) -> AbstractContextManager[httpx.Response]: ...


class SubmittedJob:
    """A job that a gateway has accepted; `document` is what it said of it last."""

    def __init__(self, gateway: Gateway, document: Json) -> None:
        self._gateway = gateway
        self.document = document
        self.id: str = document["id"]
        self._path = f"/v1/jobs/{quote(self.id, safe='')}"

    @property
    def ended(self) -> bool:
        """Whether it had ended when it was looked at last."""
        return self.document.get("finished_at") is not None

    def look(self) -> Json:
        """The job as it is now. Raises Refused, Unreachable."""
        self.document = self._gateway.get(self._path)
        return self.document

    def wait(self, seconds: float | None = None, *, patience_seconds: float | None = None) -> Json:
        """The job once it has ended, or as it is after so many seconds; None is any number of them.

        A gateway that goes away is asked again for `patience_seconds`, a minute by default, also beyond `seconds`.
        Raises Refused, and Unreachable where none answered for so long.
        """
        patience = AWAY_SECONDS if patience_seconds is None else patience_seconds
        until = time.monotonic() + (float("inf") if seconds is None else seconds)
        while True:
            left = until - time.monotonic()
            # Less than a second is waited for as well: the gateway is not to be asked again and again meanwhile.
            asked = f"{max(min(left, WAIT_SECONDS), 0):.3f}"
            self.document = patiently(partial(self._gateway.get, self._path, wait=asked), patience)
            if self.ended or left <= 0:
                return self.document

    def events(self, *, patience_seconds: float = PATIENCE_SECONDS) -> Iterator[JobEvent]:
        """What becomes of the job, up to its end, also over breaks of the connection.

        Raises Refused, and Unreachable where no gateway answers for `patience_seconds`.
        """

        def connect(last_id: str | None) -> AbstractContextManager[httpx.Response]:
            return self._gateway.stream(f"{self._path}/events", last_event_id(last_id))

        for event in read_events(connect, patience_seconds=patience_seconds):
            self.document = event.job
            yield event
            if event.final:
                return

    def lines(self, *, partial: bool = False) -> Iterator[bytes]:
        """What a file was answered, in pieces as they come; with `partial`, what there is of it before its end.

        Raises Refused, Unreachable.
        """
        return self._gateway.download(f"{self._path}/result{'?partial=true' if partial else ''}")

    def cancel(self) -> Json:
        """Cancels it; raises Refused (409) where it has ended already."""
        self.document = self._gateway.post(f"{self._path}/cancel")
        return self.document


def last_event_id(last_id: str | None) -> dict[str, str]:
    """The header that says what was seen."""
    return {} if last_id is None else {"Last-Event-ID": last_id}


def option_headers(options: SubmitOptions) -> dict[str, str]:
    """The options of a submit as headers; without a key, one is made up, so that a submit can be sent again."""
    deadline = options.get("deadline")
    given = {
        "Idempotency-Key": options.get("idempotency_key") or secrets.token_urlsafe(18),
        "Sluice-Deadline": deadline.isoformat() if isinstance(deadline, datetime) else deadline,
        "Sluice-Priority": options.get("priority"),
        "Sluice-Max-Attempts": options.get("max_attempts"),
        "Sluice-Webhook": options.get("webhook"),
    }
    return {name: str(value) for name, value in given.items() if value is not None}


def patiently(ask: Callable[[], Json], patience_seconds: float) -> Json:
    """What `ask` answers, asked again for so long where no answer comes, or one that says to come again."""
    until = time.monotonic() + patience_seconds
    while True:
        pause = AWAY_PAUSE_SECONDS
        try:
            return ask()
        except (Unreachable, Refused) as error:
            passing = isinstance(error, Unreachable) or error.status in PASSING
            if not passing or time.monotonic() + pause > until:
                raise
            if isinstance(error, Refused):
                pause = min(max(pause, float(error.retry_after_seconds or 0)), LONGEST_PAUSE_SECONDS)
        time.sleep(pause)


def persistently(send: Callable[[], Json]) -> Json:
    """What `send` answers, sent again with the same key where no answer came, or one that says to come again."""
    for attempt in range(SUBMIT_TRIES):
        try:
            return send()
        except (Unreachable, Refused) as error:
            busy = isinstance(error, Unreachable) or error.status == 503
            if not busy or attempt == SUBMIT_TRIES - 1:
                raise
            told = error.retry_after_seconds if isinstance(error, Refused) else None
            time.sleep(min(told or 0.5 * 2**attempt, LONGEST_PAUSE_SECONDS))
    raise AssertionError("a loop that always ends by itself")
