"""Dead letters: jobs that failed by no fault of their own, to be looked at, tried again, or thrown away."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from typing import Annotated, Any

from anyio.to_thread import run_sync
from fastapi import APIRouter, BackgroundTasks, Depends, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt
from sqlalchemy.orm import Session

from auth.grants import HIGHEST_VERSION
from auth.scopes import Scope
from auth.standing import Authority
from gateway.admin_job_views import MOST_LISTED, AdminJob, AdminJobs, Chosen, shown
from gateway.admission import Caller
from gateway.audit_trail import note
from gateway.dependencies import Pages, Require, TokenFirst, parts
from gateway.file_jobs import full_of_files
from gateway.job_listing import page_of
from gateway.job_removal import PAGE_JOBS, remove
from gateway.job_view import find, job_document, view
from gateway.limit_visits import Plan
from gateway.parts import Parts
from gateway.routes.admin_jobs import NOT_FOUND, Admin, Deleted, JobId, Reading, Writing, find_any
from gateway.routes.jobs import EXAMPLE, Responses
from gateway.webhook_terms import is_told
from model_store.database import transaction
from workers import jobs
from workers.drafts import FILE
from workers.errors import QueueFull
from workers.replay import JobInputGone, JobNotDead, JobReplayed, authority_of, require_dead
from workers.replay import replay as accept_again
from workers.tables import Job

log = logging.getLogger(__name__)

router = APIRouter(tags=["Dead letters"], route_class=TokenFirst)

# Each copies an input, which may be as large as a request's body.
MOST_REPLAYED = 100
# Meanwhile nobody else writes to SQLite; the others are for the next page.
REPLAY_SECONDS = 1.0
FULL_SECONDS = 5
Own = Annotated[Caller, Depends(Require(Scope.PREDICT))]
Force = Annotated[bool, Query(description="Also where it was replayed before.")]
NOT_DEAD: dict[int | str, dict[str, Any]] = {409: {"description": "The job is no dead letter (`job_not_dead`)."}}
CONFLICT: dict[int | str, dict[str, Any]] = {
    409: {"description": "No dead letter (`job_not_dead`), replayed before (`job_replayed`), or its input is gone."}
}
LIMITED: Responses = {429: {"description": "Too many jobs or files of this client wait, or its limits are reached."}}
ACCEPTED: Responses = {202: {"content": {"application/json": {"example": EXAMPLE | {"state": "queued"}}}}}


class Asked(Chosen):
    """Which dead letters; what is left out may be anything."""

    replayed: Annotated[bool | None, Field(description="Only those that were replayed, or that were not.")] = None
    limit: Annotated[int, Field(ge=1, le=MOST_LISTED)] = 20


class ChosenInBody(Chosen):
    """As in a query, where all is text; in JSON a number is one."""

    version: Annotated[StrictInt | None, Field(ge=1, le=HIGHEST_VERSION)] = None


class ReplayChosen(ChosenInBody):
    """Which dead letters to replay."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"model": "mnist", "error_code": "worker_crashed"}]}
    )

    force: StrictBool = Field(False, description="Also those that were replayed before.")
    limit: StrictInt = Field(MOST_REPLAYED, ge=1, le=MOST_REPLAYED)


class PurgeChosen(ChosenInBody):
    """Which dead letters to delete."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"before": "2026-01-02T03:04:05Z"}]})


class Replayed(BaseModel):
    """A dead letter and the job that tries it again."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"id": "Zk0o3rVxQ1uYt5pWc8sLd2Ea", "replayed_as": "pWc8sLd2EaZk0o3rVxQ1uYt5"}]}
    )

    id: str
    replayed_as: str


class ReplayedMany(BaseModel):
    """What was replayed, how many could not be, and where the next page begins."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "replayed": [{"id": "Zk0o3rVxQ1uYt5pWc8sLd2Ea", "replayed_as": "pWc8sLd2EaZk0o3rVxQ1uYt5"}],
                    "refused": 0,
                    "next_page_token": None,
                }
            ]
        }
    )

    replayed: list[Replayed]
    refused: int
    next_page_token: str | None


@router.get("/admin/dead-letters", summary="List dead letters, newest first")
def list_dead_letters(admin: Admin, session: Reading, pages: Pages, asked: Annotated[Asked, Query()]) -> AdminJobs:  # noqa: ARG001 - asking is the check
    wanted = replace(asked.wanted(), dead=True, replayed=asked.replayed)
    page = page_of(session, pages, wanted, asked.limit, asked.page_token)
    return AdminJobs(jobs=[shown(job) for job in page.jobs], next_page_token=page.next_page_token)


@router.get("/admin/dead-letters/{job_id}", summary="Inspect a dead letter", responses=NOT_FOUND | NOT_DEAD)
def show_dead_letter(admin: Admin, session: Reading, job_id: JobId) -> AdminJob:  # noqa: ARG001 - asking is the check
    """Attempts, error, digests and sizes; its contents are for `GET /admin/jobs/{id}/input`."""
    return shown(_find(session, job_id))


@router.post("/admin/dead-letters/replay", status_code=202, summary="Replay many dead letters")
def replay_dead_letters(
    request: Request, admin: Admin, session: Writing, pages: Pages, chosen: ReplayChosen
) -> ReplayedMany:
    """The newest of those chosen, 100 at most, fewer where inputs are large; ask again with `next_page_token`."""
    wanted = replace(chosen.wanted(), dead=True, replayed=None if chosen.force else False)
    page = page_of(session, pages, wanted, chosen.limit, chosen.page_token)
    replayed: list[Replayed] = []
    refused, following = 0, page.next_page_token
    until = time.monotonic() + REPLAY_SECONDS
    for job in page.jobs:
        if replayed and time.monotonic() >= until:
            following = pages.make(job.number + 1)
            break
        try:
            replayed.append(_replayed(parts(request), session, job, authority_of(job), force=chosen.force))
        except (JobNotDead, JobReplayed, JobInputGone):
            refused += 1
    note(request, replayed=len(replayed), refused=refused)
    log.info("%d dead letters replayed by %s", len(replayed), admin.client_id)
    return ReplayedMany(replayed=replayed, refused=refused, next_page_token=following)


@router.post("/admin/dead-letters/purge", summary="Delete many dead letters")
def purge_dead_letters(
    request: Request, admin: Admin, session: Writing, pages: Pages, chosen: PurgeChosen, afterwards: BackgroundTasks
) -> Deleted:
    """The newest of those chosen, 500 at most, with their inputs; ask again with `next_page_token` for the others."""
    page = page_of(session, pages, replace(chosen.wanted(), dead=True), PAGE_JOBS, chosen.page_token)
    remove(parts(request), session, page.jobs, afterwards)
    note(request, deleted=len(page.jobs))
    log.info("%d dead letters deleted by %s", len(page.jobs), admin.client_id)
    return Deleted(deleted=len(page.jobs), next_page_token=page.next_page_token)


@router.post(
    "/admin/dead-letters/{job_id}/replay",
    status_code=202,
    summary="Replay a dead letter",
    responses=NOT_FOUND | CONFLICT,
)
def replay_dead_letter(
    request: Request, admin: Admin, session: Writing, job_id: JobId, force: Force = False
) -> Replayed:
    """A new job of the same client with the same input, by the right under which the old one was let in."""
    job = _find(session, job_id)
    made = _replayed(parts(request), session, job, authority_of(job), force=force)
    note(request, client_id=job.client_id, model=job.model, version=job.version, replayed_as=made.replayed_as)
    log.info("job %s of %s replayed as %s by %s", job_id, job.client_id, made.replayed_as, admin.client_id)
    return made


@router.post(
    "/admin/dead-letters/{job_id}/purge",
    status_code=204,
    summary="Delete a dead letter",
    responses=NOT_FOUND | NOT_DEAD,
)
def purge_dead_letter(request: Request, admin: Admin, session: Writing, job_id: JobId) -> Response:
    """With its input; nothing of it remains."""
    job = _find(session, job_id)
    note(request, client_id=job.client_id, model=job.model, version=job.version)
    log.info("dead letter %s of %s deleted by %s", job_id, job.client_id, admin.client_id)
    return Response(status_code=204, background=remove(parts(request), session, [job]))


@router.post(
    "/v1/jobs/{job_id}/replay",
    status_code=202,
    summary="Try a dead job again",
    responses=ACCEPTED | CONFLICT | LIMITED,
)
async def replay_job(request: Request, caller: Own, job_id: str, force: Force = False) -> Response:
    """A new job with the same input, where the old one failed by no fault of its own (`dead_letter` is true).

    It needs what submitting needs, counts as that does but for the bytes, which do not come again, and answers as that
    does. The file of a batch is read again from its first row.
    """
    used = parts(request)
    model, version, instances = await run_sync(_replayable, used, job_id, caller.client_id)
    rule = used.admission.found(caller, "submit", model, version).rule
    authority = Authority(rule.id, caller.token_id, caller.issued_at)
    with used.limits.visit(caller.rights, model) as visit:
        if not visit.take():
            await visit.wait()
        with visit.submitting(max(instances, 1)):
            made, document = await run_sync(_accept, used, job_id, authority, visit.plan, force)
        headers = {name.decode(): value.decode() for name, value in visit.headers()}
    headers |= {"location": f"/v1/jobs/{made}", "cache-control": "no-store"}
    return Response(document, 202, headers, "application/json")


def _replayable(used: Parts, job_id: str, client_id: str) -> tuple[str, int, int]:
    """The model, the version and the instances of a client's dead job."""
    with transaction(used.sessions, write=False) as session:
        job = find(session, job_id, client_id)
        require_dead(job)
        return job.model, job.version, job.instances


def _accept(used: Parts, job_id: str, authority: Authority, plan: Plan, force: bool) -> tuple[str, bytes]:
    """The new job's id and document."""
    client_id = plan.rights.id
    with transaction(used.sessions) as session:
        job = find(session, job_id, client_id)
        _require_room(used, session, job, plan)
        made = _replayed(used, session, job, authority, force=force).replayed_as
        session.flush()
        return made, job_document(view(session, used.results, made, client_id))


def _find(session: Session, job_id: str) -> Job:
    job = find_any(session, job_id)
    if not job.dead:
        raise JobNotDead(f"the job is {job.state} and no dead letter")
    return job


def _replayed(found: Parts, session: Session, job: Job, authority: Authority, *, force: bool) -> Replayed:
    seconds = found.settings.file_seconds if job.kind == FILE else found.settings.job_seconds
    # The addresses that a submit named were its own; endpoints are told of every job of their client.
    notifies = is_told(found.settings, found.snapshot, job.client_id, None)
    made = accept_again(
        session, found.artifacts, job, authority=authority, job_seconds=seconds, notifies=notifies, force=force
    )
    return Replayed(id=job.id, replayed_as=made)


def _require_room(used: Parts, session: Session, job: Job, plan: Plan) -> None:
    """Raises QueueFull (429), as for a submit."""
    if job.kind == FILE:
        full = full_of_files(used, session, job.client_id)
        if full is not None:
            raise full
        return
    most = used.settings.queued_jobs_limit if plan.most_queued is None else plan.most_queued
    for bound, model in ((most, None), (plan.most_queued_of_model, job.model)):
        if bound is not None and jobs.queued_of(session, job.client_id, model) >= bound:
            of_model = "" if model is None else f" for {model}"
            text = f"{bound} jobs of this client{of_model} wait already; try again when some are done"
            raise QueueFull(text, retry_after_seconds=FULL_SECONDS)
