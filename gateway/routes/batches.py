"""Batches: a file of many rows as one job, answered by a file of as many lines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from anyio.to_thread import run_sync
from fastapi import APIRouter, Depends, Path, Query, Request, Response

from auth.scopes import Scope
from gateway.admission import Caller
from gateway.dependencies import Require, parts
from gateway.file_jobs import FileSubmit, accept_file_job, drop, rows_of
from gateway.file_uploads import NewFile, receive_file
from gateway.job_view import job_document, view
from gateway.parts import Parts
from gateway.submit_options import read_submit_options
from model_store.database import transaction
from model_store.errors import FormatUnsupported
from model_store.registry import NAME
from workers.files.formats import name_of
from workers.files.keeping import INPUT, find_file
from workers.files.tables import File

router = APIRouter(prefix="/v1/models", tags=["Predictions"])

Submitter = Annotated[Caller, Depends(Require(Scope.PREDICT))]
ModelName = Annotated[str, Path(pattern=f"^{NAME.pattern}$", description="The model's name.", examples=["mnist"])]
LabelName = Annotated[str, Path(pattern=f"^{NAME.pattern}$", description="The label's name.", examples=["stable"])]
Number = Annotated[int, Path(ge=1, le=999_999_999, description="The version's number.", examples=[1])]

# From its job on, a file goes with that; one whose gateway was killed before goes after this time.
UNCLAIMED_SECONDS = 86_400.0

EXAMPLE = {
    "id": "Zk0o3rVxQ1uYt5pWc8sLd2Ea",
    "model": "mnist",
    "version": "1",
    "state": "queued",
    "priority": "bulk",
    "progress": {
        "done": 0, "total": 1000000, "failed": 0, "rows_per_second": None, "estimated_end_at": None
    },
}  # fmt: skip
ROUTE: dict[str, Any] = {
    "status_code": 202,
    "summary": "Predict every row of a file",
    "description": (
        "The body is the file: JSON Lines, CSV, a NumPy archive, Parquet, or a zip archive of what the version takes: "
        "images, recordings or texts. It is stored as it comes, and read in chunks at bulk priority; "
        "`GET /v1/jobs/{id}` tells how far it is, and `GET /v1/jobs/{id}/result` gives one line of JSON for each row, "
        "in the same order. A row that is wrong gets a line with its error. The headers of a submit count "
        "(`Idempotency-Key`, `Sluice-Deadline`, …)."
    ),
    "responses": {
        202: {"description": "The job.", "content": {"application/json": {"example": EXAMPLE}}},
        400: {"description": "The file cannot be read, or the connection closed before it was complete."},
        413: {"description": "The file, or all files of this client together, would be too large."},
        415: {"description": "What the file is could not be told."},
        429: {"description": "Too many files of this client wait, or its limits are reached."},
        507: {"description": "The store's disk is full; nothing was kept."},
    },
    "openapi_extra": {
        "requestBody": {
            "content": {
                "application/jsonl": {"example": "[1.0, 2.0]\n[3.0, 4.0]\n"},
                "text/csv": {"example": "1.0,2.0\n3.0,4.0\n"},
                "application/x-npz": {"schema": {"type": "string", "format": "binary"}},
            }
        }
    },
}


@dataclass(frozen=True, slots=True)
class Asked:
    """What the query says about the file."""

    format: str | None
    file: str | None


def asked_of(
    format: Annotated[
        str | None, Query(max_length=32, description="What the file is: `jsonl`, `csv`, `npz`, `parquet`, `files`, …")
    ] = None,
    file: Annotated[str | None, Query(max_length=64, description="The id of a file that was uploaded before.")] = None,
) -> Asked:
    return Asked(format, file)


Wanted = Annotated[Asked, Depends(asked_of)]


@router.post("/{model}:batch", **ROUTE)
async def submit_file(request: Request, caller: Submitter, model: ModelName, asked: Wanted) -> Response:
    return await _submit(request, caller, (model, None, None), asked)


@router.post("/{model}/versions/{version}:batch", **ROUTE)
async def submit_file_to_version(
    request: Request, caller: Submitter, model: ModelName, version: Number, asked: Wanted
) -> Response:
    return await _submit(request, caller, (model, version, None), asked)


@router.post("/{model}/labels/{label}:batch", **ROUTE)
async def submit_file_to_label(
    request: Request, caller: Submitter, model: ModelName, label: LabelName, asked: Wanted
) -> Response:
    return await _submit(request, caller, (model, None, label), asked)


async def _submit(
    request: Request, caller: Caller, address: tuple[str, int | None, str | None], asked: Asked
) -> Response:
    used, (model, version, label) = parts(request), address
    options = read_submit_options(request.scope["headers"], used.snapshot.now_ms)
    used.admission.found(caller, "submit", model, version, label)
    with used.limits.visit(caller.rights, model) as visit:
        if not visit.take():
            await visit.wait()
        file = await _file(request, used, caller, asked)
        owns = asked.file is None
        try:
            if owns:
                visit.read(file.size_bytes)
            # A large file takes minutes to come in: what was withdrawn meanwhile is refused.
            caller = used.admission.renewed(caller)
            found = used.admission.found(caller, "submit", model, version, label, request.scope["headers"])
            rows = await rows_of(used, model, found.version, file)
            with visit.submitting(rows or 1):
                submit = FileSubmit(model, found, caller, file, options, owns, address)
                accepted = await accept_file_job(used, submit, rows)
        except BaseException:  # raised on: a caller that leaves cancels this, and its file must not stay either
            if owns:
                await drop(used, file)
            raise
        if accepted.replayed:
            visit.answered(-(rows or 1))
            if owns:
                await drop(used, file)
        headers = {name.decode(): value.decode() for name, value in visit.headers()}
    return await run_sync(_answer, used, caller, accepted.id, accepted.replayed, headers)


async def _file(request: Request, used: Parts, caller: Caller, asked: Asked) -> File:
    """The file that the body is, or the one that was uploaded before."""
    if asked.file is not None:
        found = await run_sync(_find, used, caller.client_id, asked.file)
        if asked.format not in (None, found.format):
            raise FormatUnsupported(f"the file {found.id} is {found.format}")
        return found
    format_name = name_of(asked.format, request.headers.get("content-type", ""), "")
    new = NewFile(caller.client_id, f"input.{format_name}", INPUT, format_name, UNCLAIMED_SECONDS)
    return await receive_file(used, new, request.stream())


def _find(used: Parts, client_id: str, file_id: str) -> File:
    with transaction(used.sessions, write=False) as session:
        return find_file(session, file_id, client_id)


def _answer(used: Parts, caller: Caller, job_id: str, replayed: bool, headers: dict[str, str]) -> Response:
    with transaction(used.sessions, write=False) as session:
        found = view(session, used.results, job_id, caller.client_id)
    told = {**headers, "location": f"/v1/jobs/{job_id}", "sluice-model-version": str(found.job.version)}
    if replayed:
        told["idempotent-replayed"] = "true"
    return Response(job_document(found), 202, told, media_type="application/json")
