"""Resumable uploads: a version's file in pieces, over as many connections as it takes."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, TypeVar

from anyio.to_thread import run_sync
from fastapi import APIRouter, BackgroundTasks, Header, Path, Query, Request, Response
from sqlalchemy.orm import Session

from gateway.audit_trail import note
from gateway.dependencies import TokenFirst, parts
from gateway.parts import Parts
from gateway.resumable_uploads import (
    UploadShown,
    UploadsShown,
    UploadWanted,
    announced_bytes,
    known_format,
    put_together,
    range_of,
    receive_piece,
    show,
)
from gateway.routes.admin_models import (
    ModelName,
    Reading,
    Uploader,
    Writing,
    published,
)
from gateway.upload_description import UPLOAD, Accepted, UploadAsked
from model_store import partial_uploads
from model_store.database import transaction
from model_store.partial_uploads import Partial
from model_store.receipts import too_large
from model_store.registry import check_name
from model_store.upload_options import UploadOptions
from model_store.upload_signatures import SignatureMissing

log = logging.getLogger(__name__)

T = TypeVar("T")

router = APIRouter(prefix="/admin/models", tags=["Models"], route_class=TokenFirst)

UploadId = Annotated[
    str, Path(pattern="^up_[0-9a-f]{32}$", description="The upload's id.", examples=[f"up_{'9f86d081' * 4}"])
]
MISSING: dict[int | str, dict[str, Any]] = {404: {"description": "There is no such upload of this client."}}
PIECE: dict[str, Any] = {
    "status_code": 202,
    "summary": "Send a piece of an upload",
    "description": (
        "The body is the piece that `Content-Range: bytes FIRST-LAST/SIZE` announces; it begins where the upload has"
        " come to. Bytes are kept as they come, also where the connection breaks. `Content-Range: bytes */SIZE`, with"
        " no body, asks how far it is. The last piece makes the file a version, as an upload in one piece does."
    ),
    "responses": {
        **{status: UPLOAD["responses"][status] for status in (202, 400, 415, 507)},
        200: {"description": "The model has a version with the same bytes, or the upload had become one before."},
        308: {"model": UploadShown, "description": "More is to come: `Range` says what is kept."},
        404: MISSING[404],
        409: {"description": "Another request has gone on with this upload meanwhile."},
        416: {"description": "It is not the piece that the upload goes on with; the message says which is."},
        422: UPLOAD["responses"][422],
        503: {"description": "The file is whole, and another request makes a version of it: ask again."},
    },
    "openapi_extra": {
        "requestBody": {
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        }
    },
}


@router.post(
    "/{model}/uploads",
    status_code=201,
    summary="Begin a resumable upload",
    description=(
        "For large files: `location` takes the pieces. What is said of the file is said here, as of an upload in one"
        " piece. It expires a day after its last piece, and then nothing of it is left."
    ),
    responses={
        413: UPLOAD["responses"][413],
        422: UPLOAD["responses"][422],
        429: {"description": "16 uploads of this client are unfinished."},
    },
)
def begin_upload(  # noqa: PLR0913 - what FastAPI is to pass
    request: Request,
    response: Response,
    admin: Uploader,
    session: Writing,
    model: ModelName,
    asked: Annotated[UploadAsked, Query()],
    body: UploadWanted,
    signature: Annotated[
        str | None,
        Header(
            alias="sluice-signature",
            max_length=255,
            description="By an upload key, as `sluice models push --sign-with` makes it.",
            examples=[f"kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k.{'A' * 86}"],
        ),
    ] = None,
) -> UploadShown:
    check_name(model)
    if signature is None and parts(request).settings.upload_signatures == "required":
        raise SignatureMissing("uploads must be signed here: `sluice models push --sign-with KEY`")
    UploadOptions.parse(asked.signature, asked.inputs)
    if body.size_bytes > parts(request).artifacts.limit_bytes:
        raise too_large(parts(request).artifacts.limit_bytes)
    begun = partial_uploads.begin(
        session, model, admin.client_id, body.size_bytes, asked=asked.model_dump_json(), signature=signature
    )
    note(request, upload=begun.id)
    response.headers["location"] = f"/admin/models/{model}/uploads/{begun.id}"
    return show(begun)


@router.get(
    "/{model}/uploads",
    summary="List unfinished uploads",
    description="One's own uploads of this model that may still go on, what came last first; at most 16.",
)
def list_uploads(admin: Uploader, session: Reading, model: ModelName) -> UploadsShown:
    check_name(model)
    found = partial_uploads.unfinished(session, model, admin.client_id)
    return UploadsShown(uploads=[show(upload) for upload in found])


@router.put("/{model}/uploads/{upload_id}", response_model=Accepted | UploadShown, **PIECE)
async def send_piece(
    request: Request,
    response: Response,
    admin: Uploader,
    model: ModelName,
    upload_id: UploadId,
    content_range: Annotated[
        str | None, Header(description="Which bytes come.", examples=["bytes */104857600"])
    ] = None,
) -> Accepted | UploadShown:
    used = parts(request)
    place = (upload_id, model, admin.client_id)
    upload = await _within(used, lambda session: partial_uploads.find(session, *place))
    length = announced_bytes(content_range, upload)
    asked = UploadAsked.model_validate_json(upload.asked)
    if length:
        upload = await _within(used, lambda session: partial_uploads.take_on(session, *place))
        announced_bytes(content_range, upload)
        check = partial(known_format, format=asked.format, allowed=used.settings.upload_formats)
        upload = await receive_piece(request, used, upload, length, check)
    if not upload.whole:
        response.status_code = 308
        response.headers.update(range_of(upload))
        return show(upload)
    with used.assembling.one(upload_id):
        # Another request may have come to the end of it since.
        upload = await _within(used, lambda session: partial_uploads.find(session, *place))
        if upload.version is not None:
            response.status_code = 200
            return show(upload)
        file = await run_sync(put_together, used.artifacts, upload, asked.format, used.settings.upload_formats)
        options = UploadOptions.parse(asked.signature, asked.inputs)
        accepted = await published(request, response, admin, model, file, options, upload.signature)
        await _finish(used, upload, accepted.version)
        return accepted


@router.get("/{model}/uploads/{upload_id}", summary="Show how far an upload is", responses=MISSING)
def show_upload(admin: Uploader, session: Reading, model: ModelName, upload_id: UploadId) -> UploadShown:
    return show(partial_uploads.find(session, upload_id, model, admin.client_id))


@router.delete(
    "/{model}/uploads/{upload_id}",
    status_code=204,
    summary="Give up an upload",
    description="Nothing of an unfinished one is left; a version that a finished one became stays.",
    responses=MISSING,
)
def delete_upload(
    request: Request,
    admin: Uploader,
    session: Writing,
    model: ModelName,
    upload_id: UploadId,
    afterwards: BackgroundTasks,
) -> None:
    gone = partial_uploads.remove(session, upload_id, model, admin.client_id)
    # Only after the commit, which background tasks follow: a row must never count bytes that are gone.
    afterwards.add_task(partial_uploads.delete_parts, parts(request).artifacts, gone)


async def _within(used: Parts, work: Callable[[Session], T]) -> T:
    """What is done in a transaction of its own: of a request that takes minutes, none may."""

    def run() -> T:
        with transaction(used.sessions) as session:
            return work(session)

    return await run_sync(run)


async def _finish(used: Parts, upload: Partial, version: int) -> None:
    await _within(used, lambda session: partial_uploads.finish(session, upload, version))
    await run_sync(partial_uploads.delete_parts, used.artifacts, upload)
