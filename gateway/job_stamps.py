"""Where a job stands, as a value that only grows: what a reader has seen of it, and the ids of its events."""

from __future__ import annotations

import re
from typing import NamedTuple

from gateway.event_frames import LastEventIdInvalid
from workers.jobs import JobState

_ID = re.compile(r"([0-9]{1,15})\.([012])\.([0-9]{1,15})")


class Stamp(NamedTuple):
    """Where a job stands. Each move of it makes a larger one: the fence counts up with each claim and each return."""

    fence: int
    order: int  # 0 queued, 1 running, 2 ended
    done: int

    @property
    def final(self) -> bool:
        return self.order == 2

    @property
    def event_id(self) -> str:
        return f"{self.fence}.{self.order}.{self.done}"


def stamp_of(state: str, fence: int, done: int) -> Stamp:
    """The stamp of a row with these values."""
    return Stamp(fence, {JobState.QUEUED: 0, JobState.RUNNING: 1}.get(JobState(state), 2), done)


def stamp_of_id(text: str | None) -> Stamp | None:
    """What a reader has seen, by the id that it was given last; raises LastEventIdInvalid."""
    if not text:
        return None
    found = _ID.fullmatch(text)
    if found is None:
        raise LastEventIdInvalid
    return Stamp(*(int(part) for part in found.groups()))
