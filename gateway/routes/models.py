"""What callers may know of models: the list, and TensorFlow Serving's status and metadata; all from memory."""

from __future__ import annotations

import re
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request
from pydantic import BaseModel, ConfigDict

from auth.grants import Action
from auth.scopes import Scope
from gateway.admission import Caller
from gateway.dependencies import Require, parts
from gateway.model_status import ModelMetadata, ModelStatus, metadata_of, status_of
from gateway.visible_models import malformed_request, model_name, used_models, version_number, visible_model
from model_store.catalog import label_not_found, not_found
from model_store.errors import VersionNotReady

router = APIRouter(prefix="/v1/models", tags=["Models in use"])


# A client that may use a model may see its shapes.
KnownCaller = Annotated[Caller, Depends(Require(Scope.MODELS_READ, Scope.PREDICT))]
ModelName = Annotated[str, Path(description="The model's name.", examples=["mnist"])]
Number = Annotated[str, Path(description="The version's number.", examples=["1"])]
LabelName = Annotated[str, Path(description="The label's name.", examples=["stable"])]

NOT_FOUND: dict[int | str, dict[str, Any]] = {
    404: {
        "description": (
            "There is no such model or version, or no grant for it:"
            " `Servable not found for request: Specific(mnist, 50)`."
        )
    }
}
UNKNOWN_LABEL: dict[int | str, dict[str, Any]] = {
    400: {"description": "There is no such label, or no grant for it: `Unrecognized servable version label: canary`."}
}
NOT_READY: dict[int | str, dict[str, Any]] = {
    503: {"description": "The version is still being prepared; try again after `Retry-After` seconds."}
}


VERSION_ASKED = re.compile(r"(?P<model>[^/:]+)/versions/(?P<version>[0-9]+):(predict|submit|classify|regress)")


class ModelNames(BaseModel):
    """Names of models (KServe V1)."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"models": ["linear", "mnist"]}]})

    models: list[str]


@router.get("", summary="List the models that this client may use")
async def list_models(request: Request, caller: KnownCaller) -> ModelNames:
    return ModelNames(models=used_models(request, caller))


@router.get("/{model}/versions/{version}/metadata", summary="A version's signatures", responses=NOT_FOUND | NOT_READY)
async def version_metadata(request: Request, caller: KnownCaller, model: ModelName, version: Number) -> ModelMetadata:
    return _metadata(request, caller, model, version=version_number(version))


@router.get(
    "/{model}/labels/{label}/metadata",
    summary="The signatures of the version that a label points to",
    responses=NOT_FOUND | UNKNOWN_LABEL,
)
async def label_metadata(request: Request, caller: KnownCaller, model: ModelName, label: LabelName) -> ModelMetadata:
    return _metadata(request, caller, model, label=label)


@router.get("/{model}/metadata", summary="The signatures of the highest version", responses=NOT_FOUND | NOT_READY)
async def model_metadata(request: Request, caller: KnownCaller, model: ModelName) -> ModelMetadata:
    return _metadata(request, caller, model)


@router.get("/{model}/versions/{version}", summary="The state of a version", responses=NOT_FOUND)
async def version_status(request: Request, caller: KnownCaller, model: ModelName, version: Number) -> ModelStatus:
    number = version_number(version)
    found = visible_model(request, caller, model, number)
    if number not in found.versions:
        raise not_found(model, number)
    return status_of(model, [found.versions[number]])


@router.get(
    "/{model}/labels/{label}",
    summary="The state of the version that a label points to",
    responses=NOT_FOUND | UNKNOWN_LABEL,
)
async def label_status(request: Request, caller: KnownCaller, model: ModelName, label: LabelName) -> ModelStatus:
    found = visible_model(request, caller, model)
    if label not in found.labels:
        raise label_not_found(label)
    return status_of(model, [found.versions[found.labels[label]]])


@router.get(
    "/{model}",
    summary="The states of a model's versions",
    description="Of the versions that this client may see, the newest first.",
    responses=NOT_FOUND,
)
async def model_status(request: Request, caller: KnownCaller, model: ModelName) -> ModelStatus:
    found = visible_model(request, caller, model)
    return status_of(model, list(found.versions.values()))


@router.api_route("", methods=["POST"], include_in_schema=False)
async def unnamed(request: Request, caller: KnownCaller) -> None:  # noqa: ARG001 - asking for the caller is the check
    raise malformed_request(request)


@router.api_route("/{rest:path}", methods=["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"], include_in_schema=False)
async def malformed(request: Request, caller: KnownCaller) -> None:  # noqa: ARG001 - asking for the caller is the check
    asked = VERSION_ASKED.fullmatch(request.path_params["rest"])
    if asked is not None and request.method == "POST":
        # A prediction's address but for its version, which is higher than any.
        raise not_found(asked["model"], version_number(asked["version"]))
    raise malformed_request(request)


def _metadata(
    request: Request, caller: Caller, model: str, version: int | None = None, label: str | None = None
) -> ModelMetadata:
    target = parts(request).admission.target(caller, Action.METADATA, model_name(request, model), version, label)
    if target.signature is None:
        raise VersionNotReady(f"version {target.number} of model {model} has no signature yet", retry_after_seconds=1)
    return metadata_of(model, target.number, target.signature, target.further)
