"""Reading events of jobs: server-sent events line by line, and coming back after a break where one was."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

import httpx

from sluice.answers import DeadlinePassed, Json, RateLimited, Refused, Unavailable, Unreachable

RETRY_SECONDS = 2.0
PATIENCE_SECONDS = 300.0
# The gateway says something every 15 seconds: after this long without, the connection is dead.
SILENCE_SECONDS = 45.0
AWAY = (RateLimited, Unavailable, DeadlinePassed)
MOST_REMEMBERED = 10_000

Connect = Callable[[str | None], AbstractContextManager[httpx.Response]]
"""Opens a stream from the last id that was seen; raises Refused, Unreachable."""


@dataclass(frozen=True, slots=True)
class JobEvent:
    """One event; `id` is the last that the stream has given, `job` the job's document."""

    name: str
    id: str
    job: Json

    @property
    def final(self) -> bool:
        """Whether the job has ended with it."""
        return self.job.get("finished_at") is not None


@dataclass(slots=True)
class Seen:
    last_id: str | None
    retry_seconds: float = RETRY_SECONDS


def read_events(connect: Connect, last_id: str | None = None, *, patience_seconds: float) -> Iterator[JobEvent]:
    """Events as they come, each end of a job once; after a break, from where the stream was.

    Ends where the gateway says that nothing more will come (204). Raises Refused, and Unreachable where no stream could
    be opened for `patience_seconds`.
    """
    reading = Reading(last_id, patience_seconds)
    while True:
        pause = reading.seen.retry_seconds
        try:
            with connect(reading.seen.last_id) as response:
                if response.status_code == 204:
                    return
                parser = EventParser(reading.seen)
                for line in response.iter_lines():
                    event = parser.feed(line)
                    if event is not None and reading.is_new(event):
                        yield event
                reading.came()
        except (httpx.HTTPError, Unreachable, Refused) as error:
            pause = reading.pause_after(error)
        time.sleep(pause)


class Reading:
    """What has been seen of a stream, and until when it is worth asking for the rest."""

    def __init__(self, last_id: str | None, patience_seconds: float) -> None:
        self.seen = Seen(last_id, RETRY_SECONDS)
        self._ended = dict[str, None]()
        self._patience_seconds = patience_seconds
        self.came()

    def came(self) -> None:
        self._until = time.monotonic() + self._patience_seconds

    def is_new(self, event: JobEvent) -> bool:
        """Whether it is not an end that was told already; the oldest are forgotten beyond a bound."""
        self.came()
        if not event.final:
            return True
        job = event.job["id"]
        if job in self._ended:
            return False
        self._ended[job] = None
        if len(self._ended) > MOST_REMEMBERED:
            del self._ended[next(iter(self._ended))]
        return True

    def pause_after(self, error: httpx.HTTPError | Unreachable | Refused) -> float:
        """Seconds until the stream is asked for again; raises what is final."""
        over = time.monotonic() > self._until
        if isinstance(error, Unreachable) and not error.passes:
            raise error
        if isinstance(error, Refused):
            if not isinstance(error, AWAY) or over:
                raise error
            return max(self.seen.retry_seconds, float(error.retry_after_seconds or 0))
        if over:
            raise Unreachable(f"no stream of events for {self._patience_seconds:g} seconds: {error}") from error
        return self.seen.retry_seconds


class EventParser:
    """Events from the lines of a stream (WHATWG HTML, section 9.2.6); `seen` keeps its last id and its retry time.

    An event without its empty line at the end was cut off, and is none.
    """

    def __init__(self, seen: Seen) -> None:
        self._seen = seen
        self._name, self._data, self._new_id = "message", list[str](), seen.last_id

    def feed(self, line: str) -> JobEvent | None:
        """The event that ends with this line, if one does."""
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if line == "":
            return self._ended()
        if field == "event":
            self._name = value
        elif field == "data":
            self._data.append(value)
        elif field == "id" and "\0" not in value:
            self._new_id = value
        elif field == "retry" and value.isdecimal():
            self._seen.retry_seconds = int(value) / 1000
        return None

    def _ended(self) -> JobEvent | None:
        self._seen.last_id = self._new_id
        name, data = self._name, self._data
        self._name, self._data = "message", []
        return JobEvent(name, self._new_id or "", json.loads("\n".join(data))) if data else None
