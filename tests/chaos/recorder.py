"""The recorder: a process of its own that submits jobs, looks at them until they end, and writes down all it sees.

`python -m tests.chaos.recorder` reads an `Orders` as JSON from standard input and works until SIGTERM, which ends the
submitting, or until it has submitted `jobs`; then it waits for what it has not seen the end of. Once a second it says
on standard output how far it is.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import random
import signal
import sys
import time
from collections import deque
from collections.abc import Coroutine
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from tests.chaos.history import GONE, Accepted, Asked, Journal, Refused, Seen, Unknown
from tests.chaos.line import Line, NoAnswer, Reply

FINAL = frozenset({"succeeded", "failed", "canceled", "expired"})
PAUSE_SECONDS = 0.3
LOOK_SECONDS = 10
LIST_SECONDS = 2.0
LISTED = 100
# Of ended jobs, one in so many is looked at again, some time later.
AGAIN = 20
SYNC_SECONDS = 0.5
WAVE_SECONDS = 4
WAVE_HEIGHT = 4


@dataclass(frozen=True, slots=True)
class Orders:
    """What a recorder shall do; `rate` is submits a second over all its connections."""

    urls: list[str]
    client_id: str
    secret: str
    journal: str
    seed: int
    rate: float
    jobs: int
    slow_share: float = 0.05
    slow_rounds: int = 1000
    connections: int = 8
    watchers: int = 16
    # How long it waits for what has not ended, once it has submitted all.
    patience_seconds: float = 120

    def to_json(self) -> str:
        return json.dumps(asdict(self))


@dataclass(slots=True)
class Progress:
    """How far a recorder is."""

    asked: int = 0
    accepted: int = 0
    refused: int = 0
    ended: int = 0


class Recorder:
    """Submits and looks; every word goes into the journal before anything is done about it."""

    def __init__(self, orders: Orders) -> None:
        self.orders = orders
        self.progress = Progress()
        self._journal = Journal(Path(orders.journal))
        self._random = random.Random(orders.seed)  # noqa: S311 - repeatable, not secret
        self._headers: dict[str, str] = {}
        self._signed_in = asyncio.Lock()
        self._open: deque[str] = deque()
        self._again: deque[str] = deque()
        self._stop = asyncio.Event()
        self._begun_at = time.monotonic()

    async def run(self) -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._stop.set)
        submitting = [asyncio.create_task(self._submit_all(place)) for place in range(self.orders.connections)]
        looking: list[Coroutine[Any, Any, None]] = [self._look_after(place) for place in range(self.orders.watchers)]
        others = [asyncio.create_task(work) for work in (*looking, self._list(), self._tell())]
        await asyncio.gather(*submitting)
        until = time.monotonic() + self.orders.patience_seconds
        while self.progress.ended < self.progress.accepted and time.monotonic() < until:
            await asyncio.sleep(0.05)
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        self._journal.close()
        self._say()

    async def _submit_all(self, place: int) -> None:
        line = Line(self.orders.urls, place)
        with contextlib.closing(line):
            while not self._stop.is_set() and self.progress.asked < self.orders.jobs:
                number = self.progress.asked
                self.progress.asked += 1
                behind = self._begun_at + self.due_seconds(number) - time.monotonic()
                if behind > 0:
                    await self._sleep(behind)
                elif behind < -1:
                    # What a fault held up is not made up for: a flood would show how much fits, not what is lost.
                    self._begun_at -= behind
                if self._stop.is_set():
                    self.progress.asked -= 1
                    return
                await self._submit(line, number)

    def due_seconds(self, number: int) -> float:
        """When a submit is due: in waves, so that whatever breaks also meets jobs that wait."""
        wave, place = divmod(number, max(1, round(self.orders.rate * WAVE_SECONDS)))
        return wave * WAVE_SECONDS + place / (self.orders.rate * WAVE_HEIGHT)

    async def _sleep(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stop.wait()

    async def _submit(self, line: Line, number: int) -> None:
        model, row = self._work(number)
        key = f"{self.orders.seed}-{number}"
        self._journal.note(Asked(time.time(), key, model, row))
        body = json.dumps({"instances": [row]}).encode()
        until = time.monotonic() + self.orders.patience_seconds
        while True:
            outcome = await self._send(line, key, model, body)
            if outcome is not None or time.monotonic() > until:
                return
            await asyncio.sleep(PAUSE_SECONDS)

    async def _send(self, line: Line, key: str, model: str, body: bytes) -> bool | None:
        """Whether it was taken; None where nobody knows and it has to be sent again."""
        headers = {"Idempotency-Key": f'"{key}"', "Content-Type": "application/json"}
        try:
            reply = await self._ask(line, "POST", f"/v1/models/{model}:submit", headers, body)
        except NoAnswer as error:
            self._journal.note(Unknown(time.time(), key, str(error)))
            return None
        if reply.status == 202:
            job = str(reply.json()["id"])
            self._journal.note(Accepted(time.time(), key, job))
            self.progress.accepted += 1
            self._open.append(job)
            return True
        if reply.status in (401, 408, 409, 429) or reply.status >= 500:
            self._journal.note(Unknown(time.time(), key, str(reply.status)))
            return None
        self._journal.note(Refused(time.time(), key, f"{reply.status} {reply.body[:200].decode(errors='replace')}"))
        self.progress.refused += 1
        return False

    def _work(self, number: int) -> tuple[str, list[float]]:
        """A job's model and its one row, which no other job of this recorder has."""
        if self._random.random() < self.orders.slow_share:
            return "slow", [float(number), float(self._random.randint(1, self.orders.slow_rounds))]
        return "double", [float(number), float(self._random.randint(0, 1_000_000))]

    async def _look_after(self, place: int) -> None:
        line = Line(self.orders.urls, place)
        with contextlib.closing(line):
            while True:
                if self._open:
                    job = self._open.popleft()
                    if not await self._look(line, job, LOOK_SECONDS):
                        self._open.append(job)
                elif self._again:
                    await self._look(line, self._again.popleft(), 0)
                else:
                    await asyncio.sleep(0.02)

    async def _look(self, line: Line, job: str, wait: int) -> bool:
        """Look at a job and write down what was seen; returns whether that was its end."""
        since = time.time()
        try:
            reply = await self._ask(line, "GET", f"/v1/jobs/{job}?wait={wait}", {}, seconds=wait + 10)
        except NoAnswer:
            await asyncio.sleep(PAUSE_SECONDS)
            return False
        if reply.status == 404:
            self._journal.note(Seen(since, time.time(), job, GONE))
            self.progress.ended += wait > 0
            return True
        if reply.status != 200:
            await asyncio.sleep(PAUSE_SECONDS)
            return False
        seen = seen_in(reply.json(), since)
        self._journal.note(seen)
        if seen.state not in FINAL:
            return False
        self.progress.ended += wait > 0
        if wait and self._random.randrange(AGAIN) == 0:
            self._again.append(job)
        return True

    async def _list(self) -> None:
        """Look at the newest jobs as a list shows them: that is where changing states are to be seen."""
        line = Line(self.orders.urls)
        with contextlib.closing(line):
            while True:
                await asyncio.sleep(LIST_SECONDS)
                since = time.time()
                with contextlib.suppress(NoAnswer):
                    reply = await self._ask(line, "GET", f"/v1/jobs?limit={LISTED}", {})
                    for document in reply.json()["jobs"] if reply.status == 200 else ():
                        self._journal.note(seen_in(document, since))

    async def _ask(
        self, line: Line, method: str, path: str, headers: dict[str, str], body: bytes = b"", *, seconds: float = 10
    ) -> Reply:
        """As `line.ask`, signed in; a token that is refused is replaced for the next time."""
        if not self._headers:
            await self._sign_in(line)
        reply = await line.ask(method, path, {**headers, **self._headers}, body, seconds=seconds)
        if reply.status == 401:
            self._headers = {}
        return reply

    async def _sign_in(self, line: Line) -> None:
        async with self._signed_in:
            if self._headers:
                return
            secret = base64.b64encode(f"{self.orders.client_id}:{self.orders.secret}".encode()).decode()
            headers = {"Authorization": f"Basic {secret}", "Content-Type": "application/x-www-form-urlencoded"}
            reply = await line.ask("POST", "/oauth/token", headers, b"grant_type=client_credentials")
            if reply.status != 200:
                await asyncio.sleep(PAUSE_SECONDS)
                raise NoAnswer(f"no token: {reply.status}")
            self._headers = {"Authorization": f"Bearer {reply.json()['access_token']}"}

    async def _tell(self) -> None:
        while True:
            await asyncio.sleep(SYNC_SECONDS)
            self._journal.sync()
            self._say()

    def _say(self) -> None:
        sys.stdout.write(json.dumps(asdict(self.progress)) + "\n")
        sys.stdout.flush()


def seen_in(document: dict[str, Any], since: float) -> Seen:
    """What a job's document says."""
    error = document.get("error") or {}
    return Seen(
        since,
        time.time(),
        document["id"],
        document["state"],
        document["attempts"],
        rows=document.get("predictions"),
        code=error.get("code"),
        created=_moment(document["created_at"]),
        started=_moment(document["started_at"]),
        finished=_moment(document["finished_at"]),
    )


def _moment(text: str | None) -> float | None:
    return None if text is None else datetime.fromisoformat(text).timestamp()


if __name__ == "__main__":
    asyncio.run(Recorder(Orders(**json.loads(sys.stdin.read()))).run())
