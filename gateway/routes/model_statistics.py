"""The statistics extension of the Open Inference Protocol, as far as a gateway knows: requests, instances, durations.

Source: docs/protocol/extension_statistics.md of Triton's server. What is written as 0 is not measured here: how long
requests wait, and how long workers compute, is in the metrics.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field

from auth.scopes import Scope
from gateway.admission import Caller
from gateway.dependencies import Require, parts
from gateway.inference_statistics import NANOSECONDS, VersionFigures
from gateway.routes.open_inference import NOT_FOUND, ModelName, Number
from gateway.visible_models import version_number, visible_model
from model_store.catalog import not_found
from model_store.tables import State

router = APIRouter(prefix="/v2/models", tags=["Open Inference Protocol"])

KnownCaller = Annotated[Caller, Depends(Require(Scope.MODELS_READ, Scope.PREDICT))]


class Duration(BaseModel):
    """How often, and the nanoseconds of all together."""

    count: int = 0
    ns: int = 0


class InferenceDurations(BaseModel):
    """Requests by how they ended, from their first byte in the gateway to their answer; the others are 0."""

    success: Duration
    fail: Duration
    queue: Duration = Duration()
    compute_input: Duration = Duration()
    compute_infer: Duration = Duration()
    compute_output: Duration = Duration()
    cache_hit: Duration = Duration()
    cache_miss: Duration = Duration()


class VersionStatistics(BaseModel):
    """The figures of one version."""

    name: str
    version: str
    last_inference: int = Field(description="When the last request ended, in milliseconds since 1970; 0 before it.")
    inference_count: int = Field(description="Instances of requests that succeeded.")
    execution_count: int = Field(description="Always 0: workers count their batches, in `sluice_batch_instances`.")
    inference_stats: InferenceDurations
    response_stats: dict[str, Any] = Field(default={}, description="Always empty: no model streams.")
    batch_stats: list[dict[str, Any]] = Field(default=[], description="Always empty, as `execution_count`.")
    memory_usage: list[dict[str, Any]] = Field(default=[], description="Always empty: workers hold the models.")


class ModelStatistics(BaseModel):
    """The statistics of versions that serve, by model and number."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model_stats": [
                        {
                            "name": "mnist",
                            "version": "1",
                            "last_inference": 1767322986006,
                            "inference_count": 12,
                            "execution_count": 0,
                            "inference_stats": {
                                "success": {"count": 10, "ns": 21500000},
                                "fail": {"count": 1, "ns": 900000},
                                "queue": {"count": 0, "ns": 0},
                                "compute_input": {"count": 0, "ns": 0},
                                "compute_infer": {"count": 0, "ns": 0},
                                "compute_output": {"count": 0, "ns": 0},
                                "cache_hit": {"count": 0, "ns": 0},
                                "cache_miss": {"count": 0, "ns": 0},
                            },
                            "response_stats": {},
                            "batch_stats": [],
                            "memory_usage": [],
                        }
                    ]
                }
            ]
        }
    )

    model_stats: list[VersionStatistics]


@router.get(
    "/stats",
    summary="Statistics of all models",
    description=(
        "Synchronous predictions that this process of the gateway answered since it began, for every version that"
        " serves and that this client may see. A model named `stats` is described under its versions only."
    ),
)
async def all_statistics(request: Request, caller: KnownCaller) -> ModelStatistics:
    sight = parts(request).admission.sight(caller)
    return ModelStatistics(
        model_stats=[
            _statistics(request, name, number)
            for name, model in sorted(sight.catalog.models.items())
            for number in sorted(model.versions)
            if model.versions[number].state is State.AVAILABLE and sight.version(name, number)
        ]
    )


@router.get("/{model}/stats", summary="Statistics of a model", responses=NOT_FOUND)
async def model_statistics(request: Request, caller: KnownCaller, model: ModelName) -> ModelStatistics:
    known = visible_model(request, caller, model).versions
    serving = [number for number in sorted(known) if known[number].state is State.AVAILABLE]
    return ModelStatistics(model_stats=[_statistics(request, model, number) for number in serving])


@router.get("/{model}/versions/{version}/stats", summary="Statistics of a version", responses=NOT_FOUND)
async def version_statistics(
    request: Request, caller: KnownCaller, model: ModelName, version: Number
) -> ModelStatistics:
    number = version_number(version)
    if number not in visible_model(request, caller, model, number).versions:
        raise not_found(model, number)
    return ModelStatistics(model_stats=[_statistics(request, model, number)])


def _statistics(request: Request, model: str, version: int) -> VersionStatistics:
    figures = parts(request).statistics.of(model, version)
    return VersionStatistics(
        name=model,
        version=str(version),
        last_inference=int(figures.last * 1000),
        inference_count=figures.instances,
        execution_count=0,
        inference_stats=_durations(figures),
    )


def _durations(figures: VersionFigures) -> InferenceDurations:
    return InferenceDurations(
        success=Duration(count=figures.succeeded, ns=int(figures.succeeded_seconds * NANOSECONDS)),
        fail=Duration(count=figures.failed, ns=int(figures.failed_seconds * NANOSECONDS)),
    )
