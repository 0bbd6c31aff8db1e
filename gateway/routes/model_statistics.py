"""The statistics extension of the Open Inference Protocol: what became of requests, and what workers ran for them.

Source: docs/protocol/extension_statistics.md of Triton's server.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field

from auth.scopes import Scope
from gateway.admission import Caller
from gateway.dependencies import Require, parts
from gateway.routes.open_inference import NOT_FOUND, ModelName, Number
from gateway.visible_models import version_number, visible_model
from model_store.catalog import not_found
from model_store.tables import State
from workers.kept_statistics import MOST_SIZES
from workers.tallies import Tally, Version

router = APIRouter(prefix="/v2/models", tags=["Open Inference Protocol"])

KnownCaller = Annotated[Caller, Depends(Require(Scope.MODELS_READ, Scope.PREDICT))]


# What the message of gRPC can hold.
MOST_NANOSECONDS = 2**64 - 1
AWAY: dict[int | str, dict[str, Any]] = {503: {"description": "Redis, which keeps the figures, does not answer."}}


class Duration(BaseModel):
    """How often, and the nanoseconds of all together."""

    count: int = 0
    ns: int = 0


class InferenceDurations(BaseModel):
    """Requests by how they ended, and where those that a worker answered spent their time."""

    success: Duration = Field(description="Predictions and jobs that succeeded, from their first byte to their answer.")
    fail: Duration = Field(description="The same of those that were refused by a worker, failed, or took too long.")
    queue: Duration = Field(description="Requests that a worker answered: how long they had waited for it.")
    compute_input: Duration = Field(description="The same requests: how long it took to read and join their inputs.")
    compute_infer: Duration = Field(description="The same requests: how long the inferences of their batch took.")
    compute_output: Duration = Field(description="The same requests: how long it took to write their batch's answers.")
    cache_hit: Duration = Field(default=Duration(), description="Always 0: no answer is kept for another request.")
    cache_miss: Duration = Field(default=Duration(), description="Always 0, as `cache_hit`.")


class BatchStatistics(BaseModel):
    """Executions of one size: each `count` is how many there were, and each time counts once for a batch."""

    batch_size: int
    compute_input: Duration
    compute_infer: Duration
    compute_output: Duration


class VersionStatistics(BaseModel):
    """The figures of one version."""

    name: str
    version: str
    last_inference: int = Field(description="When the last request ended, in milliseconds since 1970; 0 before it.")
    inference_count: int = Field(description="Instances of all executions.")
    execution_count: int = Field(description="Inferences of batches that succeeded; requests share them.")
    inference_stats: InferenceDurations
    response_stats: dict[str, Any] = Field(default={}, description="Always empty: no model streams.")
    batch_stats: list[BatchStatistics] = Field(
        description=f"Executions by their number of instances; of further sizes than {MOST_SIZES}, there are none."
    )
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
                            "execution_count": 5,
                            "inference_stats": {
                                "success": {"count": 10, "ns": 21500000},
                                "fail": {"count": 1, "ns": 900000},
                                "queue": {"count": 10, "ns": 6200000},
                                "compute_input": {"count": 10, "ns": 830000},
                                "compute_infer": {"count": 10, "ns": 2900000},
                                "compute_output": {"count": 10, "ns": 640000},
                                "cache_hit": {"count": 0, "ns": 0},
                                "cache_miss": {"count": 0, "ns": 0},
                            },
                            "response_stats": {},
                            "batch_stats": [
                                {
                                    "batch_size": 1,
                                    "compute_input": {"count": 2, "ns": 130000},
                                    "compute_infer": {"count": 2, "ns": 450000},
                                    "compute_output": {"count": 2, "ns": 90000},
                                },
                                {
                                    "batch_size": 2,
                                    "compute_input": {"count": 2, "ns": 150000},
                                    "compute_infer": {"count": 2, "ns": 490000},
                                    "compute_output": {"count": 2, "ns": 110000},
                                },
                                {
                                    "batch_size": 6,
                                    "compute_input": {"count": 1, "ns": 100000},
                                    "compute_infer": {"count": 1, "ns": 380000},
                                    "compute_output": {"count": 1, "ns": 80000},
                                },
                            ],
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
        "For every version that serves and that this client may see: what all gateways and workers counted, jobs"
        " included, since its first request. What workers counted is there a second later. Figures begin anew when"
        " Redis loses its memory, or a version was not asked for a week. A model named `stats` is described under"
        " its versions only."
    ),
    responses=AWAY,
)
async def all_statistics(request: Request, caller: KnownCaller) -> ModelStatistics:
    sight = parts(request).admission.sight(caller)
    serving = [
        (name, number)
        for name, model in sorted(sight.catalog.models.items())
        for number in sorted(model.versions)
        if model.versions[number].state is State.AVAILABLE and sight.version(name, number)
    ]
    return await _statistics(request, serving)


@router.get("/{model}/stats", summary="Statistics of a model", responses=NOT_FOUND | AWAY)
async def model_statistics(request: Request, caller: KnownCaller, model: ModelName) -> ModelStatistics:
    known = visible_model(request, caller, model).versions
    serving = [number for number in sorted(known) if known[number].state is State.AVAILABLE]
    return await _statistics(request, [(model, number) for number in serving])


@router.get("/{model}/versions/{version}/stats", summary="Statistics of a version", responses=NOT_FOUND | AWAY)
async def version_statistics(
    request: Request, caller: KnownCaller, model: ModelName, version: Number
) -> ModelStatistics:
    number = version_number(version)
    if number not in visible_model(request, caller, model, number).versions:
        raise not_found(model, number)
    return await _statistics(request, [(model, number)])


async def _statistics(request: Request, versions: Sequence[Version]) -> ModelStatistics:
    tallies = await parts(request).statistics.of(versions)
    return ModelStatistics(model_stats=[_of_version(*one) for one in zip(versions, tallies, strict=True)])


def _of_version(version: Version, tally: Tally) -> VersionStatistics:
    return VersionStatistics(
        name=version[0],
        version=str(version[1]),
        last_inference=tally.last_ms,
        inference_count=tally.instances,
        execution_count=tally.executions,
        inference_stats=InferenceDurations(
            success=_duration(tally.succeeded, tally.succeeded_ns),
            fail=_duration(tally.failed, tally.failed_ns),
            queue=_duration(tally.queued, tally.queue_ns),
            compute_input=_duration(tally.computed, tally.input_ns),
            compute_infer=_duration(tally.computed, tally.infer_ns),
            compute_output=_duration(tally.computed, tally.output_ns),
        ),
        batch_stats=[
            BatchStatistics(
                batch_size=size,
                compute_input=_duration(batch.count, batch.input_ns),
                compute_infer=_duration(batch.count, batch.infer_ns),
                compute_output=_duration(batch.count, batch.output_ns),
            )
            for size, batch in sorted(tally.batches.items())
        ],
    )


def _duration(count: int, nanoseconds: int) -> Duration:
    return Duration(count=count, ns=min(nanoseconds, MOST_NANOSECONDS))
