"""Administration of traffic: over which versions calls of a model by its bare name are split."""

from __future__ import annotations

import logging
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from auth.grants import Action
from auth.scopes import Scope
from gateway.admission import Caller
from gateway.audit_trail import note
from gateway.dependencies import TokenFirst, open_session, read_session
from gateway.model_rights import RequireOnModel, RequireOnWholeModel
from model_store import traffic
from model_store.listing import find_model
from model_store.names import NAME
from model_store.traffic import MOST_TARGETS, Traffic

log = logging.getLogger(__name__)

router = APIRouter(prefix="/admin/models", tags=["Traffic"], route_class=TokenFirst)

Viewer = Annotated[Caller, Depends(RequireOnWholeModel(Scope.MODELS_READ, Action.METADATA, Scope.MODELS_WRITE))]
# Where a name leads is decided by who may move labels; by a grant for the model as a whole.
Router = Annotated[Caller, Depends(RequireOnModel(Scope.MODELS_WRITE, Action.LABEL))]
Writing = Annotated[Session, Depends(open_session, scope="function")]
Reading = Annotated[Session, Depends(read_session, scope="function")]
# PostgreSQL refuses a NUL in a text with an error of its own.
ModelName = Annotated[str, Path(pattern=r"^[^\x00]*$", description="The model's name.", examples=["mnist"])]
Target = Annotated[str, Field(pattern=f"^{NAME.pattern}$")]
Weight = Annotated[float, Field(ge=0, le=1_000_000, allow_inf_nan=False)]
# A token of RFC 9110, section 5.1.
Sticky = Annotated[
    str | None,
    Field(
        pattern=r"^(?:client|header:[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64})$",
        description=(
            "By what a caller stays with the version that it got: `client`, or the value of a header"
            " (`header:X-User`); without that header, the client. Null: each call by chance."
        ),
    ),
]

NOT_FOUND: dict[int | str, dict[str, Any]] = {404: {"description": "There is no such model."}}
HELD: dict[int | str, dict[str, Any]] = {409: {"description": "A canary is under way (`canary_running`)."}}


class TrafficBody(BaseModel):
    """How calls by the bare name are split."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"weights": {"3": 90, "4": 10}, "sticky": "client"}]}
    )

    weights: dict[Target, Weight] = Field(
        min_length=1,
        max_length=MOST_TARGETS,
        description="A weight for each version's number, or label; what is all digits is a number.",
    )
    sticky: Sticky = None


class ShareShown(BaseModel):
    """The share of calls that one version gets."""

    version: int
    share: float = Field(description="From 0 to 1.")


class TrafficShown(BaseModel):
    """What was set, and where calls by the bare name go now."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": "mnist",
                    "weights": {"3": 90.0, "4": 10.0},
                    "sticky": "client",
                    "shares": [{"version": 3, "share": 0.9}, {"version": 4, "share": 0.1}],
                }
            ]
        }
    )

    model: str
    weights: dict[str, float] | None = Field(description="Null: no split is set.")
    sticky: str | None
    shares: list[ShareShown] = Field(
        description="Of AVAILABLE versions only: what is set for another goes to these. Empty: nothing serves."
    )


@router.get(
    "/{model}/traffic",
    summary="Show a model's traffic split",
    description="Without one, calls by the bare name go to the highest AVAILABLE version.",
    responses=NOT_FOUND,
)
def show_traffic(viewer: Viewer, session: Reading, model: ModelName) -> TrafficShown:  # noqa: ARG001 - asking is the check
    find_model(session, model)
    return _shown(session, model)


@router.put(
    "/{model}/traffic",
    summary="Split a model's traffic",
    description=(
        "Calls of the model by its bare name, predictions and submits alike, go to these versions by their weights, at"
        " every gateway within a second. Calls of a version or a label are not touched. A client gets only versions"
        " that it has a grant for. A target that leaves gives its share to the others."
    ),
    responses={
        404: {"description": "There is no such model, or no such label."},
        409: {"description": "A canary is under way, or a target is not AVAILABLE."},
    },
)
def replace_traffic(
    request: Request, admin: Router, session: Writing, model: ModelName, body: TrafficBody
) -> TrafficShown:
    note(request, weights=" ".join(f"{name}={weight:g}" for name, weight in body.weights.items()), sticky=body.sticky)
    find_model(session, model)
    traffic.set_traffic(session, model, Traffic(body.weights, body.sticky))
    log.info("traffic of model %s split by %s", model, admin.client_id)
    return _shown(session, model)


@router.delete(
    "/{model}/traffic",
    status_code=204,
    summary="End a model's traffic split",
    description="A bare name means the highest AVAILABLE version again.",
    responses=NOT_FOUND | HELD,
)
def remove_traffic(admin: Router, session: Writing, model: ModelName) -> None:
    find_model(session, model)
    traffic.clear_traffic(session, model)
    log.info("traffic split of model %s ended by %s", model, admin.client_id)


def _shown(session: Session, model: str) -> TrafficShown:
    found, split = traffic.traffic_of(session, model), traffic.current_split(session, model)
    if split is None:
        available = traffic.available_versions(session, model)
        shares = [(max(available), 1.0)] if available else []
    else:
        total = sum(weight for _, weight in split.shares)
        shares = [(number, weight / total) for number, weight in split.shares]
    return TrafficShown(
        model=model,
        weights=None if found is None else dict(found.weights),
        sticky=None if found is None else found.sticky,
        shares=[ShareShown(version=number, share=round(share, 6)) for number, share in shares],
    )
