"""Administration of shadows: a copy of a share of a model's traffic, and what came of comparing the answers."""

from __future__ import annotations

import logging
from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field, StrictFloat, StrictInt

from auth.grants import HIGHEST_VERSION, moment
from gateway.audit_trail import note
from gateway.dependencies import TokenFirst
from gateway.routes.traffic import ModelName, Reading, Router, Viewer, Writing
from model_store import shadows
from model_store.listing import find_model
from model_store.shadows import AgreeBy, Comparison, Distribution, Shadow

log = logging.getLogger(__name__)

router = APIRouter(prefix="/admin/models", tags=["Traffic"], route_class=TokenFirst)

NOT_FOUND: dict[int | str, dict[str, Any]] = {
    404: {"description": "There is no such model, or it has no shadow (`shadow_not_found`)."}
}
HELD: dict[int | str, dict[str, Any]] = {
    409: {"description": "The version is not AVAILABLE, or a canary that judges by the shadow is under way."}
}
SHADOW: dict[str, Any] = {"version": 4, "share": 0.1, "agree_by": "tolerance", "absolute": 1e-05, "relative": 0.0001}
DISTRIBUTION: dict[str, Any] = {
    "count": 1200,
    "median": 2.4e-07,
    "p90": 5.7e-07,
    "p99": 9.6e-07,
    "largest": 1.1e-06,
    "histogram": [{"up_to": 5e-07, "count": 1000}, {"up_to": 1e-06, "count": 200}],
}
COMPARISON: dict[str, Any] = {
    "compared": 1200, "agreed": 1200, "agreement": 1.0, "within_tolerance": 1200, "instances": 4800,
    "top1_agreed": 4800, "top1_agreement": 1.0, "unlike": 0, "failed": 0, "dropped": 3, "difference": DISTRIBUTION,
    "stable_seconds": DISTRIBUTION, "shadow_seconds": DISTRIBUTION,
}  # fmt: skip
Tolerance = Annotated[StrictFloat, Field(ge=0, le=1e30, allow_inf_nan=False)]


class ShadowBody(BaseModel):
    """Which version gets a copy of how much, and when two answers agree."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [SHADOW]})

    version: StrictInt = Field(ge=1, le=HIGHEST_VERSION, description="An AVAILABLE version.")
    share: StrictFloat = Field(0.1, gt=0, le=1, description="The share of answered predictions that is copied.")
    agree_by: AgreeBy = Field(
        AgreeBy.TOLERANCE,
        description=(
            "`tolerance`: every number within `absolute + relative * |y|`; `top1`: the largest output of every"
            " instance at the same place (where outputs are no classes, within the tolerance)."
        ),
    )
    absolute: Tolerance = 1e-5
    relative: Tolerance = 1e-4


class ShadowShown(ShadowBody):
    """A model's shadow."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"model": "mnist", **SHADOW, "since": "2026-01-02T03:04:05.000Z"}]}
    )

    model: str
    since: str = Field(description="When it was set; its figures are from then on.")


class BucketShown(BaseModel):
    """How many values lie above the bound before this one, and not above this."""

    up_to: float
    count: int


class DistributionShown(BaseModel):
    """Of values; quantiles and bounds are a tenth off at most. Null of none."""

    model_config = ConfigDict(json_schema_extra={"examples": [DISTRIBUTION]})

    count: int
    median: float | None
    p90: float | None
    p99: float | None
    largest: float | None
    histogram: list[BucketShown]


class ComparisonShown(BaseModel):
    """What came of the copies of requests that one version answered, or of all."""

    model_config = ConfigDict(json_schema_extra={"examples": [COMPARISON]})

    compared: int = Field(description="Pairs of answers.")
    agreed: int = Field(description="Of these, those that agree by the shadow's `agree_by`.")
    agreement: float | None = Field(description="The share that agrees of all pairs and failed copies.")
    within_tolerance: int
    instances: int = Field(description="Instances whose outputs are numbers for several classes.")
    top1_agreed: int = Field(description="Of these, with the largest at the same place.")
    top1_agreement: float | None
    unlike: int = Field(description="Pairs with other names, shapes or texts, or NaN on one side: no difference.")
    failed: int = Field(description="Copies that the shadow answered with an error.")
    dropped: int = Field(
        description="Copies that were not made or not answered: too much going on, or answers too long to compare."
    )
    difference: DistributionShown = Field(description="The largest absolute difference of each pair.")
    stable_seconds: DistributionShown = Field(description="What the answers took.")
    shadow_seconds: DistributionShown = Field(
        description="What the copies took, at bulk priority: waiting behind other work is part of it."
    )


class ReportShown(ComparisonShown):
    """All of it together, and by the version that answered."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"model": "mnist", "shadow": SHADOW, **COMPARISON, "versions": {"3": COMPARISON}}]
        }
    )

    model: str
    shadow: ShadowBody
    versions: dict[str, ComparisonShown]


@router.get("/{model}/shadow", summary="Show a model's shadow", responses=NOT_FOUND)
def show_shadow(viewer: Viewer, session: Reading, model: ModelName) -> ShadowShown:  # noqa: ARG001 - asking is the check
    find_model(session, model)
    return _shown(model, shadows.shadow_of(session, model))


@router.put(
    "/{model}/shadow",
    summary="Copy a share of a model's traffic to another version",
    description=(
        "Predictions that another version of the model answered are asked once more of this one, at bulk priority, and"
        " the answers are compared. Callers do not notice: nothing of it is part of their answers, their waiting or"
        " their limits. Submits are not copied. Setting it again begins its figures anew."
    ),
    responses=NOT_FOUND | HELD,
)
def replace_shadow(
    request: Request, admin: Router, session: Writing, model: ModelName, body: ShadowBody
) -> ShadowShown:
    note(request, version=body.version, share=body.share, agree_by=body.agree_by.value)
    find_model(session, model)
    wanted = Shadow(body.version, body.share, body.agree_by, body.absolute, body.relative)
    shadow = shadows.set_shadow(session, model, wanted)
    log.info("version %d is the shadow of model %s, by %s", body.version, model, admin.client_id)
    return _shown(model, shadow)


@router.delete(
    "/{model}/shadow",
    status_code=204,
    summary="End a model's shadow",
    description="Its figures are forgotten.",
    responses=NOT_FOUND | HELD,
)
def remove_shadow(admin: Router, session: Writing, model: ModelName) -> None:
    find_model(session, model)
    shadows.clear_shadow(session, model)
    log.info("shadow of model %s ended by %s", model, admin.client_id)


@router.get(
    "/{model}/shadow/report",
    summary="What came of a model's shadow",
    description="Agreement, differences and times of all gateways, about two seconds old at most.",
    responses=NOT_FOUND,
)
def show_shadow_report(viewer: Viewer, session: Reading, model: ModelName) -> ReportShown:  # noqa: ARG001 - as above
    find_model(session, model)
    shadow = shadows.shadow_of(session, model)
    by_version = shadows.compared(session, model, shadow)
    return ReportShown(
        model=model,
        shadow=_body(shadow),
        versions={str(number): ComparisonShown(**_comparison(found)) for number, found in sorted(by_version.items())},
        **_comparison(shadows.compared_with_all(session, model, shadow)),
    )


def _body(shadow: Shadow) -> ShadowBody:
    return ShadowBody(
        version=shadow.version,
        share=shadow.share,
        agree_by=shadow.agree_by,
        absolute=shadow.absolute,
        relative=shadow.relative,
    )


def _shown(model: str, shadow: Shadow) -> ShadowShown:
    return ShadowShown(model=model, since=moment(shadow.run), **_body(shadow).model_dump())


def _comparison(found: Comparison) -> dict[str, Any]:
    return {
        "compared": found.compared,
        "agreed": found.agreed,
        "agreement": found.agreement,
        "within_tolerance": found.within,
        "instances": found.instances,
        "top1_agreed": found.top1,
        "top1_agreement": found.top1 / found.instances if found.instances else None,
        "unlike": found.unlike,
        "failed": found.failed,
        "dropped": found.dropped,
        "difference": _distribution(found.difference),
        "stable_seconds": _distribution(found.stable_seconds),
        "shadow_seconds": _distribution(found.shadow_seconds),
    }


def _distribution(found: Distribution) -> DistributionShown:
    return DistributionShown(
        count=found.count,
        median=found.median,
        p90=found.p90,
        p99=found.p99,
        largest=found.largest,
        histogram=[BucketShown(up_to=bound, count=count) for bound, count in found.histogram],
    )
