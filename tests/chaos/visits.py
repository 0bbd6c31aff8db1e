"""Visitors: requests that go on beside a fault, and how long each of them waited for its answer.

A database that is slow must not make what waits grow, nor hold up what needs no database.
"""

from __future__ import annotations

import secrets
import statistics
import threading
import time
from collections import defaultdict
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import httpx

from tests.chaos.callers import signed_in
from tests.chaos.installation import Installation

# Each asks again as soon as it was answered: more of them than a gateway has connections to its database.
JOB_VISITORS = 12
LONGEST_SECONDS = 30.0
# A statement waits three seconds for a lock and a request one for a connection; then it is refused. Twice that, since
# the machine is busy with everything else.
PROMPT_SECONDS = 8.0
# Half of them waited for no more than one lock: nobody stands in line behind others who wait for it as well.
REFUSED_SECONDS = 4.0
PAUSE_SECONDS = 0.05
LIVE, JOB = "/health/live", "/v1/jobs/none"


@dataclass(frozen=True, slots=True)
class Visit:
    """One request: `status` 0 where there was no answer."""

    path: str
    status: int
    seconds: float


class Visits:
    """Visitors of all gateways for as long as the context lasts."""

    def __init__(self, on: Installation) -> None:
        self.found: list[Visit] = []
        self._caller = signed_in(on, f"visitor-{secrets.token_hex(4)}", "double")
        self._urls = on.urls
        self._ends = threading.Event()
        paths = [LIVE, *[JOB] * JOB_VISITORS]
        self._threads = [
            threading.Thread(target=self._visit, args=(number, path), name=f"visitor-{number}", daemon=True)
            for number, path in enumerate(paths)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ends.set()
        for thread in self._threads:
            thread.join(LONGEST_SECONDS + 5)
        self._caller.close()

    def _visit(self, number: int, path: str) -> None:
        url = self._urls[number % len(self._urls)]
        with httpx.Client(base_url=url, headers=self._caller.headers, timeout=LONGEST_SECONDS) as caller:
            while not self._ends.wait(PAUSE_SECONDS):
                begun = time.monotonic()
                try:
                    status = caller.get(path).status_code
                except httpx.HTTPError:
                    status = 0
                self.found.append(Visit(path, status, time.monotonic() - begun))

    def require_prompt(self) -> None:
        """Everybody was answered, with what there is or with a refusal, and nobody waited long."""
        waits: defaultdict[str, list[float]] = defaultdict(list)
        for visit in self.found:
            allowed = (200,) if visit.path == LIVE else (404, 503)
            assert visit.status in allowed, f"{visit.path} was answered with {visit.status or 'nothing'}"
            waits[visit.path].append(visit.seconds)
        for path in (LIVE, JOB):
            assert waits[path], f"{path} was never answered"
            assert max(waits[path]) < PROMPT_SECONDS, f"{path} took {max(waits[path]):.1f} s"

    def require_refused(self) -> None:
        """Whoever found the database blocked was refused, mostly at once."""
        refused = [visit.seconds for visit in self.found if visit.status == 503]
        assert refused, "nobody was refused"
        median = statistics.median(refused)
        assert median < REFUSED_SECONDS, f"half of the refusals took longer than {median:.1f} s"
