"""Jobs of all clients, for administrators: look, cancel, delete; their contents need a right of their own."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Annotated, Any, Literal

from fastapi import APIRouter, BackgroundTasks, Depends, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from auth.scopes import Scope
from gateway.admin_job_views import MOST_LISTED, AdminJob, AdminJobs, Chosen, shown
from gateway.admission import Caller
from gateway.audit_trail import note
from gateway.cancellations import BY_ADMINISTRATOR, cancel
from gateway.client_ids import ClientId
from gateway.dependencies import Pages, Require, open_session, parts, read_session
from gateway.job_listing import Wanted, page_of
from gateway.job_removal import PAGE_JOBS, remove
from gateway.job_view import ID
from gateway.page_tokens import TOKEN_EXAMPLE
from gateway.routes.job_results import BODY, sent, streamed
from gateway.routes.jobs import ENDED, JobEnded
from workers import jobs
from workers.drafts import CHUNK
from workers.errors import JobNotFound
from workers.tables import Job

log = logging.getLogger(__name__)

router = APIRouter(prefix="/admin", tags=["Jobs of all clients"])

Admin = Annotated[Caller, Depends(Require(Scope.JOBS_ADMIN))]
Reader = Annotated[Caller, Depends(Require(Scope.JOBS_CONTENTS))]
Writing = Annotated[Session, Depends(open_session, scope="function")]
Reading = Annotated[Session, Depends(read_session, scope="function")]
JobId = Annotated[str, Path(description="The job's id.", examples=["Zk0o3rVxQ1uYt5pWc8sLd2Ea"])]
NOT_FOUND: dict[int | str, dict[str, Any]] = {404: {"description": "There is no such job."}}


class Asked(Chosen):
    """Which jobs to list; what is left out may be anything."""

    state: jobs.JobState | None = None
    kind: Literal["prediction", "file"] | None = None
    dead: Annotated[bool | None, Field(description="Dead letters only, or none of them.")] = None
    limit: Annotated[int, Field(ge=1, le=MOST_LISTED)] = 20


class Deleted(BaseModel):
    """How many jobs are gone; a `next_page_token` says to ask again with it, since there may be more."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"deleted": 500, "next_page_token": TOKEN_EXAMPLE}]})

    deleted: int
    next_page_token: str | None


@router.get("/jobs", summary="List jobs of all clients, newest first")
def list_all_jobs(admin: Admin, session: Reading, pages: Pages, asked: Annotated[Asked, Query()]) -> AdminJobs:  # noqa: ARG001 - asking is the check
    wanted = replace(asked.wanted(), state=asked.state, kind=asked.kind, dead=asked.dead)
    page = page_of(session, pages, wanted, asked.limit, asked.page_token)
    return AdminJobs(jobs=[shown(job) for job in page.jobs], next_page_token=page.next_page_token)


@router.get("/jobs/{job_id}", summary="Look at a job of any client", responses=NOT_FOUND)
def show_any_job(admin: Admin, session: Reading, job_id: JobId) -> AdminJob:  # noqa: ARG001 - asking is the check
    return shown(find_any(session, job_id))


@router.post("/jobs/{job_id}/cancel", summary="Cancel a job of any client", responses=NOT_FOUND | ENDED)
def cancel_any_job(
    request: Request, afterwards: BackgroundTasks, admin: Admin, session: Writing, job_id: JobId
) -> AdminJob:
    """As its client would. 409 where it has ended already."""
    job = find_any(session, job_id)
    note(request, client_id=job.client_id, model=job.model, version=job.version)
    if cancel(parts(request), session, job, afterwards, reason=BY_ADMINISTRATOR) is None:
        raise JobEnded(f"the job is {find_any(session, job_id).state} already")
    log.info("job %s of %s canceled by %s", job_id, job.client_id, admin.client_id)
    return shown(find_any(session, job_id))


@router.delete("/jobs/{job_id}", status_code=204, summary="Delete a job of any client", responses=NOT_FOUND)
def delete_any_job(request: Request, admin: Admin, session: Writing, job_id: JobId) -> Response:
    """Nothing of it remains: neither row nor input nor result."""
    job = find_any(session, job_id)
    note(request, client_id=job.client_id, model=job.model, version=job.version)
    log.info("job %s of %s deleted by %s", job_id, job.client_id, admin.client_id)
    return Response(status_code=204, background=remove(parts(request), session, [job]))


@router.delete("/clients/{client_id}/jobs", summary="Delete a client's jobs")
def delete_jobs_of_client(
    request: Request,
    afterwards: BackgroundTasks,
    admin: Admin,
    session: Writing,
    pages: Pages,
    client_id: Annotated[ClientId, Path(description="The client's id: `cli_…`.")],
    page_token: Annotated[str | None, Query(max_length=64, description="From the answer before.")] = None,
) -> Deleted:
    """The newest 500 at most, whatever their state; also those of a client that is deleted."""
    page = page_of(session, pages, Wanted(client_id=client_id), PAGE_JOBS, page_token)
    remove(parts(request), session, page.jobs, afterwards)
    note(request, deleted=len(page.jobs))
    log.info("%d jobs of %s deleted by %s", len(page.jobs), client_id, admin.client_id)
    return Deleted(deleted=len(page.jobs), next_page_token=page.next_page_token)


@router.get("/jobs/{job_id}/input", summary="Read the input of any job", responses=NOT_FOUND | BODY)
def read_job_input(request: Request, reader: Reader, session: Writing, job_id: JobId) -> Response:
    """The body as its client sent it. Each reading is an entry of the audit log."""
    job = _noted(request, session, job_id)
    log.info("the input of job %s of %s read by %s", job_id, job.client_id, reader.client_id)
    return streamed(parts(request).results.opened_input(session, job))


@router.get("/jobs/{job_id}/result", summary="Read the result of any job", responses=NOT_FOUND | BODY | ENDED)
def read_job_result(request: Request, reader: Reader, session: Writing, job_id: JobId) -> Response:
    """The answer as its client gets it. Each reading is an entry of the audit log."""
    job = _noted(request, session, job_id)
    log.info("the result of job %s of %s read by %s", job_id, job.client_id, reader.client_id)
    return sent(parts(request).results, session, job)


def find_any(session: Session, job_id: str) -> Job:
    """The job of whichever client; raises JobNotFound."""
    wanted = job_id if ID.fullmatch(job_id) else ""
    job = session.scalars(select(Job).where(Job.id == wanted, Job.kind != CHUNK)).one_or_none()
    if job is None:
        raise JobNotFound("there is no such job, or not any more")
    return job


def _noted(request: Request, session: Session, job_id: str) -> Job:
    job = find_any(session, job_id)
    note(request, client_id=job.client_id, model=job.model, version=job.version)
    return job
