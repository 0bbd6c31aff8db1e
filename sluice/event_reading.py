"""Reading events of jobs: server-sent events line by line, and coming back after a break where one was."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

import httpx

from sluice.answers import Json, Refused, Unreachable

RETRY_SECONDS = 2.0
PATIENCE_SECONDS = 300.0
# The gateway says something every 15 seconds: after this long without, the connection is dead.
SILENCE_SECONDS = 45.0
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
class _Seen:
    last_id: str | None
    retry_seconds: float = RETRY_SECONDS


def read_events(connect: Connect, last_id: str | None = None, *, patience_seconds: float) -> Iterator[JobEvent]:
    """Events as they come, each end of a job once; after a break, from where the stream was.

    Ends where the gateway says that nothing more will come (204). Raises Refused, and Unreachable where no stream could
    be opened for `patience_seconds`.
    """
    seen, ended = _Seen(last_id), dict[str, None]()
    until = time.monotonic() + patience_seconds
    while True:
        pause = seen.retry_seconds
        try:
            with connect(seen.last_id) as response:
                if response.status_code == 204:
                    return
                for event in parse_events(response.iter_lines(), seen):
                    until = time.monotonic() + patience_seconds
                    if event.final and not _remember(ended, event.job["id"]):
                        continue
                    yield event
                until = time.monotonic() + patience_seconds
        except (httpx.HTTPError, Unreachable) as error:
            if time.monotonic() > until:
                raise Unreachable(f"no stream of events for {patience_seconds:g} seconds: {error}") from error
        except Refused as error:
            if error.status not in (429, 503) or time.monotonic() > until:
                raise
            pause = max(pause, float(error.retry_after_seconds or 0))
        time.sleep(pause)


def parse_events(lines: Iterable[str], seen: _Seen) -> Iterator[JobEvent]:
    """Events from the lines of a stream (WHATWG HTML, section 9.2.6); `seen` keeps its last id and its retry time.

    An event without its empty line at the end was cut off, and is none.
    """
    name, data, new_id = "message", list[str](), seen.last_id
    for line in lines:
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if line == "":
            seen.last_id = new_id
            if data:
                yield JobEvent(name, new_id or "", json.loads("\n".join(data)))
            name, data = "message", []
        elif field == "event":
            name = value
        elif field == "data":
            data.append(value)
        elif field == "id" and "\0" not in value:
            new_id = value
        elif field == "retry" and value.isdecimal():
            seen.retry_seconds = int(value) / 1000


def _remember(ended: dict[str, None], job_id: str) -> bool:
    """Whether the end of a job is a new one; the oldest are forgotten beyond a bound."""
    if job_id in ended:
        return False
    ended[job_id] = None
    if len(ended) > MOST_REMEMBERED:
        del ended[next(iter(ended))]
    return True
