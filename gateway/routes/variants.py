"""Administration of variants: a model's variant policy, preparing a version again, and comparing two reports."""

from __future__ import annotations

import json
import logging
from typing import Annotated, Any

from fastapi import APIRouter, BackgroundTasks, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictFloat

from gateway import model_views, report_comparison
from gateway.audit_trail import note
from gateway.dependencies import TokenFirst, parts
from gateway.report_comparison import Comparison
from gateway.routes.admin_models import (
    HIGHEST_VERSION,
    NOT_FOUND,
    ModelName,
    Number,
    Reading,
    Uploader,
    Viewer,
    Writing,
)
from gateway.upload_description import Accepted
from model_store import variant_policies
from model_store.catalog import not_found
from model_store.errors import PreparationRunning, VersionNotAvailable
from model_store.listing import find_model, find_version
from model_store.tables import State
from model_store.variant_policies import DEFAULT, NAMES, SERVING, VariantPolicy
from workers.preparation import schedule
from workers.tables import Preparation

log = logging.getLogger(__name__)

router = APIRouter(prefix="/admin/models", tags=["Models"], route_class=TokenFirst)

REFUSED: dict[int | str, dict[str, Any]] = {
    409: {"description": "The version is not AVAILABLE, or it is being prepared already."}
}
# No list of wishes is longer than what there is to wish for.
Name = Annotated[str, Field(max_length=32, json_schema_extra={"enum": [*NAMES]})]
Names = Annotated[list[Name], Field(max_length=len(NAMES))]
Tolerance = Annotated[StrictFloat, Field(ge=0, le=1, allow_inf_nan=False)]


class VariantPolicyBody(BaseModel):
    """Which variants are made and kept, and which one serves."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "variants": ["onnx", "onnx-int8", "litert"],
                    "serve": "fastest_within_tolerance",
                    "absolute": 1e-05,
                    "relative": 0.0001,
                    "quantised": True,
                    "top1_floor": 0.99,
                }
            ]
        },
    )

    variants: Names = Field(
        list(DEFAULT.variants),
        description=f"Made and kept beside the one that serves: any of {', '.join(NAMES)}.",
    )
    serve: str = Field(
        DEFAULT.serve,
        max_length=32,
        json_schema_extra={"enum": [DEFAULT.serve, *SERVING]},
        description=f"`{DEFAULT.serve}`, or the one that serves whatever is faster: {', '.join(SERVING)}.",
    )
    absolute: Tolerance = Field(
        DEFAULT.absolute, description="Float variants are accepted within `absolute + relative * |y|` of the model."
    )
    relative: Tolerance = Field(DEFAULT.relative, description="See `absolute`.")
    quantised: StrictBool = Field(
        DEFAULT.quantised, description="Whether onnx-int8, pruned and onnx-fp16 may serve by being the fastest."
    )
    top1_floor: StrictFloat = Field(
        DEFAULT.top1_floor,
        gt=0,
        le=1,
        allow_inf_nan=False,
        description="Quantised variants are accepted from this share of equal answers on.",
    )

    def policy(self) -> VariantPolicy:
        return VariantPolicy(
            tuple(dict.fromkeys(self.variants)),
            self.serve,
            self.absolute,
            self.relative,
            self.quantised,
            self.top1_floor,
        )


@router.get(
    "/{model}/variant-policy",
    summary="Show a model's variant policy",
    description="What new versions are prepared with; the default where the model has none of its own.",
    responses=NOT_FOUND,
)
def show_variant_policy(viewer: Viewer, session: Reading, model: ModelName) -> VariantPolicyBody:  # noqa: ARG001 - asking is the check
    find_model(session, model)
    return _shown(variant_policies.policy_of(session, model))


@router.put(
    "/{model}/variant-policy",
    summary="Replace a model's variant policy",
    description=(
        "Holds for versions that are prepared from then on; `POST …/versions/{version}/prepare` applies it to one that"
        " serves. LiteRT's variants are measured and exported, and cannot be named to serve."
    ),
    responses=NOT_FOUND,
)
def replace_variant_policy(
    request: Request, admin: Uploader, session: Writing, model: ModelName, body: VariantPolicyBody
) -> VariantPolicyBody:
    policy = body.policy()
    note(request, policy=body.model_dump_json())
    find_model(session, model)
    variant_policies.set_policy(session, model, policy)
    log.info("variant policy of model %s replaced by %s", model, admin.client_id)
    return _shown(policy)


@router.delete(
    "/{model}/variant-policy", status_code=204, summary="Remove a model's variant policy", responses=NOT_FOUND
)
def remove_variant_policy(admin: Uploader, session: Writing, model: ModelName) -> None:
    find_model(session, model)
    variant_policies.delete_policy(session, model)
    log.info("variant policy of model %s removed by %s", model, admin.client_id)


@router.post(
    "/{model}/versions/{version}/prepare",
    status_code=202,
    summary="Prepare a version again",
    description=(
        "By the model's variant policy, or by the one in the body, from the file that was uploaded. The version serves"
        " meanwhile as it did. Where the preparation succeeds, its variants, its report and what serves are replaced;"
        " where it fails, nothing changes but `failed_repeat` in the report."
    ),
    responses=NOT_FOUND | REFUSED,
)
def prepare_version_again(  # noqa: PLR0913 - what FastAPI gives a route, each by its name
    request: Request,
    response: Response,
    admin: Uploader,
    session: Writing,
    model: ModelName,
    version: Number,
    afterwards: BackgroundTasks,
    body: VariantPolicyBody | None = None,
) -> Accepted:
    found = find_version(session, model, version)
    policy = variant_policies.policy_of(session, model) if body is None else body.policy()
    policy.check()
    if found.state != State.AVAILABLE:
        raise VersionNotAvailable(f"version {version} is {found.state}; only one that serves is prepared again")
    if not schedule.repeat(session, model, version, json.dumps(policy.to_json())):
        raise PreparationRunning(f"version {version} is being prepared; try again when that has ended")
    note(request, policy=json.dumps(policy.to_json()))
    # After the commit: a worker that came first would find nothing to do.
    afterwards.add_task(parts(request).publisher.prepare, model, version)
    log.info("version %s of model %s is prepared again, by %s", version, model, admin.client_id)
    location = f"/admin/models/{model}/versions/{version}"
    response.headers["location"] = location
    return Accepted(
        model=model,
        version=version,
        state=State(found.state),
        preparation=model_views.show_preparation(
            session.get_one(Preparation, (model, version), populate_existing=True)
        ),
        location=location,
    )


@router.get(
    "/{model}/versions/{version}/compare",
    summary="Compare two versions' reports",
    description="Variants, sizes, latency, parity and steps of the version and of another one, side by side.",
    responses=NOT_FOUND,
)
def compare_versions(
    request: Request,
    viewer: Viewer,
    session: Reading,
    model: ModelName,
    version: Number,
    other: Annotated[
        int, Query(alias="with", ge=1, le=HIGHEST_VERSION, description="The other version's number.", examples=[2])
    ],
) -> Comparison:
    if not parts(request).admission.sight(viewer).version(model, other):
        raise not_found(model, other)
    return report_comparison.compare(find_version(session, model, version), find_version(session, model, other))


def _shown(policy: VariantPolicy) -> VariantPolicyBody:
    return VariantPolicyBody.model_validate(policy.to_json())
