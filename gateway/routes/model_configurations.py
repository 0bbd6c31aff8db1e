"""The model configuration extension of the Open Inference Protocol: a version in the terms of Triton's own files.

Source: docs/protocol/extension_model_configuration.md and model_config.proto of Triton's server. Only what there is
here and what its clients read (tritonclient, perf_analyzer).
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field

from auth.grants import Action
from auth.scopes import Scope
from gateway.admission import Caller
from gateway.dependencies import Require, parts
from gateway.routes.open_inference import NOT_FOUND, NOT_READY, PLATFORM, ModelName, Number
from gateway.visible_models import model_name, version_number
from model_store.errors import VersionNotReady
from model_store.signature import TensorSpec
from model_store.tensors import element_type

router = APIRouter(prefix="/v2/models", tags=["Open Inference Protocol"])

KnownCaller = Annotated[Caller, Depends(Require(Scope.MODELS_READ, Scope.PREDICT))]


class ConfiguredTensor(BaseModel):
    """One input or output; `dims` has no batch dimension where `max_batch_size` is not 0."""

    name: str
    data_type: str = Field(examples=["TYPE_FP32"])
    dims: list[int]


class DynamicBatching(BaseModel):
    """That requests of several callers share inferences; it has no settings here."""


class ModelConfiguration(BaseModel):
    """A version as Triton's model configuration has it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "mnist",
                    "platform": PLATFORM,
                    "backend": "",
                    "max_batch_size": 1024,
                    "input": [{"name": "image", "data_type": "TYPE_FP32", "dims": [28, 28]}],
                    "output": [{"name": "digit", "data_type": "TYPE_FP32", "dims": [10]}],
                    "dynamic_batching": {},
                }
            ]
        }
    )

    name: str
    platform: str
    backend: str
    max_batch_size: int = Field(description="How many instances one request may have; 0 without a batch dimension.")
    input: list[ConfiguredTensor]
    output: list[ConfiguredTensor]
    dynamic_batching: DynamicBatching


@router.get("/{model}/config", summary="The highest version in Triton's terms", responses=NOT_FOUND | NOT_READY)
async def model_configuration(request: Request, caller: KnownCaller, model: ModelName) -> ModelConfiguration:
    return _configuration(request, caller, model)


@router.get(
    "/{model}/versions/{version}/config", summary="A version in Triton's terms", responses=NOT_FOUND | NOT_READY
)
async def version_configuration(
    request: Request, caller: KnownCaller, model: ModelName, version: Number
) -> ModelConfiguration:
    return _configuration(request, caller, model, version_number(version))


def _configuration(request: Request, caller: Caller, model: str, version: int | None = None) -> ModelConfiguration:
    found = parts(request)
    target = found.admission.target(caller, Action.METADATA, model_name(request, model), version)
    if target.signature is None:
        raise VersionNotReady(f"version {target.number} of model {model} has no signature yet", retry_after_seconds=1)
    batched = target.signature.batched
    most = found.snapshot.catalog.most_instances(model, found.settings.max_instances)
    return ModelConfiguration(
        name=model,
        platform=PLATFORM,
        backend="",
        max_batch_size=most if batched else 0,
        input=[_tensor(spec, batched=batched) for spec in target.signature.inputs],
        output=[_tensor(spec, batched=batched) for spec in target.signature.outputs],
        dynamic_batching=DynamicBatching(),
    )


def _tensor(spec: TensorSpec, *, batched: bool) -> ConfiguredTensor:
    sizes = [-1 if size is None else size for size in spec.shape[1 if batched else 0 :]]
    # Triton's own name of BYTES in configurations.
    kind = element_type(spec.dtype).open_inference.replace("BYTES", "STRING")
    return ConfiguredTensor(name=spec.name, data_type=f"TYPE_{kind}", dims=sizes)
