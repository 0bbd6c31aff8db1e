"""Administration of samples: what static quantisation, comparisons, warming up and model cards use."""

from __future__ import annotations

import contextlib
import logging
from typing import Annotated, Any

from anyio.to_thread import run_sync
from fastapi import APIRouter, Path, Request

from gateway.audit_trail import note
from gateway.dependencies import TokenFirst, open_session, parts, read_session
from gateway.routes.admin_models import NOT_FOUND, UPLOADING, ModelName, Reading, Uploader, Viewer, Writing
from gateway.sample_uploads import SamplesShown, instances_of, newest_signature, receive, show
from model_store import samples
from model_store.listing import find_model
from model_store.receipts import Stored
from model_store.samples import Kind
from model_store.signature import Signature

log = logging.getLogger(__name__)

router = APIRouter(prefix="/admin/models", tags=["Models"], route_class=TokenFirst)

KindOfPath = Annotated[Kind, Path(description="What they are for.", examples=["labelled"])]

PUT: dict[str, Any] = {
    "summary": "Upload samples",
    "description": (
        "The body is a NumPy archive (`numpy.savez`): one array for each input of the newest prepared version, whose"
        " first axis counts the samples. `labelled` has the array `labels` beside them, with the number of each"
        " sample's class. Pickled objects are never read. They replace those of the same kind."
    ),
    "responses": {
        400: {"description": "The archive cannot be read or does not fit the signature, or the body broke off."},
        404: NOT_FOUND[404],
        409: {"description": "No version is prepared yet: what samples must look like is not known."},
        413: {"description": "The archive is larger than 256 MiB."},
        422: {"description": "The body is empty, or there is no such kind."},
        507: {"description": "The store's disk is full; nothing was kept."},
    },
    "openapi_extra": {
        "requestBody": {
            "required": True,
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        }
    },
}
MISSING: dict[int | str, dict[str, Any]] = {404: {"description": "There is no such model, or it has no such samples."}}


@router.put("/{model}/samples/{kind}", **PUT)
async def put_samples(request: Request, admin: Uploader, model: ModelName, kind: KindOfPath) -> SamplesShown:
    artifacts = parts(request).artifacts
    signature = await run_sync(_signature, request, model)
    stored = await receive(request, artifacts)
    instances = await run_sync(instances_of, artifacts, stored.digest, signature, kind)
    # A large archive takes minutes to come in: by now the right may be gone.
    UPLOADING.check_again(request, admin)
    shown = await run_sync(_keep, request, model, kind, stored, instances, admin.client_id)
    log.info("%s samples of model %s uploaded by %s", kind, model, admin.client_id)
    return shown


@router.get("/{model}/samples", summary="List a model's samples", responses=NOT_FOUND)
def list_samples(viewer: Viewer, session: Reading, model: ModelName) -> list[SamplesShown]:  # noqa: ARG001 - asking is the check
    find_model(session, model)
    return [show(row) for row in samples.samples_of(session, model)]


@router.get("/{model}/samples/{kind}", summary="Show a model's samples of one kind", responses=MISSING)
def show_samples(viewer: Viewer, session: Reading, model: ModelName, kind: KindOfPath) -> SamplesShown:  # noqa: ARG001 - asking is the check
    find_model(session, model)
    return show(samples.get(session, model, kind))


@router.delete(
    "/{model}/samples/{kind}",
    status_code=204,
    summary="Delete a model's samples of one kind",
    description="Their bytes leave the store with its next sweep.",
    responses=MISSING,
)
def delete_samples(admin: Uploader, session: Writing, model: ModelName, kind: KindOfPath) -> None:
    find_model(session, model)
    samples.remove(session, model, kind)
    log.info("%s samples of model %s deleted by %s", kind, model, admin.client_id)


def _signature(request: Request, model: str) -> Signature:
    with contextlib.contextmanager(read_session)(request) as session:
        return newest_signature(session, model)


def _keep(request: Request, model: str, kind: Kind, stored: Stored, instances: int, client_id: str) -> SamplesShown:
    # A transaction of its own, not the request's: on SQLite that would lock out every writer while the file comes in.
    with contextlib.contextmanager(open_session)(request) as session:
        note(request, kind=kind.value, digest=stored.digest, instances=instances)
        row = samples.keep(
            session, model, kind,
            digest=stored.digest, size_bytes=stored.size_bytes, instances=instances, uploaded_by=client_id,
        )  # fmt: skip
        return show(row)
