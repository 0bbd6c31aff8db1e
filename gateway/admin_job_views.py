"""Jobs as administrators see them: whose they are, what became of them, how large they were; never what was in them."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from gateway.client_ids import ClientId
from gateway.job_listing import Wanted
from gateway.job_results import moment
from gateway.moments import Moment
from model_store.registry import NAME
from workers.jobs import JobState
from workers.origin import Origin
from workers.tables import Job

MOST_LISTED = 100
HIGHEST_VERSION = 2**31 - 1
DIGEST = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
EXAMPLE: dict[str, Any] = {
    "id": "Zk0o3rVxQ1uYt5pWc8sLd2Ea",
    "client_id": "cli_4mZQhVYwW0qK7bN2sT9xLd3R",
    "model": "mnist",
    "version": "3",
    "kind": "prediction",
    "state": "failed",
    "priority": "bulk",
    "dialect": "tensorflow_serving",
    "instances": 32,
    "done": 0,
    "attempts": 3,
    "max_attempts": 3,
    "created_at": "2026-01-02T03:04:05.006Z",
    "started_at": "2026-01-02T03:04:26.010Z",
    "finished_at": "2026-01-02T03:04:47.013Z",
    "deadline": "2026-01-03T03:04:05.006Z",
    "worker": "default:host-1.0",
    "error": {"code": "worker_crashed", "message": "whatever ran this job died 3 times; it was not tried again"},
    "dead_letter": True,
    "replay_of": None,
    "replayed_as": None,
    "input_sha256": DIGEST,
    "output_sha256": None,
    "output_bytes": None,
    "ran_on": None,
}


class Fault(BaseModel):
    """Why a job has no result."""

    code: str
    message: str | None


class RanOn(BaseModel):
    """What gave the result."""

    artifact: str = Field(description="SHA-256 of the variant that ran.")
    upload: str = Field(description="SHA-256 of the uploaded file.")
    variant: str
    runtime: str
    platform: str
    worker: str


class AdminJob(BaseModel):
    """A job of any client, without its contents."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})

    id: str
    client_id: str
    model: str
    version: str
    kind: str
    state: JobState
    priority: str
    dialect: str
    instances: int
    done: int
    attempts: int
    max_attempts: int
    created_at: str
    started_at: str | None
    finished_at: str | None
    deadline: str | None
    worker: str | None
    error: Fault | None
    dead_letter: bool
    replay_of: str | None
    replayed_as: str | None
    input_sha256: str | None
    output_sha256: str | None
    output_bytes: int | None
    ran_on: RanOn | None


class AdminJobs(BaseModel):
    """A page of jobs, the newest first.

    It looks at 10,000 jobs at most, so it may be empty although `next_page_token` is not null.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [{"jobs": [EXAMPLE], "next_page_token": None}]})

    jobs: list[AdminJob]
    next_page_token: str | None


class Chosen(BaseModel):
    """Which jobs; what is left out may be anything."""

    model_config = ConfigDict(extra="forbid")

    client_id: Annotated[ClientId | None, Field(description="Whose they are.")] = None
    model: Annotated[str | None, Field(pattern=f"^{NAME.pattern}$")] = None
    version: Annotated[int | None, Field(ge=1, le=HIGHEST_VERSION)] = None
    error_code: Annotated[str | None, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$", examples=["worker_crashed"])] = None
    before: Annotated[Moment | None, Field(description="Only those that ended before this moment.")] = None
    page_token: Annotated[str | None, Field(max_length=64, description="From the page before.")] = None

    def wanted(self) -> Wanted:
        """As the database is asked."""
        return Wanted(
            client_id=self.client_id,
            model=self.model,
            version=self.version,
            error_code=self.error_code,
            before=self.before,
        )


def shown(job: Job) -> AdminJob:
    """A row as administrators see it."""
    origin = None if job.ran_on is None else Origin.from_json(job.ran_on)
    return AdminJob(
        id=job.id,
        client_id=job.client_id,
        model=job.model,
        version=str(job.version),
        kind=job.kind,
        state=JobState(job.state),
        priority=job.priority,
        dialect=job.dialect,
        instances=job.instances,
        done=job.instances if job.state == JobState.SUCCEEDED else job.done,
        attempts=job.attempt,
        max_attempts=job.max_attempts,
        created_at=moment(job.created_at) or "",
        started_at=moment(job.started_at),
        finished_at=moment(job.finished_at),
        deadline=moment(job.deadline),
        worker=job.worker,
        error=Fault(code=job.error_code, message=job.error_message) if job.error_code else None,
        dead_letter=job.dead,
        replay_of=job.replay_of,
        replayed_as=job.replayed_as,
        input_sha256=job.input_digest.hex() if job.input_digest else None,
        output_sha256=job.output_digest.hex() if job.output_digest else None,
        output_bytes=job.result_bytes,
        ran_on=None if origin is None else RanOn(**{name: getattr(origin, name) for name in RanOn.model_fields}),
    )
