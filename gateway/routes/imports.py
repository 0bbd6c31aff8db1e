"""Imports of models from the MLflow server that the settings name: asked for here, fetched by a background worker."""

from __future__ import annotations

import json
import logging
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, BackgroundTasks, Depends, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from auth.grants import Action
from auth.scopes import Scope
from auth.upload_authority import UploadAuthority
from gateway.admission import Caller
from gateway.audit_trail import note
from gateway.dependencies import TokenFirst, open_session, parts, read_session
from gateway.model_rights import RequireOnModel
from gateway.session_views import moment
from model_store import imports
from model_store.errors import SluiceError
from model_store.formats import Format, check_allowed
from model_store.imports import ImportState, ModelImport
from model_store.registry import check_name
from model_store.upload_signatures import SignatureMissing
from workers.mlflow import uris

log = logging.getLogger(__name__)

router = APIRouter(prefix="/admin/models", tags=["Models"], route_class=TokenFirst)

Viewer = Annotated[Caller, Depends(RequireOnModel(Scope.MODELS_READ, Action.METADATA, Scope.MODELS_WRITE))]
Uploader = Annotated[Caller, Depends(RequireOnModel(Scope.MODELS_WRITE, Action.UPLOAD))]
Writing = Annotated[Session, Depends(open_session, scope="function")]
Reading = Annotated[Session, Depends(read_session, scope="function")]
# PostgreSQL refuses a NUL in a text with an error of its own.
ModelName = Annotated[str, Path(pattern=r"^[^\x00]*$", description="The model's name.", examples=["mnist"])]
ImportId = Annotated[
    str, Path(pattern=r"^[^\x00]*$", description="The import's id.", examples=["imp_5f0c9a5e6b0f4f1a8f6a4f2f3f8f7c3d"])
]

EXAMPLE: dict[str, Any] = {
    "id": "imp_5f0c9a5e6b0f4f1a8f6a4f2f3f8f7c3d",
    "model": "mnist",
    "uri": "models:/mnist@champion",
    "state": "succeeded",
    "requested_by": "deployer",
    "fetched_bytes": 98304,
    "total_bytes": 98304,
    "version": 4,
    "source": {
        "kind": "mlflow",
        "uri": "models:/mnist@champion",
        "run_id": "8e9063a3019c4ff5b1a59b0136d2dc70",
        "registered_version": "7",
        "model_id": None,
    },
    "error": None,
    "created_at": "2026-11-23T02:36:48.015Z",
    "ended_at": "2026-11-23T02:36:50.270Z",
    "location": "/admin/models/mnist/imports/imp_5f0c9a5e6b0f4f1a8f6a4f2f3f8f7c3d",
}


class ImportsOff(SluiceError):
    """No MLflow server is named, so that there is nothing to import from."""

    status = 409
    code = "imports_off"


class ImportBody(BaseModel):
    """What to import."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"uri": "models:/mnist@champion"}]})

    uri: str = Field(
        max_length=uris.URI_CHARACTERS,
        description=(
            "`models:/NAME/VERSION`, `models:/NAME@ALIAS`, `models:/m-ID` or `runs:/RUN-ID/PATH`, at the MLflow server "
            "that the setting `SLUICE_MLFLOW_URL` names."
        ),
    )


class ImportFailure(BaseModel):
    """Why an import failed."""

    code: str
    message: str


class ImportShown(BaseModel):
    """How far an import is, and what it became."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})

    id: str
    model: str
    uri: str
    state: ImportState
    requested_by: str
    fetched_bytes: int
    total_bytes: int | None = Field(description="What the server says the model has; null until it was asked.")
    version: int | None = Field(description="The version that it became, which is then prepared like any upload.")
    source: dict[str, Any] | None = Field(description="What the URI led to; kept with the version.")
    error: ImportFailure | None
    created_at: datetime
    ended_at: datetime | None
    location: str


class ImportsPage(BaseModel):
    """A model's imports, the newest first."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"imports": [EXAMPLE]}]})

    imports: list[ImportShown]


@router.post(
    "/{model}/imports",
    status_code=202,
    summary="Import a version from MLflow",
    description=(
        "A background worker fetches the model from the MLflow server that the setting `SLUICE_MLFLOW_URL` names, and "
        "uploads it as a version; `location` shows how far that is. The same bytes again are the version that they are."
    ),
    responses={
        409: {"description": "No MLflow server is named: `imports_off`."},
        415: {"description": "The format `mlflow` is not among those that the setting `SLUICE_UPLOAD_FORMATS` names."},
        429: {"description": "Too many imports of this client are unfinished: `too_many_imports`."},
    },
)
def begin_import(
    request: Request,
    response: Response,
    admin: Uploader,
    session: Writing,
    model: ModelName,
    body: ImportBody,
    afterwards: BackgroundTasks,
) -> ImportShown:
    check_name(model)
    settings = parts(request).settings
    if not settings.mlflow_url:
        raise ImportsOff("there are no imports here: the setting SLUICE_MLFLOW_URL names no MLflow server")
    if settings.upload_signatures == "required":
        raise SignatureMissing("uploads must be signed here, which imports are not: fetch, sign and push the model")
    check_allowed(Format.MLFLOW, settings.upload_formats)
    uris.parse(body.uri)
    by = UploadAuthority(admin.client_id, tuple(admin.scopes), admin.revocable, admin.rights.tokens_not_before)
    made = imports.request(session, model, body.uri, admin.client_id, by.to_json())
    note(request, uri=body.uri, import_id=made.id)
    log.info("import of %s as a version of model %s asked for by %s", body.uri, model, admin.client_id)
    # After the commit, which background tasks follow; should the message be lost, the dispatcher sends another one.
    afterwards.add_task(parts(request).publisher.import_model, made.id)
    shown = _shown(made)
    response.headers["location"] = shown.location
    return shown


@router.get(
    "/{model}/imports",
    summary="List a model's imports",
    description="The newest first; those that ended are forgotten after a week.",
)
def list_imports(
    viewer: Viewer,  # noqa: ARG001 - asking is the check
    session: Reading,
    model: ModelName,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> ImportsPage:
    check_name(model)
    return ImportsPage(imports=[_shown(found) for found in imports.latest(session, model, limit)])


@router.get(
    "/{model}/imports/{import_id}",
    summary="Show an import",
    responses={404: {"description": "There is no such import of this model."}},
)
def show_import(viewer: Viewer, session: Reading, model: ModelName, import_id: ImportId) -> ImportShown:  # noqa: ARG001 - as above
    return _shown(imports.find(session, model, import_id))


def _shown(found: ModelImport) -> ImportShown:
    code = found.error_code
    return ImportShown(
        id=found.id,
        model=found.model,
        uri=found.uri,
        state=ImportState(found.state),
        requested_by=found.requested_by,
        fetched_bytes=found.fetched_bytes,
        total_bytes=found.total_bytes,
        version=found.version,
        source=None if found.source is None else json.loads(found.source),
        error=None if code is None else ImportFailure(code=code, message=found.error_message or ""),
        created_at=moment(found.created_at),
        ended_at=None if found.ended_at is None else moment(found.ended_at),
        location=f"/admin/models/{found.model}/imports/{found.id}",
    )
