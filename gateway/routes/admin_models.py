"""Administration of models: uploading versions, following their preparation, labels, retiring and deleting."""

from __future__ import annotations

import contextlib
import logging
from typing import Annotated, Any

from anyio.to_thread import run_sync
from fastapi import APIRouter, BackgroundTasks, Depends, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from auth.scopes import Scope
from gateway import model_views
from gateway.admission import Caller
from gateway.dependencies import Require, TokenFirst, open_session, parts, read_session
from gateway.model_views import ModelShown, ModelsPage, PreparationShown, VersionShown
from gateway.parts import Parts
from gateway.uploads import Format, Upload, receive
from model_store import listing, registry
from model_store.errors import DatabaseUnavailable, VersionInUse
from model_store.registry import NAME, check_name
from model_store.sweep import sweep
from model_store.tables import State
from workers import waiting
from workers.preparation import schedule
from workers.tables import Preparation

log = logging.getLogger(__name__)

NAME_PATTERN = f"^{NAME.pattern}$"
# PostgreSQL refuses a NUL in a text with an error of its own.
WITHOUT_NUL = r"^[^\x00]*$"
HIGHEST_VERSION = 2**31 - 1

router = APIRouter(prefix="/admin/models", tags=["Models"], route_class=TokenFirst)

Admin = Annotated[Caller, Depends(Require(Scope.MODELS_WRITE))]
Writing = Annotated[Session, Depends(open_session, scope="function")]
Reading = Annotated[Session, Depends(read_session, scope="function")]
ModelName = Annotated[str, Path(pattern=WITHOUT_NUL, description="The model's name.", examples=["mnist"])]
Number = Annotated[int, Path(ge=1, le=HIGHEST_VERSION, description="The version's number.", examples=[1])]
LabelName = Annotated[str, Path(pattern=WITHOUT_NUL, description="The label's name.", examples=["stable"])]

NOT_FOUND: dict[int | str, dict[str, Any]] = {404: {"description": "There is no such model or version."}}
IN_USE: dict[int | str, dict[str, Any]] = {
    409: {"description": "Something still uses the version; `detail` says what."}
}


class Accepted(BaseModel):
    """A version whose file is in the store; `location` shows how its preparation goes."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": "mnist",
                    "version": 1,
                    "state": "START",
                    "preparation": {"step": "receive", "attempt": 0, "done": False},
                    "location": "/admin/models/mnist/versions/1",
                }
            ]
        }
    )

    model: str
    version: int
    state: State
    preparation: PreparationShown | None
    location: str


class LabelBody(BaseModel):
    """Where a label is to point."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"version": 1}]})

    version: int = Field(ge=1, le=HIGHEST_VERSION, description="An AVAILABLE version.")


class LabelShown(BaseModel):
    """Where a label points."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"model": "mnist", "label": "stable", "version": 1}]})

    model: str
    label: str
    version: int


UPLOAD: dict[str, Any] = {
    "status_code": 202,
    "summary": "Upload a new version",
    "description": (
        "The body is the file itself, or a form with the file as its only part. PUT and POST do the same, since"
        " `curl -T` sends PUT:\n\n"
        '    curl -T mnist.keras -H "Authorization: Bearer $TOKEN" '
        "http://127.0.0.1:8080/admin/models/mnist/versions\n"
        '    curl -F file=@mnist.keras -H "Authorization: Bearer $TOKEN" '
        "http://127.0.0.1:8080/admin/models/mnist/versions\n\n"
        "The model is made with its first version; the store numbers versions 1, 2, 3 and so on. Keras archives and"
        " HDF5 files are known by their first bytes; an ONNX model needs `?format=onnx`, or a form whose file name ends"
        " in `.onnx`. The version is then prepared: `location` in the answer shows how far that is, and in the end"
        " either the signature or what was wrong with the file."
    ),
    "responses": {
        200: {"model": Accepted, "description": "The model has a version with the same bytes: this one."},
        202: {"description": "The file is stored and its version waits to be prepared."},
        400: {"description": "The body broke off before the file was complete."},
        413: {"description": "The file is larger than the store takes."},
        415: {"description": "What the file is could not be told."},
        422: {"description": "The name breaks the rule, the file is empty, or the form has other parts."},
        507: {"description": "The store's disk is full; nothing was kept."},
    },
    "openapi_extra": {
        "requestBody": {
            "required": True,
            "content": {
                "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
                "multipart/form-data": {
                    "schema": {
                        "type": "object",
                        "properties": {"file": {"type": "string", "format": "binary"}},
                        "required": ["file"],
                    }
                },
            },
        }
    },
}


@router.put("/{model}/versions", **UPLOAD)
@router.post("/{model}/versions", **UPLOAD)
async def upload_version(
    request: Request,
    response: Response,
    admin: Admin,
    model: ModelName,
    format: Annotated[Format | None, Query(description="What the file is, where it does not say so itself.")] = None,
) -> Accepted:
    check_name(model)
    upload = await receive(request, parts(request).artifacts, format)
    accepted, new = await run_sync(_publish, request, model, upload, admin.client_id)
    if new:
        parts(request).publisher.prepare(model, accepted.version)
        log.info("version %s of model %s uploaded by %s", accepted.version, model, admin.client_id)
    response.status_code = 202 if new else 200
    response.headers["location"] = accepted.location
    return accepted


@router.get("", summary="List models", description="With their versions and labels, in the order of their names.")
def list_models(
    admin: Admin,  # noqa: ARG001 - asking for it is the check
    session: Reading,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    page_token: Annotated[
        str | None, Query(pattern=NAME_PATTERN, description="`next_page_token` of the page before.")
    ] = None,
) -> ModelsPage:
    # One more than asked for tells whether there is a next page.
    found = listing.models_after(session, page_token or "", limit + 1)
    shown = model_views.show_models(session, found[:limit])
    return ModelsPage(models=shown, next_page_token=shown[-1].name if len(found) > limit else None)


@router.get("/{model}", summary="Show a model", responses=NOT_FOUND)
def show_model(admin: Admin, session: Reading, model: ModelName) -> ModelShown:  # noqa: ARG001 - as above
    return model_views.show_models(session, [listing.find_model(session, model)])[0]


@router.get(
    "/{model}/versions/{version}",
    summary="Show a version",
    description="Its file, signature and variants, how far its preparation is, and the preparation report.",
    responses=NOT_FOUND,
)
def show_version(
    request: Request,
    admin: Admin,  # noqa: ARG001 - as above
    session: Reading,
    model: ModelName,
    version: Number,
) -> VersionShown:
    shown = model_views.show_version(session, model, version)
    if shown.state is State.AVAILABLE:
        # Whoever followed the preparation predicts next, and must not be told here that it is not ready.
        parts(request).snapshot.refresh()
    return shown


@router.post(
    "/{model}/versions/{version}/retire",
    summary="Retire a version",
    description=(
        "Takes it out of service for ever; its number and its report stay. A bare model name then means the next lower"
        " AVAILABLE version. Refused while a label points to it. To retire it again changes nothing."
    ),
    responses=NOT_FOUND | IN_USE,
)
def retire_version(admin: Admin, session: Writing, model: ModelName, version: Number) -> VersionShown:
    if registry.retire(session, model, version):
        log.info("version %s of model %s retired by %s", version, model, admin.client_id)
    return model_views.show_version(session, model, version)


@router.delete(
    "/{model}/versions/{version}",
    status_code=204,
    summary="Delete a version",
    description=(
        "Forgets a version in state END: retire it first. Its number is not used again. Its bytes leave the store with"
        " it, or a day after they were written where that is later. Refused while jobs for it wait or run."
    ),
    responses=NOT_FOUND | IN_USE,
)
def delete_version(
    request: Request,
    admin: Admin,
    session: Writing,
    model: ModelName,
    version: Number,
    afterwards: BackgroundTasks,
) -> None:
    _require_no_jobs(session, model, version)
    registry.delete_version(session, model, version)
    log.info("version %s of model %s deleted by %s", version, model, admin.client_id)
    # Only after the commit, which background tasks follow: a row must never name bytes that are gone.
    afterwards.add_task(_sweep, parts(request))


@router.put(
    "/{model}/labels/{label}",
    summary="Point a label to a version",
    description="Makes or moves the label; callers that use it get the new version within a second.",
    responses=NOT_FOUND | {409: {"description": "The version is not AVAILABLE."}},
)
def put_label(admin: Admin, session: Writing, model: ModelName, label: LabelName, body: LabelBody) -> LabelShown:
    registry.set_label(session, model, label, body.version)
    log.info("label %s of model %s points to version %s, by %s", label, model, body.version, admin.client_id)
    return LabelShown(model=model, label=label, version=body.version)


@router.delete(
    "/{model}/labels/{label}",
    status_code=204,
    summary="Delete a label",
    responses={404: {"description": "There is no such label."}},
)
def delete_label(admin: Admin, session: Writing, model: ModelName, label: LabelName) -> None:
    registry.delete_label(session, model, label)
    log.info("label %s of model %s deleted by %s", label, model, admin.client_id)


def _publish(request: Request, model: str, upload: Upload, client_id: str) -> tuple[Accepted, bool]:
    # A transaction of its own, not the request's: on SQLite that would lock out every writer while the file comes in.
    with contextlib.contextmanager(open_session)(request) as session:
        version, new = registry.publish(
            session,
            model,
            format=upload.format.value,
            digest=upload.stored.digest,
            size_bytes=upload.stored.size_bytes,
            uploaded_by=client_id,
        )
        if new:
            schedule.create(session, model, version.number)
            session.flush()
        preparation = session.get(Preparation, (model, version.number))
        accepted = Accepted(
            model=model,
            version=version.number,
            state=State(version.state),
            preparation=None if preparation is None else model_views.show_preparation(preparation),
            location=f"/admin/models/{model}/versions/{version.number}",
        )
    return accepted, new


def _sweep(parts: Parts) -> None:
    # What is left now is taken by the next sweep.
    with contextlib.suppress(DatabaseUnavailable):
        sweep(parts.sessions, parts.artifacts)


def _require_no_jobs(session: Session, model: str, version: int) -> None:
    if waiting.unfinished(session, model, version):
        raise VersionInUse(f"jobs for version {version} wait or run; try again when they have ended")
