"""What goes into a job's moves and comes out of them: drafts that are accepted, claims, and how a run ended."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field
from typing import Literal

from auth.standing import UNKNOWN, Authority
from workers.attempts import INFRASTRUCTURE, MOST_ATTEMPTS
from workers.lanes import Lane

Kind = Literal["prediction", "file", "chunk"]
PREDICTION: Kind = "prediction"
# Claimed by its number under `claim_file`, so it is in no lane: its row's lane is `NO_LANE`.
FILE: Kind = "file"
CHUNK: Kind = "chunk"
NO_LANE = ""


@dataclass(frozen=True, slots=True)
class Draft:
    """A job that is about to be accepted; its body was checked and, if large, is already in the store."""

    id: str
    lane: Lane
    dialect: str
    instances: int
    input: bytes | None  # None: stored under the id
    job_seconds: float
    authority: Authority = UNKNOWN
    kind: Kind = PREDICTION
    parent: int | None = None  # a chunk's: the number of its file
    max_attempts: int = MOST_ATTEMPTS
    notifies: bool = False
    replay_of: str | None = None
    input_digest: bytes | None = None
    waits: bool = False  # not laid out at once, though there were room

    def row(self, number: int, now_ms: int, state: str, *, laid_out: bool) -> dict[str, object]:
        """The row's values."""
        lane = self.lane
        return {
            "number": number,
            "id": self.id,
            "grant_id": self.authority.grant,
            "token_id": self.authority.token_id,
            "token_issued_at": self.authority.token_issued_at,
            "client_id": lane.client_id,
            "model": lane.model,
            "version": lane.version,
            "priority": lane.priority.value,
            "lane": NO_LANE if self.kind == FILE else lane.name,
            "dialect": self.dialect,
            "state": state,
            "instances": self.instances,
            "input_stored": self.input is None,
            "dispatched_at": now_ms if laid_out else None,
            "created_at": now_ms,
            "deadline": now_ms + int(self.job_seconds * 1000),
            "kind": self.kind,
            "parent": self.parent,
            "max_attempts": self.max_attempts,
            "notifies": self.notifies,
            "replay_of": self.replay_of,
            "input_digest": self.input_digest,
        }


@dataclass(frozen=True, slots=True)
class Claimed:
    """A job that this worker may run now; `input` is None where the body lies in the store."""

    number: int
    id: str
    fence: int
    attempt: int
    dialect: str
    instances: int
    input: bytes | None
    max_attempts: int = MOST_ATTEMPTS
    # From its acceptance until this claim, by the database's clock; and the claim by this process's monotonic one.
    waited_ms: int = 0
    claimed_at: float = field(default_factory=time.monotonic, compare=False)


@dataclass(frozen=True, slots=True)
class Ending:
    """What a run of a job came to: an answer's body, or an error's code and message; and what proves it."""

    number: int
    fence: int
    result: bytes | None = None
    result_stored: bool = False
    error_code: str | None = None
    error_message: str | None = None
    output_digest: bytes | None = None  # SHA-256 of the answer's body
    result_bytes: int | None = None
    ran_on: str | None = None  # JSON: artifact, runtime, worker

    @property
    def failed(self) -> bool:
        return self.error_code is not None

    @property
    def dead(self) -> bool:
        """Whether it failed by no fault of its own."""
        return self.error_code in INFRASTRUCTURE

    def row(self, state: str) -> dict[str, object]:
        """What is written, and for whom."""
        return {
            "job": self.number,
            "held_fence": self.fence,
            "new_state": state,
            "new_result_stored": self.result_stored,
            "new_error_code": self.error_code,
            "new_error_message": self.error_message,
            "new_dead": self.dead,
            "new_output_digest": self.output_digest,
            "new_result_bytes": self.result_bytes,
            "new_ran_on": self.ran_on,
        }


def new_id() -> str:
    """144 random bits: whoever does not know an id cannot guess one (ASVS 11.5.1)."""
    # A command line takes what begins with a hyphen for an option.
    while (found := secrets.token_urlsafe(18)).startswith("-"):
        continue
    return found
