"""A job in the Python client: submit one safely, wait for it, follow it, read its result, cancel it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager

import httpx

from sluice.answers import JobNotEnded, Json
from sluice.calls import Calls, Prediction, job_path
from sluice.event_reading import PATIENCE_SECONDS, JobEvent, read_events
from sluice.exchange import Asked, ask_json
from sluice.link import Link


class KnownJob:
    """A job that a gateway has accepted; `document` is what it said of it last."""

    def __init__(self, document: Json) -> None:
        self.document = document
        self.id: str = document["id"]
        self._path = job_path(self.id)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.id!r}, {self.state!r})"

    @property
    def state(self) -> str:
        """`queued`, `running`, `succeeded`, `failed`, `canceled` or `expired`, when it was looked at last."""
        state: str = self.document["state"]
        return state

    @property
    def ended(self) -> bool:
        """Whether it had ended when it was looked at last."""
        return self.document.get("finished_at") is not None

    def require_end(self, seconds: float | None) -> None:
        """Raises JobNotEnded where it has not ended."""
        if not self.ended:
            raise JobNotEnded(f"job {self.id} is {self.state} after {seconds:g} seconds")


class Job(KnownJob):
    """A job whose client uses threads. To iterate over it is to iterate over its events."""

    def __init__(self, link: Link, calls: Calls, document: Json) -> None:
        super().__init__(document)
        self._link = link
        self._calls = calls

    def look(self) -> Json:
        """The job's document as it is now. Raises Refused, Unreachable."""
        self.document = self._link.run(self._calls.job(self.id))
        return self.document

    def wait(self, seconds: float | None = None, *, patience_seconds: float | None = None) -> Json:
        """The job's document once it has ended, or as it is after so many seconds; None is any number of them.

        A gateway that goes away is asked again for `patience_seconds`, a minute by default, also beyond `seconds`.
        Raises Refused, and Unreachable where none answered for so long.
        """
        self.document = self._link.run(self._calls.waited(self.id, seconds, patience_seconds))
        return self.document

    def result(self, seconds: float | None = None, *, outputs: str | Sequence[str] | None = None) -> Prediction:
        """The outputs as arrays, as `predict` gives them, once the job has ended, which is waited for.

        Raises JobFailed, JobCanceled, JobExpired, JobNotEnded after `seconds`, Refused, Unreachable.
        """
        if not self.ended:
            self.wait(seconds)
        self.require_end(seconds)
        return self._link.run(self._calls.result(self.document, outputs))

    def events(self, *, patience_seconds: float = PATIENCE_SECONDS) -> Iterator[JobEvent]:
        """What becomes of the job, up to its end, also over breaks of the connection.

        Raises Refused, and Unreachable where no gateway answers for `patience_seconds`.
        """

        def connect(last_id: str | None) -> AbstractContextManager[httpx.Response]:
            return self._link.stream(event_stream(f"{self._path}/events", last_id))

        for event in read_events(connect, patience_seconds=patience_seconds):
            self.document = event.job
            yield event
            if event.final:
                return

    def __iter__(self) -> Iterator[JobEvent]:
        return self.events()

    def lines(self, *, partial: bool = False) -> Iterator[bytes]:
        """What a file was answered, in pieces as they come; with `partial`, what there is of it before its end.

        Raises Refused, Unreachable.
        """
        return self._link.download(result_lines(self._path, partial=partial))

    def cancel(self) -> Json:
        """Cancels it; raises Refused (409) where it has ended already."""
        self.document = self._link.run(ask_json(Asked("POST", f"{self._path}/cancel")))
        return self.document


def event_stream(path: str, last_id: str | None, **query: str) -> Asked:
    """The request for a stream of events, from what was seen last."""
    seen = {} if last_id is None else {"Last-Event-ID": last_id}
    return Asked("GET", path, headers={"Accept": "text/event-stream", **seen}, query=query)


def result_lines(path: str, *, partial: bool) -> Asked:
    """The request for what a file was answered."""
    return Asked("GET", f"{path}/result", query={"partial": "true"} if partial else {})


def events_query(model: str | None, types: Iterable[str]) -> dict[str, str]:
    """What a stream of events is asked for."""
    asked = {"model": model, "types": ",".join(types)}
    return {name: value for name, value in asked.items() if value}
