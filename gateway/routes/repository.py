"""The repository extension of the Open Inference Protocol: which versions there are, and models in and out of service.

Sources: docs/protocol/extension_model_repository.md of Triton's server; kserve/protocol/rest/v2_endpoints.py
of KServe, whose clients read the answers to load and unload. There is one repository: a name for it in the path is
taken whatever it is.
"""

from __future__ import annotations

import logging
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request
from pydantic import BaseModel, ConfigDict, Field

from auth.scopes import Scope
from gateway.admission import Caller
from gateway.audit_trail import note
from gateway.dependencies import Require, parts
from gateway.repository_requests import INDEX_BODY, MOVE_BODY, only_ready, repository_body, require_no_files
from gateway.routes.admin_models import NAME_PATTERN, RETIRING, ModelName, Retirer
from gateway.version_moves import reading, warm, writing
from model_store import unloading
from model_store.catalog import CatalogVersion
from model_store.tables import State

log = logging.getLogger(__name__)

# Triton's words for the states of versions.
STATES = {
    State.START: "LOADING",
    State.LOADING: "LOADING",
    State.AVAILABLE: "READY",
    State.UNLOADING: "UNLOADING",
    State.END: "UNAVAILABLE",
}
READY = STATES[State.AVAILABLE]
UNLOADED = "unloaded"

router = APIRouter(prefix="/v2/repository", tags=["Open Inference Protocol"])

KnownCaller = Annotated[Caller, Depends(Require(Scope.MODELS_READ, Scope.PREDICT))]
Body = Annotated[bytes, Depends(repository_body)]
NOT_FOUND: dict[str, Any] = {"description": "There is no such model, or no grant for it."}


def one_repository(
    repo: Annotated[str, Path(pattern=NAME_PATTERN, description="Any: there is one repository.", examples=["models"])],
) -> None:
    """Takes the name of a repository from a path, whatever it is."""


NAMED = [Depends(one_repository)]


class IndexedVersion(BaseModel):
    """A version of a model in the repository."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"name": "mnist", "version": "1", "state": "READY", "reason": ""}]}
    )

    name: str
    version: str
    state: str = Field(description="READY, LOADING (being prepared), UNLOADING, or UNAVAILABLE.")
    reason: str = Field(description="Why it is UNAVAILABLE, else empty.")


class ModelLoaded(BaseModel):
    """That a model is in service."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "mnist", "load": True}]})

    name: str
    load: bool = True


class ModelUnloaded(BaseModel):
    """That a model is out of service."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "mnist", "unload": True}]})

    name: str
    unload: bool = True


INDEX: dict[str, Any] = {
    "summary": "List models and versions as a repository",
    "description": 'Those that this client may see, with their states; `{"ready": true}` leaves those that serve.',
    "openapi_extra": INDEX_BODY,
}
LOAD: dict[str, Any] = {
    "summary": "Bring a model into service",
    "description": (
        "Versions that were unloaded come back, warmed up, as the model's version policy wants them; where all were"
        " retired, the highest. Of a model that serves, a worker loads the version that a bare name means, so that its"
        " first callers need not wait for that. Files and configurations are refused: `/admin/models` takes uploads."
    ),
    "responses": {
        404: NOT_FOUND,
        409: {"description": "Nothing was prepared, it fails on its golden samples, or others moved it meanwhile."},
    },
    "openapi_extra": MOVE_BODY,
}
UNLOAD: dict[str, Any] = {
    "summary": "Take a model out of service",
    "description": (
        "All of its versions leave: UNLOADING while jobs that were submitted to them wait or run, then in END, from"
        " which `load` brings them back. Nothing is deleted. `unload_dependents` changes nothing: no model is made of"
        " others here."
    ),
    "responses": {404: NOT_FOUND, 409: {"description": "Labels, traffic, a shadow or a canary need a version."}},
    "openapi_extra": MOVE_BODY,
}


@router.post("/index", **INDEX)
@router.post("/{repo}/index", **INDEX, dependencies=NAMED)
async def index_repository(request: Request, caller: KnownCaller, body: Body) -> list[IndexedVersion]:
    ready_only = only_ready(body)
    sight = parts(request).admission.sight(caller)
    return [
        _indexed(name, known)
        for name, model in sorted(sight.catalog.models.items())
        for number, known in sorted(model.versions.items())
        if sight.version(name, number) and (known.state is State.AVAILABLE or not ready_only)
    ]


@router.post("/models/{model}/load", **LOAD)
@router.post("/{repo}/models/{model}/load", **LOAD, dependencies=NAMED)
def load_model(request: Request, admin: Retirer, model: ModelName, body: Body) -> ModelLoaded:
    require_no_files(body)
    with reading(request) as session:
        missing = unloading.to_load(session, model)
    known = parts(request).snapshot.catalog.models.get(model)
    main = () if known is None or known.main is None else (known.main,)
    warm(parts(request), model, missing or main)
    RETIRING.check_again(request, admin)
    with writing(request) as session:
        note(request, restored=list(unloading.load(session, model, missing)))
    log.info("model %s loaded by %s", model, admin.client_id)
    return ModelLoaded(name=model)


@router.post("/models/{model}/unload", **UNLOAD)
@router.post("/{repo}/models/{model}/unload", **UNLOAD, dependencies=NAMED)
def unload_model(request: Request, admin: Retirer, model: ModelName, body: Body) -> ModelUnloaded:
    require_no_files(body)
    with writing(request) as session:
        note(request, leaving=list(unloading.unload(session, model)))
    log.info("model %s unloaded by %s", model, admin.client_id)
    return ModelUnloaded(name=model)


def _indexed(name: str, known: CatalogVersion) -> IndexedVersion:
    reason = ""
    if known.state is State.END:
        reason = UNLOADED if known.error_code is None else f"{known.error_code}: {known.error_message or ''}"
    return IndexedVersion(name=name, version=str(known.number), state=STATES[known.state], reason=reason)
