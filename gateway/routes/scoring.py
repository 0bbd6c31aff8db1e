"""MLflow's scoring server but for its predictions: is a model there, and whose protocol it is; a base URL per model."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request, Response
from fastapi.responses import PlainTextResponse

from auth.grants import Action
from auth.scopes import Scope
from gateway.admission import Caller
from gateway.dependencies import Require, parts
from gateway.scoring_description import SCORING_TAG
from gateway.visible_models import model_name, version_number

# The release of MLflow whose scoring protocol is spoken: what its clients ask for is no version of ours.
PROTOCOL_VERSION = "3.17.2"

router = APIRouter(prefix="/models/{model}", tags=[SCORING_TAG["name"]])

KnownCaller = Annotated[Caller, Depends(Require(Scope.MODELS_READ, Scope.PREDICT))]
ModelName = Annotated[str, Path(description="The model's name.", examples=["linear"])]
Number = Annotated[str, Path(description="The version's number.", examples=["1"])]
LabelName = Annotated[str, Path(description="The label's name.", examples=["stable"])]

NOT_FOUND: dict[int | str, dict[str, Any]] = {
    404: {"description": "There is no such model or version, or no grant for it: the two answers are equal."}
}
NOT_READY: dict[int | str, dict[str, Any]] = {
    503: {"description": "The version is still being prepared; try again after `Retry-After` seconds."}
}
UNKNOWN_LABEL: dict[int | str, dict[str, Any]] = {400: {"description": "There is no such label, or no grant for it."}}
LINE: dict[int | str, dict[str, Any]] = {
    200: {"description": "The model can be asked.", "content": {"application/json": {"example": "\n"}}}
}
VERSION: dict[int | str, dict[str, Any]] = {
    200: {"description": "The release, as text.", "content": {"text/plain": {"example": PROTOCOL_VERSION}}}
}
ALIVE: dict[str, Any] = {"response_class": Response, "responses": LINE | NOT_FOUND | NOT_READY}
ALIVE_BY_LABEL: dict[str, Any] = {**ALIVE, "responses": ALIVE["responses"] | UNKNOWN_LABEL}
SPOKEN: dict[str, Any] = {"response_class": PlainTextResponse, "responses": VERSION | NOT_FOUND | NOT_READY}
SPOKEN_BY_LABEL: dict[str, Any] = {**SPOKEN, "responses": SPOKEN["responses"] | UNKNOWN_LABEL}


@router.get("/ping", summary="Can the model be asked", **ALIVE)
async def ping_model(request: Request, caller: KnownCaller, model: ModelName) -> Response:
    return _alive(request, caller, model)


@router.get("/health", summary="Can the model be asked, as ping", **ALIVE)
async def model_health(request: Request, caller: KnownCaller, model: ModelName) -> Response:
    return _alive(request, caller, model)


@router.get("/version", summary="The MLflow release whose protocol is spoken", **SPOKEN)
async def model_protocol(request: Request, caller: KnownCaller, model: ModelName) -> Response:
    return _protocol(request, caller, model)


@router.get("/versions/{version}/ping", summary="Can a version be asked", **ALIVE)
async def ping_version(request: Request, caller: KnownCaller, model: ModelName, version: Number) -> Response:
    return _alive(request, caller, model, version_number(version))


@router.get("/versions/{version}/health", summary="Can a version be asked, as ping", **ALIVE)
async def version_health(request: Request, caller: KnownCaller, model: ModelName, version: Number) -> Response:
    return _alive(request, caller, model, version_number(version))


@router.get("/versions/{version}/version", summary="The same of a version", **SPOKEN)
async def version_protocol(request: Request, caller: KnownCaller, model: ModelName, version: Number) -> Response:
    return _protocol(request, caller, model, version_number(version))


@router.get("/labels/{label}/ping", summary="Can the version be asked that a label points to", **ALIVE_BY_LABEL)
async def ping_label(request: Request, caller: KnownCaller, model: ModelName, label: LabelName) -> Response:
    return _alive(request, caller, model, label=label)


@router.get("/labels/{label}/health", summary="The same, as ping", **ALIVE_BY_LABEL)
async def label_health(request: Request, caller: KnownCaller, model: ModelName, label: LabelName) -> Response:
    return _alive(request, caller, model, label=label)


@router.get("/labels/{label}/version", summary="The same of the version that a label points to", **SPOKEN_BY_LABEL)
async def label_protocol(request: Request, caller: KnownCaller, model: ModelName, label: LabelName) -> Response:
    return _protocol(request, caller, model, label=label)


def _alive(
    request: Request, caller: Caller, model: str, version: int | None = None, label: str | None = None
) -> Response:
    parts(request).admission.target(caller, Action.METADATA, model_name(request, model), version, label)
    # An empty line as JSON is what MLflow's server answers, and all that its clients look at is the status.
    return Response("\n", media_type="application/json", headers={"Cache-Control": "no-store"})


def _protocol(
    request: Request, caller: Caller, model: str, version: int | None = None, label: str | None = None
) -> Response:
    parts(request).admission.target(caller, Action.METADATA, model_name(request, model), version, label)
    return PlainTextResponse(PROTOCOL_VERSION)
