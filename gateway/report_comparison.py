"""Two versions' preparation reports side by side."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from model_store.tables import State, Version

Json = dict[str, Any]

FIGURES_EXAMPLE: Json = {
    "runtime": "onnx",
    "accepted": True,
    "reason": None,
    "size_bytes": 408642,
    "memory_bytes": 9437184,
    "load_seconds": 0.003,
    "latency_ms": {"1": 0.011, "64": 0.075},
    "max_abs_difference": 1.2e-07,
    "top1_agreement": 1.0,
}
SIDE_EXAMPLE: Json = {
    "version": 1,
    "state": "AVAILABLE",
    "format": "keras",
    "digest": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "size_bytes": 1236542,
    "chosen": "onnx",
    "reason": "onnx serves; 64 instances take 0.075 ms, with savedmodel 0.6 ms",
    "max_batch": 64,
    "batch_seconds": 0.000075,
    "same_signature": True,
}
STEP_EXAMPLE: Json = {"name": "load", "outcomes": ["ok", "ok"], "seconds": [2.1, 2.2]}


class Figures(BaseModel):
    """What one version's preparation measured of a variant; null is what was not measured."""

    runtime: str
    accepted: bool
    reason: str | None = Field(description="Why it was refused.")
    size_bytes: int | None
    memory_bytes: int | None
    load_seconds: float | None
    latency_ms: dict[str, float | None] = Field(description="By instances in a batch.")
    max_abs_difference: float | None = Field(description="From the uploaded model's own answers.")
    top1_agreement: float | None


class Side(BaseModel):
    """One of the two versions."""

    version: int
    state: State
    format: str
    digest: str = Field(description="SHA-256 of the uploaded file.")
    size_bytes: int
    chosen: str | None = Field(description="The variant that serves.")
    reason: str | None
    max_batch: int
    batch_seconds: float | None
    same_signature: bool = Field(description="Whether both versions take and give the same tensors.")


class ComparedVariant(BaseModel):
    """A variant as both versions have it, null where one has none."""

    name: str
    figures: tuple[Figures | None, Figures | None]


class ComparedStep(BaseModel):
    """A step of both preparations, null where one never came to it."""

    name: str
    outcomes: tuple[str | None, str | None]
    seconds: tuple[float | None, float | None]


class Comparison(BaseModel):
    """Everything comes in pairs: first of the version in the path, then of the one it is compared with."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": "mnist",
                    "versions": [SIDE_EXAMPLE, SIDE_EXAMPLE | {"version": 2}],
                    "variants": [{"name": "onnx", "figures": [FIGURES_EXAMPLE, FIGURES_EXAMPLE]}],
                    "steps": [STEP_EXAMPLE],
                }
            ]
        }
    )

    model: str
    versions: tuple[Side, Side]
    variants: list[ComparedVariant]
    steps: list[ComparedStep]


def compare(first: Version, second: Version) -> Comparison:
    """What the reports of two versions of a model say; of one that is not prepared yet there is little."""
    left, right = (json.loads(version.report or "{}") for version in (first, second))
    same = first.signature == second.signature
    variants = [_by_name(report.get("variants", [])) for report in (left, right)]
    steps = [_by_name(report.get("steps", [])) for report in (left, right)]
    return Comparison(
        model=first.model,
        versions=(_side(first, left, same), _side(second, right, same)),
        variants=[
            ComparedVariant(name=name, figures=(_figures(variants[0].get(name)), _figures(variants[1].get(name))))
            for name in _names(variants)
        ],
        steps=[_step(name, steps[0].get(name, {}), steps[1].get(name, {})) for name in _names(steps)],
    )


def _by_name(rows: Iterable[Json]) -> Json:
    return {row["name"]: row for row in rows if "name" in row}


def _names(rows: Iterable[Json]) -> list[str]:
    """Those of both, in the order in which they come first."""
    return list(dict.fromkeys(name for side in rows for name in side))


def _side(version: Version, report: Json, same_signature: bool) -> Side:
    return Side(
        version=version.number,
        state=State(version.state),
        format=version.format,
        digest=version.digest,
        size_bytes=version.size_bytes,
        chosen=version.variant,
        reason=report.get("reason"),
        max_batch=version.max_batch,
        batch_seconds=version.batch_seconds,
        same_signature=same_signature,
    )


def _figures(row: Json | None) -> Figures | None:
    return None if row is None else Figures.model_validate(row)


def _step(name: str, left: Json, right: Json) -> ComparedStep:
    return ComparedStep(
        name=name,
        outcomes=(left.get("outcome"), right.get("outcome")),
        seconds=(left.get("seconds"), right.get("seconds")),
    )
