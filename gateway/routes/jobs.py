"""Asynchronous jobs: look, wait, cancel, forget. A job exists for the client that made it and for nobody else."""

from __future__ import annotations

import json
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from sqlalchemy import Select, and_, select
from sqlalchemy.orm import Session
from starlette.background import BackgroundTask

from auth.scopes import Scope
from gateway.admission import Caller
from gateway.cancellations import cancel
from gateway.dependencies import Pages, Require, open_session, parts, read_session
from gateway.job_view import JobView, find, job_document, view, wait_for_end
from model_store.errors import SluiceError
from model_store.registry import NAME
from workers import jobs
from workers.drafts import FILE
from workers.files.keeping import batches_of
from workers.tables import Job

router = APIRouter(prefix="/v1/jobs", tags=["Jobs"])

MOST_LISTED = 100
LONGEST_WAIT_SECONDS = 60.0

EXAMPLE = {
    "id": "Zk0o3rVxQ1uYt5pWc8sLd2Ea",
    "model": "mnist",
    "version": "1",
    "state": "succeeded",
    "priority": "bulk",
    "created_at": "2026-01-02T03:04:05.006Z",
    "started_at": "2026-01-02T03:04:05.010Z",
    "finished_at": "2026-01-02T03:04:05.013Z",
    "attempts": 1,
    "queue_position": None,
    "jobs_ahead": None,
    "estimated_wait_seconds": None,
    "estimated_start_at": None,
    "progress": {"done": 1, "total": 1},
    "error": None,
    "predictions": [[0.01, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.98, 0.0, 0.01]],
}
Responses = dict[int | str, dict[str, Any]]

CONFLICT = {
    "type": "about:blank",
    "title": "Job ended",
    "status": 409,
    "code": "job_ended",
    "detail": "the job is succeeded already",
}
ANSWER: Responses = {200: {"content": {"application/json": {"example": EXAMPLE}}}}
ENDED: Responses = {
    409: {"description": "Too late or too early", "content": {"application/problem+json": {"example": CONFLICT}}}
}

# Whoever may submit may see what became of it.
SIGHT = Require(Scope.JOBS, Scope.PREDICT)
Own = Annotated[Caller, Depends(SIGHT)]
Writing = Annotated[Session, Depends(open_session, scope="function")]
Reading = Annotated[Session, Depends(read_session, scope="function")]


class JobEnded(SluiceError):
    status = 409
    code = "job_ended"


class JobNotEnded(SluiceError):
    status = 409
    code = "job_not_ended"


@router.get("/{job_id}", summary="Look at a job, or wait for its end", responses=ANSWER)
async def get_job(
    request: Request,
    caller: Own,
    job_id: str,
    wait: Annotated[float, Query(ge=0, le=LONGEST_WAIT_SECONDS, description="Seconds to wait for a final state.")] = 0,
) -> Response:
    """The job's state, and its result once it succeeded."""
    found = await wait_for_end(parts(request), job_id, caller.client_id, wait)
    if wait:
        # A minute at most, in which the right to see the result may have been withdrawn.
        SIGHT.require(request, parts(request).admission.renewed(caller))
    return _answer(found)


@router.get("", summary="List this client's jobs, newest first")
def list_jobs(
    caller: Own,
    session: Reading,
    pages: Pages,
    model: Annotated[str | None, Query(pattern=f"^{NAME.pattern}$")] = None,
    state: jobs.JobState | None = None,
    limit: Annotated[int, Query(ge=1, le=MOST_LISTED)] = 20,
    page_token: Annotated[str | None, Query(max_length=64, description="From the page before.")] = None,
) -> Response:
    """Without results; `next_page_token` is null on the last page."""
    query = newest_first(caller.client_id).where(Job.number < pages.below(page_token)).limit(limit + 1)
    if model is not None:
        query = query.where(Job.model == model)
    if state is not None:
        query = query.where(Job.state == state)
    rows = session.scalars(query).all()
    batches = batches_of(session, [job.number for job in rows if job.kind == FILE])
    shown = [JobView(job, None, None, batch=batches.get(job.number)) for job in rows[:limit]]
    documents = [json.loads(job_document(one)) for one in shown]
    after = pages.make(rows[limit - 1].number) if len(rows) > limit else None
    return Response(json.dumps({"jobs": documents, "next_page_token": after}), media_type="application/json")


@router.post("/{job_id}/cancel", summary="Cancel a job that has not ended", responses=ANSWER | ENDED)
def cancel_job(request: Request, caller: Own, session: Writing, job_id: str) -> Response:
    """A queued job never runs; a running one's result is dropped. 409 where the job has ended already."""
    job = find(session, job_id, caller.client_id)
    afterwards = cancel(parts(request), session, job)
    if afterwards is None:
        raise JobEnded(f"the job is {find(session, job_id, caller.client_id).state} already")
    return _answer(view(session, parts(request).results, job_id, caller.client_id), afterwards)


def newest_first(client_id: str) -> Select[Job]:
    """A client's jobs. A range of one, as in workers/job_statements.py: only the index of clients gives this order."""
    # The chunks of a file are nobody's to see.
    own = and_(Job.client_id.between(client_id, client_id), Job.parent.is_(None))
    return select(Job).where(own).order_by(Job.client_id.desc(), Job.number.desc())


def _answer(found: JobView, afterwards: BackgroundTask | None = None) -> Response:
    return Response(
        job_document(found), media_type="application/json", headers=_headers(found.job), background=afterwards
    )


def _headers(job: Job) -> dict[str, str]:
    return {"Cache-Control": "no-store", "Sluice-Model-Version": str(job.version)}
