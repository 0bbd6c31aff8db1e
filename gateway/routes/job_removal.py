"""Deleting jobs: nothing of them remains, neither row nor input nor result, wherever these lay."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse

from gateway.dependencies import parts
from gateway.job_listing import Wanted, page_of
from gateway.job_removal import PAGE_JOBS, remove
from gateway.job_view import find
from gateway.moments import Moment
from gateway.page_tokens import TOKEN_EXAMPLE
from gateway.routes.jobs import Own, Writing
from model_store.errors import SluiceError
from model_store.registry import NAME
from workers import jobs

router = APIRouter(prefix="/v1/jobs", tags=["Jobs"])

DELETED: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/json": {"example": {"deleted": 500, "next_page_token": TOKEN_EXAMPLE}}}}
}


class NothingChosen(SluiceError):
    """A request that would delete everything by leaving a word out."""

    status = 400
    code = "nothing_chosen"


@router.delete("/{job_id}", status_code=204, summary="Cancel and forget a job")
def delete_job(request: Request, caller: Own, session: Writing, job_id: str) -> Response:
    """Its row, its input and its result are gone at once; of one that runs, whatever is still written is deleted."""
    job = find(session, job_id, caller.client_id)
    return Response(status_code=204, background=remove(parts(request), session, [job]))


@router.delete("", summary="Delete many of one's own jobs", responses=DELETED)
def delete_jobs(
    request: Request,
    caller: Own,
    session: Writing,
    state: Annotated[jobs.JobState | None, Query(description="Only those in this state.")] = None,
    model: Annotated[str | None, Query(pattern=f"^{NAME.pattern}$", description="Only those of this model.")] = None,
    before: Annotated[Moment | None, Query(description="Only those that ended before this moment.")] = None,
    page_token: Annotated[str | None, Query(max_length=64, description="From the answer before.")] = None,
) -> Response:
    """Of those chosen, the newest 500 at most; ask again with `next_page_token`. At least one choice is needed."""
    if state is None and model is None and before is None:
        raise NothingChosen("choose by state, model or before; state=succeeded is every job that succeeded")
    wanted = Wanted(client_id=caller.client_id, state=state, model=model, before=before)
    found = page_of(session, parts(request).pages, wanted, PAGE_JOBS, page_token)
    afterwards = remove(parts(request), session, found.jobs)
    answer = {"deleted": len(found.jobs), "next_page_token": found.next_page_token}
    return JSONResponse(answer, background=afterwards)
