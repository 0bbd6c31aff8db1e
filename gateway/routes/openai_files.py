"""OpenAI's files (openapi.yaml, /files), as far as batches need them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

from anyio.to_thread import run_sync
from fastapi import APIRouter, BackgroundTasks, Depends, Query, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from sqlalchemy.orm import Session

from auth.scopes import Scope
from gateway import openai_files
from gateway.admission import Caller
from gateway.dependencies import Require, TokenFirst, open_session, parts, read_session
from gateway.file_uploads import NewFile, receive_file
from gateway.openai_objects import FileDeleted, FileShown, FilesPage
from gateway.parts import Parts
from gateway.uploads import FORM, FormBody, FormInvalid, form_body, has_type
from model_store.database import transaction
from model_store.errors import SluiceError
from model_store.files import delete_file
from workers.files.keeping import BATCH_INPUT, FileInUse, forget_file

router = APIRouter(prefix="/v1/files", tags=["OpenAI Batch"], route_class=TokenFirst)

FORMAT = "openai"
MOST_LISTED = 1000
Submitter = Annotated[Caller, Depends(Require(Scope.PREDICT))]
# Whoever may submit may see what became of it.
Own = Annotated[Caller, Depends(Require(Scope.JOBS, Scope.PREDICT))]
Writing = Annotated[Session, Depends(open_session, scope="function")]
Reading = Annotated[Session, Depends(read_session, scope="function")]

FORM_FIELDS: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["purpose", "file"],
                    "properties": {
                        "purpose": {"type": "string", "enum": [BATCH_INPUT]},
                        "file": {"type": "string", "format": "binary"},
                    },
                }
            }
        },
    }
}
TOO_LARGE: dict[int | str, dict[str, Any]] = {
    413: {"description": "The file, or all files of this client together, would be too large."},
    507: {"description": "The store's disk is full; nothing was kept."},
}
NO_FORM: dict[int | str, dict[str, Any]] = {422: {"description": "The body is not such a form."}}
IN_USE: dict[int | str, dict[str, Any]] = {409: {"description": "A batch that has not ended reads the file."}}
LINES: dict[int | str, dict[str, Any]] = {
    200: {"description": "The file.", "content": {"application/jsonl": {"schema": {"type": "string"}}}}
}


class PurposeUnsupported(SluiceError):
    status = 400
    code = "purpose_unsupported"


@router.post(
    "",
    summary="Upload a file of requests",
    description=(
        "A form with the fields `purpose`, which is `batch`, and `file`: lines as `POST /v1/batches` reads them. It is "
        "streamed into the store."
    ),
    responses=TOO_LARGE | NO_FORM,
    openapi_extra=FORM_FIELDS,
)
async def create_file(request: Request, caller: Submitter) -> FileShown:
    if not has_type(request, FORM):
        raise FormInvalid("send a form with the fields purpose and file (multipart/form-data)")
    body = form_body(request, frozenset({"purpose"}))
    used = parts(request)
    chunks = _checked(body)
    # The file's name is known once its first byte is.
    first = await anext(chunks, b"")
    # PostgreSQL refuses a NUL in a text with an error of its own.
    name = "".join(character for character in body.file_name if character.isprintable())
    new = NewFile(caller.client_id, name, BATCH_INPUT, FORMAT, used.settings.file_keep_seconds)
    file = await receive_file(used, new, _joined(first, chunks))
    return await run_sync(_shown, used, file.id, caller.client_id)


@router.get("", summary="List files", responses={404: {"description": "There is no file of the id in `after`."}})
def list_files(
    caller: Own,
    session: Reading,
    purpose: Annotated[str | None, Query(pattern="^[a-z_-]{1,32}$", description="Only those for this.")] = None,
    limit: Annotated[int, Query(ge=1, le=MOST_LISTED)] = 100,
    after: Annotated[str | None, Query(max_length=64, description="`last_id` of the page before.")] = None,
    order: Literal["asc", "desc"] = "desc",
) -> FilesPage:
    """What was uploaded for batches, and what these answered."""
    found = openai_files.page(session, caller.client_id, purpose, limit + 1, after, newest_first=order == "desc")
    shown = list(found[:limit])
    ends = (shown[0].id, shown[-1].id) if shown else (None, None)
    return FilesPage(data=shown, first_id=ends[0], last_id=ends[1], has_more=len(found) > limit)


@router.get("/{file_id}", summary="Look at a file")
def get_file(caller: Own, session: Reading, file_id: str) -> FileShown:
    return openai_files.find(session, file_id, caller.client_id).shown


@router.get("/{file_id}/content", summary="Read a file", responses=LINES, response_class=Response)
def get_content(request: Request, caller: Own, session: Reading, file_id: str) -> StreamingResponse:
    """Of a batch's answers: those in the order of its lines, also while it runs."""
    found = openai_files.find(session, file_id, caller.client_id)
    session.expunge(found.file)
    pieces = openai_files.content(parts(request).artifacts, found.file, found.failed)
    return StreamingResponse(pieces, media_type="application/jsonl", headers={"content-length": str(found.shown.bytes)})


@router.delete("/{file_id}", summary="Delete a file", responses=IN_USE, response_model=FileDeleted)
def delete(request: Request, caller: Own, session: Writing, file_id: str) -> JSONResponse:
    """The answers of a batch go together: what could not be answered has no deletion of its own."""
    found = openai_files.find(session, file_id, caller.client_id)
    if not found.whole:
        raise FileInUse("delete the batch's output file: these lines go with it")
    afterwards = BackgroundTasks()
    for name in forget_file(session, found.file):
        # After the commit: should that fail, the file is still there and needs its bytes.
        afterwards.add_task(delete_file, parts(request).artifacts, name)
    return JSONResponse(FileDeleted(id=file_id).model_dump(), background=afterwards)


async def _checked(body: FormBody) -> AsyncIterator[bytes]:
    """The file's bytes that are not empty; raises at its end, since fields may come behind it.

    Raises FormInvalid without a file, PurposeUnsupported.
    """
    async for chunk in body.chunks():
        if chunk:
            yield chunk
    if not body.has_file:
        raise FormInvalid("the field `file` is missing: send it with `-F file=@FILE`")
    if "purpose" not in body.fields:
        raise PurposeUnsupported("the field `purpose` is missing: it is `batch`")
    if body.fields.get("purpose") != BATCH_INPUT.encode():
        raise PurposeUnsupported("the field purpose is `batch`: files are for nothing else here")


async def _joined(first: bytes, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for chunk in chunks:
        yield chunk


def _shown(used: Parts, file_id: str, client_id: str) -> FileShown:
    with transaction(used.sessions, write=False) as session:
        return openai_files.find(session, file_id, client_id).shown
