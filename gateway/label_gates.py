"""Gates: what a label demands of a version before it points to it, and the figures by which that was decided."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StrictFloat, StrictInt, model_validator
from pydantic.config import JsonDict

MOST_CALLS = 1000
MOST_LIVE_REQUESTS = 10_000_000

GATES_EXAMPLE: JsonDict = {"golden": {}, "agreement": {"least": 0.99}, "latency": {"p99_ms": 50, "calls": 100}}
OUTCOME_EXAMPLE: JsonDict = {
    "gate": "latency",
    "passed": False,
    "detail": "p99 61.3 ms over 100 calls, more than 50 ms",
    "figures": {"calls": 100, "p50_ms": 21.7, "p99_ms": 61.3},
}


class GoldenGate(BaseModel):
    """The version answers its golden samples as the uploaded file did when it was prepared."""

    model_config = ConfigDict(extra="forbid")

    absolute: StrictFloat | None = Field(
        None, ge=0, allow_inf_nan=False, description="|Δ| ≤ absolute + relative · |y|; null: as it was prepared by."
    )
    relative: StrictFloat | None = Field(None, ge=0, allow_inf_nan=False, description="See `absolute`.")


class AgreementGate(BaseModel):
    """The version and the one that the label points to agree on the first 512 of the model's samples of the kind
    `inputs`, else `labelled`, else on the version's golden inputs."""

    model_config = ConfigDict(extra="forbid")

    least: StrictFloat = Field(
        0.99,
        gt=0,
        le=1,
        description="Share of instances whose largest output is at the same place or, without classes, equal within "
        "1e-5 + 1e-4 · |y|.",
    )


class AccuracyGate(BaseModel):
    """The version's last evaluation, on the labelled samples that the model has now, was right often enough."""

    model_config = ConfigDict(extra="forbid")

    least: StrictFloat = Field(gt=0, le=1, description="Share of the samples that must have been answered right.")


class LatencyGate(BaseModel):
    """A golden sample is answered fast enough, from the queue's one end to the other."""

    model_config = ConfigDict(extra="forbid")

    p99_ms: StrictFloat = Field(gt=0, allow_inf_nan=False, description="What 99 of 100 calls may take at most.")
    calls: int = Field(100, ge=10, le=MOST_CALLS, description="How many are measured, one after the other.")


class ShadowGate(BaseModel):
    """The version, as the model's shadow, agreed with what served on live requests."""

    model_config = ConfigDict(extra="forbid")

    requests: StrictInt = Field(ge=1, le=MOST_LIVE_REQUESTS, description="How many at least must have been compared.")
    least: StrictFloat = Field(0.99, gt=0, le=1, description="Share of them that must have agreed.")


class Gates(BaseModel):
    """What a label demands; every gate that is given has to be passed."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [GATES_EXAMPLE]})

    golden: GoldenGate | None = None
    agreement: AgreementGate | None = None
    accuracy: AccuracyGate | None = None
    latency: LatencyGate | None = None
    shadow: ShadowGate | None = None


class GatesBody(Gates):
    """What a label is to demand."""

    @model_validator(mode="after")
    def _some(self) -> Self:
        if not any((self.golden, self.agreement, self.accuracy, self.latency, self.shadow)):
            raise ValueError("name at least one gate; to demand nothing, delete them")
        return self


class Outcome(BaseModel):
    """What came of one gate."""

    model_config = ConfigDict(json_schema_extra={"examples": [OUTCOME_EXAMPLE]})

    gate: Literal["golden", "agreement", "accuracy", "latency", "shadow"]
    passed: bool
    detail: str = Field(description="What was found, in a sentence.")
    figures: dict[str, float | int | None] = Field(description="What was measured.")


def gates_in(text: str | None) -> Gates | None:
    """What was stored as JSON."""
    return None if text is None else Gates.model_validate_json(text)
