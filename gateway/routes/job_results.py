"""Results and receipts: a job's bare answer, the same by an address of its own, and what proves it."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse, StreamingResponse
from sqlalchemy import select
from sqlalchemy.orm import Session

from gateway.dependencies import parts
from gateway.job_results import JobResults, OpenResult
from gateway.job_view import find
from gateway.result_addresses import PATH, ResultNotFound
from gateway.routes.jobs import ENDED, JobEnded, JobNotEnded, Own, Reading
from model_store.database import transaction
from model_store.errors import SluiceError
from workers import jobs
from workers.tables import Job

router = APIRouter(tags=["Jobs"])

RECEIPT_KEYS_PATH = "/.well-known/receipt-keys.json"
CACHE_PUBLIC = {"cache-control": "public, max-age=300"}
BODY: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The answer, in the dialect of the request.",
        "content": {
            "application/json": {"example": {"predictions": [[0.98, 0.02]]}},
            "application/octet-stream": {},
            "application/jsonl": {},
        },
    }
}
RECEIPT: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "A compact JWS.",
        "content": {"application/jwt": {"example": "eyJhbGciOi….eyJpc3MiOi….MEUCIQ…"}},
    }
}
ADDRESS: dict[int | str, dict[str, Any]] = {
    404: {"description": "Nobody signed this address, the result is gone, or its client is disabled."},
    410: {"description": "The address expired: the job's document has a new one."},
}


class ReceiptNotFound(SluiceError):
    status = 404
    code = "receipt_not_found"


@router.get("/v1/jobs/{job_id}/result", summary="The bare answer of a job", responses=BODY | ENDED)
def get_result(
    request: Request,
    caller: Own,
    session: Reading,
    job_id: str,
    partial: Annotated[bool, Query(description="Of a file, the lines that there are, also while it is read.")] = False,
) -> Response:
    """The body that the prediction itself would have answered, in the dialect of its request; large ones are streamed.

    409 while the job has not ended, or where it ended without a result.
    """
    return sent(parts(request).results, session, find(session, job_id, caller.client_id), partial=partial)


@router.get(
    "/v1/jobs/{job_id}/receipt", summary="What proves a result", responses=RECEIPT | ENDED, response_class=Response
)
def get_receipt(request: Request, caller: Own, session: Reading, job_id: str) -> Response:
    """Model, version, digests of what ran, of the input and of the result, and times, signed: a compact JWS.

    `sluice receipt verify` checks it without a gateway. 409 as for the result; 404 for a job of a release that wrote
    no digests.
    """
    job = find(session, job_id, caller.client_id)
    require_success(job)
    receipt = parts(request).results.receipt(job)
    if receipt is None:
        raise ReceiptNotFound("this job ran under a release that made no receipts")
    return PlainTextResponse(receipt, media_type="application/jwt")


@router.get(f"{PATH}{{token}}", summary="A large result by its own address", responses=BODY | ADDRESS)
def get_result_by_address(
    request: Request, token: Annotated[str, Path(description="What `result_url` of a job ends with.")]
) -> Response:
    """Needs no token: the address is signed and expires. The answer is streamed."""
    found = parts(request)
    job_id = found.results.addresses.read(token)
    with transaction(found.sessions, write=False) as session:
        job = session.scalars(select(Job).where(Job.id == job_id)).one_or_none()
        rights = None if job is None else found.snapshot.rights.clients.get(job.client_id)
        if job is None or rights is None or rights.disabled:
            raise ResultNotFound
        opened = found.results.opened(session, job)
    if opened is None:
        raise ResultNotFound
    return streamed(opened)


@router.get(
    RECEIPT_KEYS_PATH,
    summary="Keys that verify receipts",
    description=(
        "A JWK Set of every signing key there ever was, also of those that sign nothing any more: `iat` and `exp` say "
        "between which moments a key signed, `revoked` that it must not be trusted. Keep a copy with your receipts."
    ),
)
async def publish_receipt_keys(request: Request) -> JSONResponse:
    return JSONResponse(parts(request).keys.history, headers=CACHE_PUBLIC)


def sent(results: JobResults, session: Session, job: Job, *, partial: bool = False) -> Response:
    """The result of a job; raises JobNotEnded, JobEnded (409)."""
    opened = results.opened(session, job, partial=partial)
    if opened is None:
        require_success(job)
        raise JobEnded("the job has no result")
    return streamed(opened)


def require_success(job: Job) -> None:
    """Raises JobNotEnded, or JobEnded for one that ended without a result (409)."""
    if job.state not in jobs.FINAL:
        raise JobNotEnded(f"the job is {job.state}; wait with GET /v1/jobs/{job.id}?wait=30")
    if job.state != jobs.JobState.SUCCEEDED:
        reason = f": {job.error_message}" if job.error_message else ""
        raise JobEnded(f"the job is {job.state} and has no result{reason}")


def streamed(opened: OpenResult) -> Response:
    """An answer of any size."""
    # An iterator of bytes runs in a thread, a piece at a time, and only as fast as the caller reads.
    return StreamingResponse(opened.pieces, headers=opened.headers)
