"""Administration of canaries: a version that gets more and more of a model's traffic while it does well."""

from __future__ import annotations

import logging
from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field, StrictFloat, StrictInt
from sqlalchemy.orm import Session

from auth.grants import HIGHEST_VERSION, moment
from gateway.audit_trail import note
from gateway.dependencies import TokenFirst
from gateway.routes.traffic import ModelName, Reading, Router, Sticky, Viewer, Writing
from model_store import canaries
from model_store.canaries import MOST_STEPS, Canary, CanaryState, Conditions, Moved, Plan
from model_store.listing import find_model
from workers.canaries import awaited, broken, standing

log = logging.getLogger(__name__)

router = APIRouter(prefix="/admin/models", tags=["Traffic"], route_class=TokenFirst)

NOT_FOUND: dict[int | str, dict[str, Any]] = {
    404: {"description": "There is no such model, or it has no canary (`canary_not_found`)."}
}
ENDED: dict[int | str, dict[str, Any]] = {
    409: {"description": "It has ended that way already, or the version that would get the traffic is not AVAILABLE."}
}
CONDITIONS: dict[str, Any] = {"error_rate": 0.01, "p99_seconds": None, "p99_ratio": 1.5, "disagreement": None}
PLAN: dict[str, Any] = {
    "version": 4, "stable": 3, "steps": [5, 25, 50, 100], "step_seconds": 300, "least_requests": 100,
    "conditions": CONDITIONS, "sticky": "client",
}  # fmt: skip
STANDING: dict[str, Any] = {
    "requests": 60, "errors": 0, "p99_seconds": 0.011, "stable_requests": 1140, "stable_p99_seconds": 0.01,
    "compared": 0, "disagreement": None, "broken": None, "awaited": "40 more requests, 12 more seconds",
}  # fmt: skip
MOVE: dict[str, Any] = {
    "at": "2026-01-02T03:04:05.000Z", "move": "begun", "percent": 5.0, "reason": "version 4 beside version 3",
    "by": "cli_Zk0o3rVxQ1uYt5pWc8sLd2Ea", "automatic": False, "run": 1767323045000,
}  # fmt: skip
Percent = Annotated[float, Field(gt=0, le=100, allow_inf_nan=False)]
Share = Annotated[StrictFloat | None, Field(ge=0, le=1, allow_inf_nan=False)]


class ConditionsBody(BaseModel):
    """What may not be exceeded at any step; what is left out is not asked about."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [CONDITIONS]})

    error_rate: Share = Field(None, description="Share of predictions answered with a status from 500 on.")
    p99_seconds: StrictFloat | None = Field(None, gt=0, le=3600, allow_inf_nan=False, description="Of predictions.")
    p99_ratio: StrictFloat | None = Field(
        None, gt=0, le=1000, allow_inf_nan=False, description="p99 as a multiple of the stable version's."
    )
    disagreement: Share = Field(
        None, description="Share of answers that do not agree, by the model's shadow, which has to be this version."
    )


class CanaryBody(BaseModel):
    """A version, its steps, and what it has to keep to."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [PLAN]})

    version: StrictInt = Field(ge=1, le=HIGHEST_VERSION, description="The version that is tried.")
    stable: StrictInt | None = Field(
        None,
        ge=1,
        le=HIGHEST_VERSION,
        description="What it is compared with; null: where traffic goes now, or the highest other version.",
    )
    steps: list[Percent] = Field(
        default=[5.0, 25.0, 50.0, 100.0],
        min_length=1,
        max_length=MOST_STEPS,
        description="Shares of traffic in percent, each larger than the one before.",
    )
    step_seconds: StrictFloat = Field(300.0, ge=0, le=30 * 86_400, description="How long each step takes at least.")
    least_requests: StrictInt = Field(
        100, ge=1, le=10_000_000, description="Predictions by the version at each step before it may go on."
    )
    conditions: ConditionsBody = ConditionsBody(error_rate=0.01)
    sticky: Sticky = None


class StandingShown(BaseModel):
    """How it does at the present step, by the figures of all gateways."""

    model_config = ConfigDict(json_schema_extra={"examples": [STANDING]})

    requests: int
    errors: int
    p99_seconds: float | None
    stable_requests: int = Field(description="Of all steps.")
    stable_p99_seconds: float | None
    compared: int
    disagreement: float | None
    broken: str | None = Field(description="The condition that it breaks.")
    awaited: str | None = Field(description="What is missing before it goes on.")


class MoveShown(BaseModel):
    """What became of a canary of the model, and why; `by` is empty where it was by itself."""

    model_config = ConfigDict(json_schema_extra={"examples": [MOVE]})

    at: str
    move: str
    percent: float
    reason: str
    by: str
    automatic: bool
    run: int = Field(description="Which canary: when it was set, in milliseconds since 1970.")


class CanaryShown(CanaryBody):
    """A canary, where it stands, and what became of the model's canaries so far."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": "mnist", **PLAN, "state": "running", "percent": 5.0, "step": 0, "run": 1767323045000,
                    "set_by": "cli_Zk0o3rVxQ1uYt5pWc8sLd2Ea", "standing": STANDING, "history": [MOVE],
                }
            ]
        }
    )  # fmt: skip

    model: str
    state: CanaryState
    percent: float = Field(description="The version's share of traffic.")
    step: int = Field(description="Counted from 0.")
    run: int
    set_by: str
    standing: StandingShown | None = Field(description="Null once it has ended.")
    history: list[MoveShown] = Field(description="The oldest first.")


@router.get("/{model}/canary", summary="Show a model's canary", responses=NOT_FOUND)
def show_canary(viewer: Viewer, session: Reading, model: ModelName) -> CanaryShown:  # noqa: ARG001 - asking is the check
    find_model(session, model)
    return _shown(session, canaries.canary_of(session, model))


@router.put(
    "/{model}/canary",
    summary="Try a version with more and more of a model's traffic",
    description=(
        "Begins at the first step. From then on, once a second, it is promoted to the next one where it has kept every"
        " condition for long enough, or rolled back by itself where it breaks one. Until its end it decides about the"
        " model's traffic; afterwards all of it goes to the version that won, until `DELETE …/traffic`."
    ),
    responses={
        404: {"description": "There is no such model."},
        409: {"description": "Another one is under way (`canary_running`), or a version is not AVAILABLE."},
    },
)
def begin_canary(request: Request, admin: Router, session: Writing, model: ModelName, body: CanaryBody) -> CanaryShown:
    asked = body.conditions.model_dump(exclude_none=True)
    steps = " ".join(f"{step:g}" for step in body.steps)
    note(request, version=body.version, stable=body.stable, steps=steps, conditions=asked)
    find_model(session, model)
    stable = canaries.stable_version(session, model, body.version) if body.stable is None else body.stable
    plan = Plan(
        body.version, stable, tuple(body.steps), body.step_seconds, body.least_requests,
        Conditions(**body.conditions.model_dump()), body.sticky,
    )  # fmt: skip
    canary = canaries.begin(session, model, plan, admin.client_id)
    log.info("canary of model %s, version %d, begun by %s", model, body.version, admin.client_id)
    return _shown(session, canary)


@router.delete(
    "/{model}/canary",
    status_code=204,
    summary="Forget a model's canary",
    description="With its history; traffic stays as it is. One that is under way has to be ended first.",
    responses=NOT_FOUND | {409: {"description": "It is under way (`canary_running`)."}},
)
def forget_canary(admin: Router, session: Writing, model: ModelName) -> None:
    find_model(session, model)
    canaries.forget(session, model)
    log.info("canary of model %s forgotten by %s", model, admin.client_id)


@router.post(
    "/{model}/canary/promote",
    summary="Promote a canary now",
    description="All traffic goes to the version, whatever the conditions say.",
    responses=NOT_FOUND | ENDED,
)
def promote_canary(request: Request, admin: Router, session: Writing, model: ModelName) -> CanaryShown:
    find_model(session, model)
    canary = canaries.canary_of(session, model, lock=True)
    note(request, version=canary.plan.version)
    return _shown(session, canaries.promote(session, canary, Moved("asked for", admin.client_id)))


@router.post(
    "/{model}/canary/rollback",
    summary="Roll a canary back now",
    description="All traffic goes to the stable version; also after the promotion.",
    responses=NOT_FOUND | ENDED,
)
def roll_back_canary(request: Request, admin: Router, session: Writing, model: ModelName) -> CanaryShown:
    find_model(session, model)
    canary = canaries.canary_of(session, model, lock=True)
    note(request, version=canary.plan.version)
    return _shown(session, canaries.roll_back(session, canary, Moved("asked for", admin.client_id)))


def _shown(session: Session, canary: Canary) -> CanaryShown:
    plan, asked = canary.plan, canary.plan.conditions
    return CanaryShown(
        model=canary.model,
        version=plan.version,
        stable=plan.stable,
        steps=list(plan.steps),
        step_seconds=plan.step_seconds,
        least_requests=plan.least_requests,
        conditions=ConditionsBody(
            error_rate=asked.error_rate, p99_seconds=asked.p99_seconds, p99_ratio=asked.p99_ratio,
            disagreement=asked.disagreement,
        ),
        sticky=plan.sticky,
        state=canary.state,
        percent=canary.percent,
        step=canary.step,
        run=canary.run,
        set_by=canary.set_by,
        standing=_standing(session, canary) if canary.state is CanaryState.RUNNING else None,
        history=[
            MoveShown(
                at=moment(row.at), move=row.move, percent=row.percent, reason=row.reason, by=row.by,
                automatic=row.automatic, run=row.run,
            )
            for row in canaries.moves_of(session, canary.model)
        ],
    )  # fmt: skip


def _standing(session: Session, canary: Canary) -> StandingShown:
    found = standing(session, canary)
    return StandingShown(
        requests=found.requests,
        errors=found.errors,
        p99_seconds=found.p99_seconds,
        stable_requests=found.stable_requests,
        stable_p99_seconds=found.stable_p99_seconds,
        compared=found.compared,
        disagreement=found.disagreement,
        broken=broken(canary.plan, found),
        awaited=awaited(canary.plan, found),
    )
