"""The Open Inference Protocol but for its predictions: the server, its health, and what models take and give.

Source: specification/protocol/inference_rest.md of the Open Inference Protocol. Its own words and its YAML disagree on
the bodies of health: those here satisfy the clients of KServe, which read them, and of Triton, which do not.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from auth.grants import Action
from auth.scopes import Scope
from gateway.admission import Caller
from gateway.dependencies import Require, parts
from gateway.routes.models import ModelNames
from gateway.visible_models import model_name, used_models, version_number, visible_model
from model_store.errors import VersionNotReady
from model_store.signature import TensorSpec
from model_store.tables import State
from model_store.tensors import element_type

# `<project>_<format>`, as the protocol wants it for what it has no name for.
PLATFORM = "sluice_model"
EXTENSIONS = (
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "model_repository",
    "model_repository(unload_dependents)",
    "schedule_policy",
    "statistics",
)

router = APIRouter(prefix="/v2", tags=["Open Inference Protocol"])

KnownCaller = Annotated[Caller, Depends(Require(Scope.MODELS_READ, Scope.PREDICT))]
ModelName = Annotated[str, Path(description="The model's name.", examples=["mnist"])]
Number = Annotated[str, Path(description="The version's number.", examples=["1"])]

NOT_FOUND: dict[int | str, dict[str, Any]] = {
    404: {"description": "There is no such model or version, or no grant for it: the two answers are equal."}
}
NOT_READY: dict[int | str, dict[str, Any]] = {
    503: {"description": "The version is still being prepared; try again after `Retry-After` seconds."}
}


class ServerMetadata(BaseModel):
    """Which server this is, and which extensions of the protocol it has."""

    name: str = Field(examples=["sluice"])
    version: str = Field(examples=["0.1.0"])
    extensions: list[str] = Field(examples=[["binary_tensor_data", "statistics"]])


class Live(BaseModel):
    """That the process answers."""

    live: bool = True


class Ready(Live):
    """Whether the server can serve."""

    ready: bool


class TensorMetadata(BaseModel):
    """One input or output; -1 is a dimension of any size."""

    name: str
    datatype: str
    shape: list[int]


class ModelDescription(BaseModel):
    """What a version takes and gives; `versions` are those that this client may use."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "mnist",
                    "versions": ["1"],
                    "platform": PLATFORM,
                    "inputs": [{"name": "image", "datatype": "FP32", "shape": [-1, 28, 28]}],
                    "outputs": [{"name": "digit", "datatype": "FP32", "shape": [-1, 10]}],
                }
            ]
        }
    )

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class ModelReady(BaseModel):
    """That a version can be asked for predictions."""

    name: str = Field(examples=["mnist"])
    ready: bool = True


@router.get("", summary="Which server this is")
async def server_metadata(request: Request, caller: KnownCaller) -> ServerMetadata:  # noqa: ARG001 - asking for the caller is the check
    return ServerMetadata(name="sluice", version=request.app.version, extensions=list(EXTENSIONS))


@router.get("/health/live", summary="Is the process alive")
async def live() -> Live:
    return Live()


@router.get("/health/ready", summary="Can it serve", responses={503: {"model": Ready, "description": "It cannot."}})
async def ready(request: Request, response: Response) -> Ready:
    """200 while the database and Redis can be reached, else 503."""
    found = all(parts(request).health.dependencies().values())
    response.headers["Cache-Control"] = "no-store"
    if not found:
        response.status_code = 503
        response.headers["Retry-After"] = "1"
    return Ready(ready=found)


@router.get("/models", summary="List the models that this client may use")
async def list_models(request: Request, caller: KnownCaller) -> ModelNames:
    return ModelNames(models=used_models(request, caller))


@router.get("/models/{model}/ready", summary="Can the highest version be asked", responses=NOT_FOUND | NOT_READY)
async def model_ready(request: Request, caller: KnownCaller, model: ModelName) -> ModelReady:
    return _ready(request, caller, model)


@router.get(
    "/models/{model}/versions/{version}/ready",
    summary="Can a version be asked",
    responses=NOT_FOUND | NOT_READY,
)
async def version_ready(request: Request, caller: KnownCaller, model: ModelName, version: Number) -> ModelReady:
    return _ready(request, caller, model, version_number(version))


@router.get("/models/{model}", summary="What the highest version takes and gives", responses=NOT_FOUND | NOT_READY)
async def model_metadata(request: Request, caller: KnownCaller, model: ModelName) -> ModelDescription:
    return _metadata(request, caller, model)


@router.get(
    "/models/{model}/versions/{version}", summary="What a version takes and gives", responses=NOT_FOUND | NOT_READY
)
async def version_metadata(
    request: Request, caller: KnownCaller, model: ModelName, version: Number
) -> ModelDescription:
    return _metadata(request, caller, model, version_number(version))


def _ready(request: Request, caller: Caller, model: str, version: int | None = None) -> ModelReady:
    parts(request).admission.target(caller, Action.METADATA, model_name(request, model), version)
    return ModelReady(name=model)


def _metadata(request: Request, caller: Caller, model: str, version: int | None = None) -> ModelDescription:
    target = parts(request).admission.target(caller, Action.METADATA, model_name(request, model), version)
    if target.signature is None:
        raise VersionNotReady(f"version {target.number} of model {model} has no signature yet", retry_after_seconds=1)
    known = visible_model(request, caller, model).versions
    return ModelDescription(
        name=model,
        versions=[str(number) for number in sorted(known) if known[number].state is State.AVAILABLE],
        platform=PLATFORM,
        inputs=[_tensor(spec) for spec in target.signature.inputs],
        outputs=[_tensor(spec) for spec in target.signature.outputs],
    )


def _tensor(spec: TensorSpec) -> TensorMetadata:
    shape = [-1 if size is None else size for size in spec.shape]
    return TensorMetadata(name=spec.name, datatype=element_type(spec.dtype).open_inference, shape=shape)
