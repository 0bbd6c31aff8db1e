"""OpenAI's batches (openapi.yaml, /batches): another face of the jobs that read files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

from anyio.to_thread import run_sync
from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse
from sqlalchemy import select
from sqlalchemy.orm import Session

from gateway.admission import Caller
from gateway.cancellations import cancel
from gateway.dependencies import TokenFirst, parts
from gateway.file_jobs import FileSubmit, accept_file_job, rows_of
from gateway.job_view import find
from gateway.openai_objects import BATCH_PREFIX, BatchAsked, BatchesPage, BatchShown, show_batch
from gateway.parts import Parts
from gateway.prediction_addresses import Address, parse_path
from gateway.routes.openai_files import FORMAT, Own, Reading, Submitter, Writing
from gateway.submit_options import read_submit_options
from model_store.database import transaction
from model_store.errors import SluiceError
from workers.errors import JobNotFound
from workers.files.keeping import BATCH_INPUT, BATCH_OUTPUT, FileNotFound, find_file
from workers.files.tables import Batch, File
from workers.protocols.body import Dialect
from workers.tables import Job

router = APIRouter(prefix="/v1/batches", tags=["OpenAI Batch"], route_class=TokenFirst)

WINDOW_SECONDS = 24 * 3600.0
MOST_LISTED = 100
CREATED: dict[int | str, dict[str, Any]] = {
    404: {"description": "There is no such file, or no such model for this caller."},
    429: {"description": "Too many files of this client wait, or its limits are reached."},
}
ENDED: dict[int | str, dict[str, Any]] = {409: {"description": "The batch has ended already."}}


class BatchNotFound(SluiceError):
    status = 404
    code = "batch_not_found"


class BatchEnded(SluiceError):
    status = 409
    code = "batch_ended"


class EndpointInvalid(SluiceError):
    status = 400
    code = "invalid_endpoint"


@dataclass(frozen=True, slots=True)
class Found:
    """A batch with its job."""

    job: Job
    batch: Batch

    @property
    def shown(self) -> BatchShown:
        return show_batch(self.job, self.batch)


@router.post(
    "",
    summary="Answer every request of a file",
    description=(
        "Each line of the file is a request: `custom_id`, `method` (`POST`), `url` (the `endpoint`), `body` (as the "
        "endpoint takes it). The file is checked as a whole, then read at bulk priority; the same job is told by "
        "`GET /v1/jobs/{id}`, whose id is the batch's without `batch_`. The headers of a submit count "
        "(`Idempotency-Key`, `Sluice-Deadline`, …)."
    ),
    responses=CREATED,
)
async def create_batch(request: Request, caller: Submitter, asked: BatchAsked) -> BatchShown:
    used, address = parts(request), _address(asked.endpoint)
    options = read_submit_options(request.scope["headers"], used.snapshot.now_ms)
    if options.deadline_seconds is None:
        options = replace(options, deadline_seconds=WINDOW_SECONDS)
    found = used.admission.found(
        caller, "submit", address.model, address.version, address.label, request.scope["headers"]
    )
    file = await run_sync(_input, used, caller.client_id, asked.input_file_id)
    notes = None if asked.metadata is None else json.dumps(asked.metadata)
    submit = FileSubmit(
        address.model, found, caller, file, options, owns=False, asked=(asked.endpoint, notes),
        endpoint=asked.endpoint, notes=notes,
    )  # fmt: skip
    with used.limits.visit(caller.rights, address.model) as visit:
        if not visit.take():
            await visit.wait()
        rows = await rows_of(used, address.model, found.version, file) or 0
        with visit.submitting(rows):
            accepted = await accept_file_job(used, submit, rows)
        if accepted.replayed:
            visit.answered(-rows)
    return await run_sync(_shown, used, caller, BATCH_PREFIX + accepted.id)


@router.get(
    "",
    summary="List batches, the newest first",
    responses={404: {"description": "There is no batch of the id in `after`."}},
)
def list_batches(
    caller: Own,
    session: Reading,
    after: Annotated[str | None, Query(max_length=64, description="`last_id` of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=MOST_LISTED)] = 20,
) -> BatchesPage:
    found = _page(session, caller.client_id, limit + 1, after)
    shown = [one.shown for one in found[:limit]]
    ends = (shown[0].id, shown[-1].id) if shown else (None, None)
    return BatchesPage(data=shown, first_id=ends[0], last_id=ends[1], has_more=len(found) > limit)


@router.get("/{batch_id}", summary="Look at a batch")
def get_batch(caller: Own, session: Reading, batch_id: str) -> BatchShown:
    return _find(session, batch_id, caller.client_id).shown


@router.post("/{batch_id}/cancel", summary="Cancel a batch", responses=ENDED, response_model=BatchShown)
def cancel_batch(request: Request, caller: Own, session: Writing, batch_id: str) -> JSONResponse:
    """At once: it is never `cancelling`. What was answered before can be read."""
    found = _find(session, batch_id, caller.client_id)
    afterwards = cancel(parts(request), session, found.job)
    if afterwards is None:
        raise BatchEnded(f"the batch has ended: it is {_find(session, batch_id, caller.client_id).shown.status}")
    shown = _find(session, batch_id, caller.client_id).shown
    return JSONResponse(shown.model_dump(), background=afterwards)


def _address(endpoint: str) -> Address:
    """The model that an endpoint names; raises EndpointInvalid."""
    address = parse_path(endpoint)
    if address is None or address.submits or address.dialect != Dialect.TENSORFLOW_SERVING:
        raise EndpointInvalid("the endpoint is the address of predictions, such as /v1/models/mnist:predict")
    return address


def _input(used: Parts, client_id: str, file_id: str) -> File:
    with transaction(used.sessions, write=False) as session:
        file = find_file(session, file_id, client_id)
        if (file.purpose, file.format) != (BATCH_INPUT, FORMAT):
            raise FileNotFound("there is no such file of the purpose `batch`")
        session.expunge(file)
        return file


def _find(session: Session, batch_id: str, client_id: str) -> Found:
    """The client's batch; raises BatchNotFound alike for an unknown, a purged and a stranger's id."""
    try:
        job = find(session, batch_id.removeprefix(BATCH_PREFIX), client_id)
    except JobNotFound:
        raise BatchNotFound("there is no such batch, or not any more") from None
    batch = session.get(Batch, job.number, populate_existing=True)
    if batch is None or batch.endpoint is None or not batch_id.startswith(BATCH_PREFIX):
        raise BatchNotFound("there is no such batch, or not any more")
    return Found(job, batch)


def _page(session: Session, client_id: str, limit: int, after: str | None) -> Sequence[Found]:
    """Found by their files of answers: those have an index of clients, and there are few of them beside other jobs."""
    query = (
        select(Job, Batch)
        .join(Batch, Batch.job == Job.number)
        .join(File, File.id == Batch.output_file)
        .where(File.client_id == client_id, File.purpose == BATCH_OUTPUT)
    )
    if after is not None:
        last = _find(session, after, client_id)
        query = query.where(Job.number < last.job.number)
    rows = session.execute(query.order_by(Job.number.desc()).limit(limit)).all()
    return [Found(job, batch) for job, batch in rows]


def _shown(used: Parts, caller: Caller, batch_id: str) -> BatchShown:
    with transaction(used.sessions, write=False) as session:
        return _find(session, batch_id, caller.client_id).shown
