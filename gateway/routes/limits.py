"""Administration of limits: how much one client may ask for, of everything or of one model."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request
from pydantic import BaseModel, ConfigDict, Field, StrictFloat, StrictInt
from sqlalchemy.orm import Session

from auth import limits, quotas
from auth.errors import LimitInvalid
from auth.limits import (
    EVERYTHING,
    HIGHEST_COUNT,
    HIGHEST_QUOTA,
    HIGHEST_RATE,
    LONGEST_KEPT_SECONDS,
    MOST_LIMITS,
    Bounds,
)
from auth.quotas import Used
from auth.scopes import Scope
from gateway.admission import Caller
from gateway.audit_trail import note
from gateway.dependencies import Require, TokenFirst, open_session, read_session

log = logging.getLogger(__name__)

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"

router = APIRouter(prefix="/admin/clients", tags=["Clients"], route_class=TokenFirst)

Admin = Annotated[Caller, Depends(Require(Scope.CLIENTS_ADMIN))]
Writing = Annotated[Session, Depends(open_session, scope="function")]
Reading = Annotated[Session, Depends(read_session, scope="function")]
ClientId = Annotated[str, Path(description="The client's id: `cli_…`.", examples=["cli_4mZQhVYwW0qK7bN2sT9xLd3R"])]
Count = Annotated[StrictInt | None, Field(ge=1, le=HIGHEST_COUNT)]
Quota = Annotated[StrictInt | None, Field(ge=0, le=HIGHEST_QUOTA)]

NOT_FOUND: dict[int | str, dict[str, Any]] = {404: {"description": "There is no such client."}}
EXAMPLES: list[Any] = [
    {
        "limits": [
            {"requests_per_second": 100, "burst": 200, "concurrent_requests": 50, "queued_jobs": 10_000},
            {"model": "mnist", "instances_per_day": 1_000_000},
        ]
    }
]


class LimitBody(BaseModel):
    """The bounds of a client on one model, or on everything that it asks for; what is not given is no bound."""

    model_config = ConfigDict(extra="forbid")

    model: Annotated[str, Field(pattern=NAME_PATTERN)] | None = Field(
        None, description="The model; without it, the bounds are on everything."
    )
    requests_per_second: StrictFloat | None = Field(None, gt=0, le=HIGHEST_RATE, allow_inf_nan=False)
    burst: Count = Field(
        None, description="Requests that may come at once; without it as many as may come in a second."
    )
    instances_per_day: Quota = Field(None, description="Instances predicted in a day of UTC.")
    concurrent_requests: Count = Field(None, description="Requests that are answered at the same time.")
    queued_jobs: StrictInt | None = Field(None, ge=0, le=HIGHEST_COUNT, description="Jobs that wait.")
    running_jobs: Count = Field(None, description="Jobs that run at the same time; the others wait.")
    body_bytes: Quota = Field(None, description="Largest body of a request.")
    bytes_per_day: Quota = Field(None, description="Bytes of requests' bodies in a day of UTC.")
    job_keep_seconds: StrictInt | None = Field(
        None,
        ge=0,
        le=LONGEST_KEPT_SECONDS,
        description="How long ended jobs are kept, with inputs and results; of all jobs of the client only.",
    )

    def bounds(self) -> Bounds:
        return Bounds(**self.model_dump(include=set(limits.FIELDS)))


class LimitsBody(BaseModel):
    """All limits of a client."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": EXAMPLES})

    limits: list[LimitBody] = Field(max_length=MOST_LIMITS)


class LimitShown(LimitBody):
    """A limit, and what of its daily quotas was used as of half a second ago."""

    instances_today: int = 0
    bytes_today: int = 0


class LimitsShown(BaseModel):
    """All limits of a client, those on everything first."""

    model_config = ConfigDict(json_schema_extra={"examples": EXAMPLES})

    limits: list[LimitShown]


@router.get(
    "/{client_id}/limits",
    summary="Show a client's limits",
    description="With what it used today of those that have a daily quota.",
    responses=NOT_FOUND,
)
def show_limits(admin: Admin, session: Reading, client_id: ClientId) -> LimitsShown:  # noqa: ARG001 - asking is the check
    return _shown(session, client_id)


@router.put(
    "/{client_id}/limits",
    summary="Replace a client's limits",
    description=(
        "The list replaces all limits; they hold at every gateway within a second. A request has to keep to those on "
        "everything and to those on its model. Where those on everything name no bound, the settings "
        "`SLUICE_CLIENT_…`, `SLUICE_QUEUED_JOBS_LIMIT` and `SLUICE_BODY_LIMIT_BYTES` do."
    ),
    responses=NOT_FOUND,
)
def replace_limits(
    request: Request, admin: Admin, session: Writing, client_id: ClientId, body: LimitsBody
) -> LimitsShown:
    note(request, limits=body.model_dump_json(exclude_none=True))
    given = {limit.model or EVERYTHING: limit.bounds() for limit in body.limits}
    if len(given) < len(body.limits):
        raise LimitInvalid("a model is named twice, or two limits are on everything")
    limits.set_limits(session, client_id, given)
    log.info("limits of client %s replaced by %s", client_id, admin.client_id)
    return _shown(session, client_id)


def _shown(session: Session, client_id: str) -> LimitsShown:
    found = limits.limits_of(session, client_id)
    used = quotas.used_today(session, client_id)
    return LimitsShown(
        limits=[_limit(model, bounds, used.get((client_id, model), Used())) for model, bounds in found.items()]
    )


def _limit(model: str, bounds: Bounds, used: Used) -> LimitShown:
    values: Mapping[str, Any] = {name: getattr(bounds, name) for name in limits.FIELDS}
    return LimitShown(model=model or None, **values, instances_today=used.instances, bytes_today=used.bytes)
