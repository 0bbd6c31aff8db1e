"""Which versions of a model serve: its policy, one step back, and versions that come back."""

from __future__ import annotations

import logging
from typing import Annotated, Any, Literal, Self

from fastapi import APIRouter, Request
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, StrictInt, TypeAdapter, model_validator

from auth.grants import HIGHEST_VERSION
from gateway import model_views
from gateway.audit_trail import note
from gateway.dependencies import TokenFirst, parts
from gateway.model_views import VersionShown
from gateway.routes.admin_models import IN_USE, NOT_FOUND, RETIRING, ModelName, Number, Reading, Retirer, Viewer
from gateway.version_moves import WarmedUp, reading, warm, writing
from model_store import line_up
from model_store.listing import find_model, find_version
from model_store.version_policies import MOST_SPECIFIC, VersionPolicy, policy_of

log = logging.getLogger(__name__)

router = APIRouter(prefix="/admin/models", tags=["Models"], route_class=TokenFirst)

MOVED: dict[int | str, dict[str, Any]] = {
    409: {"description": "A version that would come back fails its warm-up, or others moved versions; `detail` says."}
}

# A literal takes what is equal to it, and 1 is.
_boolean = TypeAdapter(StrictBool).validate_python


class VersionPolicyBody(BaseModel):
    """One of three, in TensorFlow Serving's words."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"latest": 2}, {"all": True}, {"specific": [3, 5]}]}
    )

    latest: StrictInt | None = Field(None, ge=1, le=HIGHEST_VERSION, description="So many of the newest serve.")
    all: Annotated[Literal[True], BeforeValidator(_boolean)] | None = Field(
        None, description="All serve that nobody retired: the default."
    )
    specific: list[Annotated[StrictInt, Field(ge=1, le=HIGHEST_VERSION)]] | None = Field(
        None, min_length=1, max_length=MOST_SPECIFIC, description="These serve, and no others."
    )

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(given is not None for given in (self.latest, self.all, self.specific)) != 1:
            raise ValueError("give one of latest, all and specific")
        return self

    def policy(self) -> VersionPolicy:
        return VersionPolicy(self.latest, None if self.specific is None else frozenset(self.specific))


class VersionPolicyShown(BaseModel):
    """The policy: of `latest`, `all` and `specific` the one that it is, the others null."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"latest": 2, "all": None, "specific": None}]})

    latest: int | None
    all: Literal[True] | None
    specific: list[int] | None


class KeptVersion(BaseModel):
    """A version that stays all the same."""

    version: int
    by: list[str] = Field(
        description="Labels that point to it, as `label stable`, and `traffic` that goes to it; none of these where"
        " nothing that the policy wants serves yet."
    )


class VersionPolicySet(VersionPolicyShown):
    """The policy, and what it changed."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"latest": 1, "all": None, "specific": None, "restored": [], "leaving": [1], "kept": []}],
        }
    )

    restored: list[WarmedUp] = Field(description="Versions that came back, warmed up before.")
    leaving: list[int] = Field(description="Versions that leave: jobs that were submitted to them still run.")
    kept: list[KeptVersion] = Field(description="Versions that serve though the policy does not want them.")


class RolledBack(BaseModel):
    """What a bare name meant and means now."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"model": "mnist", "version": 1, "rolled_back": 2, "restored": []}]}
    )

    model: str
    version: int = Field(description="What the bare name means now.")
    rolled_back: int = Field(description="What it meant before; it stays for labels that point to it, else it leaves.")
    restored: list[WarmedUp] = Field(description="Versions that came back, warmed up before.")


@router.get(
    "/{model}/version-policy",
    summary="Show a model's version policy",
    description="`all` where none was set.",
    responses={404: {"description": "There is no such model."}},
)
def show_version_policy(
    viewer: Viewer,  # noqa: ARG001 - asking for it is the check
    session: Reading,
    model: ModelName,
) -> VersionPolicyShown:
    find_model(session, model)
    return VersionPolicyShown(**_shown(policy_of(session, model)))


@router.put(
    "/{model}/version-policy",
    summary="Set a model's version policy",
    description=(
        "Versions that the policy wants and that had left are loaded, warmed up and come back; then those that it does"
        " not want leave, except those that labels point to or traffic goes to. Where none that it wants can serve yet,"
        " nothing leaves. New versions follow it when they are prepared. Holds at every gateway within a second."
    ),
    responses=NOT_FOUND | MOVED,
)
def set_version_policy(request: Request, admin: Retirer, model: ModelName, body: VersionPolicyBody) -> VersionPolicySet:
    policy = body.policy()
    note(request, policy=policy.text)
    with reading(request) as session:
        find_model(session, model)
        for number in sorted(policy.specific or ()):
            find_version(session, model, number)
        plan = line_up.planned(session, model, policy)
    warmed = warm(parts(request), model, plan.restore)
    RETIRING.check_again(request, admin)
    with writing(request) as session:
        moved = line_up.follow(session, model, policy)
        note(request, restored=list(moved.restore), leaving=list(moved.leave))
        kept = [KeptVersion(version=number, by=by) for number, by in line_up.kept(session, model, policy).items()]
    log.info("version policy of model %s is %s, by %s", model, policy.text, admin.client_id)
    came = [one for one in warmed if one.version in moved.restore]
    return VersionPolicySet(**_shown(policy), restored=came, leaving=list(moved.leave), kept=kept)


@router.post(
    "/{model}/rollback",
    summary="Roll a model back",
    description=(
        "A bare name means the version before again, which comes back, warmed up, if it had left. The version that it"
        " meant leaves, unless labels point to it; `restore` undoes that. Refused while traffic is split."
    ),
    responses=NOT_FOUND | {409: {"description": "There is no version before, or something still uses this one."}},
)
def roll_back_model(request: Request, admin: Retirer, model: ModelName) -> RolledBack:
    with reading(request) as session:
        find_model(session, model)
        step = line_up.step_back(session, model)
    warmed = warm(parts(request), model, step.restore)
    RETIRING.check_again(request, admin)
    note(request, version=step.to, rolled_back=step.version)
    with writing(request) as session:
        line_up.roll_back(session, model, step)
    log.info("model %s rolled back from version %d to %d by %s", model, step.version, step.to, admin.client_id)
    return RolledBack(model=model, version=step.to, rolled_back=step.version, restored=warmed)


@router.post(
    "/{model}/versions/{version}/restore",
    summary="Bring a version back",
    description=(
        "One that was AVAILABLE before and was retired, rolled back from, or let go by a policy: it is loaded, warmed"
        " up, and AVAILABLE again. To restore one that serves changes nothing."
    ),
    responses=NOT_FOUND | IN_USE,
)
def restore_version(request: Request, admin: Retirer, model: ModelName, version: Number) -> VersionShown:
    with reading(request) as session:
        line_up.require_restorable(session, model, version)
    warm(parts(request), model, [version])
    RETIRING.check_again(request, admin)
    with writing(request) as session:
        line_up.require_restorable(session, model, version)
        line_up.restore(session, model, [version])
        line_up.settle(session, model)
        shown = model_views.show_version(session, model, version)
    log.info("version %s of model %s restored by %s", version, model, admin.client_id)
    return shown


def _shown(policy: VersionPolicy) -> dict[str, Any]:
    return {
        "latest": policy.latest,
        "all": True if policy.latest is None and policy.specific is None else None,
        "specific": None if policy.specific is None else sorted(policy.specific),
    }
