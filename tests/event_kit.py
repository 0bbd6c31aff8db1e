"""What tests of streams share: a reader in a thread of its own, and jobs that are moved by hand."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from sqlalchemy import event, select, update

from auth.grants import GrantSpec
from auth.scopes import Scope
from auth.standing import Standing
from gateway import client_events, end_feed, job_events, job_watch
from gateway.parts import Parts
from model_store.database import transaction
from tests.live_gateway import LiveGateway, eventually
from tests.serving import client_id_of
from workers import jobs
from workers.lanes import Lane, Priority
from workers.tables import Job

ANSWER = b'{"predictions": [[1.0]]}'
SCOPES = (Scope.PREDICT, Scope.JOBS)


@dataclass(frozen=True, slots=True)
class Told:
    """One event as it came."""

    name: str
    id: str
    job: Any


class Reading:
    """What a stream has brought so far."""

    def __init__(self) -> None:
        self.status = 0
        self.headers = httpx.Headers()
        self.events: list[Told] = []
        self.comments: list[str] = []
        self.last_id = ""
        self.over = threading.Event()
        self.clean = False
        """Whether its end was said, and not a connection that was cut."""

    @property
    def names(self) -> list[str]:
        return [event.name for event in self.events]

    @property
    def ids(self) -> list[str]:
        """Of the jobs, in the order of their events."""
        return [event.job["id"] for event in self.events]

    def wait(self, count: int) -> list[Told]:
        """The events, once there are so many."""
        eventually(lambda: len(self.events) >= count or self.over.is_set())
        assert len(self.events) >= count, self.events
        return self.events

    def read(self, response: httpx.Response) -> None:
        name, data = "", ""
        for line in response.iter_lines():
            field, _, value = line.partition(": ")
            if line.startswith(":"):
                self.comments.append(line)
            elif field == "id":
                self.last_id = value
            elif field == "event":
                name = value
            elif field == "data":
                data += value
            elif not line and data:
                self.events.append(Told(name, self.last_id, json.loads(data)))
                name, data = "", ""


@contextlib.contextmanager
def reading(client: httpx.Client, path: str, last_id: str | None = None) -> Iterator[Reading]:
    """A stream that is read in a thread; entered when its answer has begun, cut at the end."""
    found = Reading()
    headers = {} if last_id is None else {"last-event-id": last_id}
    with (
        httpx.Client(base_url=client.base_url, headers=client.headers, timeout=30) as own,
        own.stream("GET", path, headers=headers) as response,
    ):
        found.status, found.headers = response.status_code, response.headers

        def run() -> None:
            # Cut by the test, or by a gateway that was killed.
            with contextlib.suppress(httpx.HTTPError):
                found.read(response)
                found.clean = True
            found.over.set()

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield found
        finally:
            # A read that waits is ended by its socket's end; closing it from here would not do.
            with contextlib.suppress(OSError):
                response.extensions["network_stream"].get_extra_info("socket").shutdown(socket.SHUT_RDWR)
            thread.join(20)


def hurried(patch: pytest.MonkeyPatch) -> None:
    """Lets gateways look ten times as often: what is tested is what they see, not when."""
    for module in (job_watch, end_feed):
        patch.setattr(module, "LOOK_SECONDS", 0.1)
    for module in (job_events, client_events):
        patch.setattr(module, "TICK_SECONDS", 0.1)


class Line:
    """Jobs of one client, moved through their states by hand."""

    def __init__(self, gateway: LiveGateway, client: httpx.Client, model: str = "double") -> None:
        self.client = client
        self.client_id = client_id_of(client)
        self.model = model
        self._parts = gateway.parts

    def accept(self, model: str = "") -> str:
        """The id of a new job."""
        return accepted(self._parts, self.client_id, model or self.model)

    def start(self, job: str) -> jobs.Claimed:
        return started(self._parts, job, self.model)

    def finish(self, claimed: jobs.Claimed) -> None:
        finished(self._parts, claimed)

    def end(self, job: str) -> str:
        self.finish(self.start(job))
        return job

    def end_at(self, job: str, moment: int) -> None:
        """A running job succeeds, and its end is written down as one of this moment."""
        with transaction(self._parts.sessions) as session:
            session.execute(update(Job).where(Job.id == job).values(state="succeeded", finished_at=moment))

    def run(self) -> str:
        """The id of a job that was accepted, ran and succeeded."""
        return self.end(self.accept())


@contextlib.contextmanager
def questions(gateway: LiveGateway, about: str) -> Iterator[list[str]]:
    """The statements with this text that the gateway's database is asked meanwhile."""
    asked: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if about in statement:
            asked.append(statement)

    engine = gateway.parts.engine
    event.listen(engine, "before_cursor_execute", note)
    try:
        yield asked
    finally:
        event.remove(engine, "before_cursor_execute", note)


def accepted(parts: Parts, client_id: str, model: str) -> str:
    lane = Lane(model, 1, Priority.BULK, client_id)
    draft = jobs.Draft(jobs.new_id(), lane, "tensorflow_serving", 1, b"{}", 600)
    with transaction(parts.sessions) as session:
        jobs.accept(session, [draft], 0)
    return draft.id


def started(parts: Parts, job: str, model: str) -> jobs.Claimed:
    with transaction(parts.sessions) as session:
        number = session.scalars(select(Job.number).where(Job.id == job)).one()
        (claimed,) = jobs.claim(session, [number], (model, 1), "default:w", Standing())
    return claimed


def finished(parts: Parts, claimed: jobs.Claimed) -> None:
    body = parts.artifacts.sealed(jobs.result_name(claimed.id, claimed.fence), ANSWER)
    with transaction(parts.sessions) as session:
        assert jobs.finish(session, [jobs.Ending(claimed.number, claimed.fence, body)]) == [claimed.number]


def line(gateway: LiveGateway, model: str = "double") -> Line:
    """Of a new client."""
    return Line(gateway, gateway.client(SCOPES, [GrantSpec(model)]), model)
