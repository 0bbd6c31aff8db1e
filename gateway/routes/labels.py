"""Administration of labels: where they point, what they demand, and the way back."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, ConfigDict, Field, StrictInt
from sqlalchemy.orm import Session

from auth.grants import HIGHEST_VERSION, Action
from auth.scopes import Scope
from gateway.admission import Caller
from gateway.audit_trail import note
from gateway.dependencies import TokenFirst, parts
from gateway.gate_trials import Trials
from gateway.label_gates import OUTCOME_EXAMPLE, Gates, GatesBody, Outcome, gates_in
from gateway.model_rights import RequireOnModel
from gateway.routes.admin_models import IN_USE, NOT_FOUND, LabelName, ModelName, Reading, Viewer, Writing
from gateway.version_moves import WarmedUp, place, reading, warm, writing
from model_store import labels
from model_store.errors import SluiceError, VersionNotAvailable
from model_store.labels import Seen
from model_store.listing import find_model, find_version, labels_of
from model_store.names import check_name
from model_store.tables import State

log = logging.getLogger(__name__)

LABELLING = RequireOnModel(Scope.MODELS_WRITE, Action.LABEL)
Labeller = Annotated[Caller, Depends(LABELLING)]

router = APIRouter(prefix="/admin/models", tags=["Models"], route_class=TokenFirst)


NO_LABEL: dict[int | str, dict[str, Any]] = {404: {"description": "There is no such label."}}


class GatesNotPassed(SluiceError):
    """A version that did not pass the gates of the label that was to point to it; `gates` says which, with figures."""

    status = 409
    code = "gates_not_passed"

    def __init__(self, message: str, outcomes: Sequence[Outcome]) -> None:
        super().__init__(message)
        self.members = {"gates": [outcome.model_dump() for outcome in outcomes]}


class LabelBody(BaseModel):
    """Where a label is to point."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"version": 1}]})

    version: StrictInt = Field(ge=1, le=HIGHEST_VERSION, description="An AVAILABLE version.")


class LabelShown(BaseModel):
    """Where a label points, and pointed before."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"model": "mnist", "label": "stable", "version": 2, "previous": 1}]}
    )

    model: str
    label: str
    version: int
    previous: int | None = Field(description="What a roll-back would point it to.")


class LabelMoved(LabelShown):
    """Where a label points now; with what its gates found."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": "mnist", "label": "stable", "version": 2, "previous": 1, "dry_run": False,
                    "gates": [{**OUTCOME_EXAMPLE, "passed": True}],
                }
            ]
        }
    )  # fmt: skip

    dry_run: bool = Field(description="Whether it was only tried: then this is where the label would point.")
    gates: list[Outcome] = Field(description="What each gate that the label demands found.")


class LabelRolledBack(LabelShown):
    """Where a label points again."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"model": "mnist", "label": "stable", "version": 1, "previous": 2, "restored": []}]
        }
    )

    restored: list[WarmedUp] = Field(description="The version, where it came back, warmed up before.")


class LabelsPage(BaseModel):
    """A model's labels."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"labels": [{"model": "mnist", "label": "stable", "version": 2, "previous": 1}]}]
        }
    )

    labels: list[LabelShown]


@router.get(
    "/{model}/labels",
    summary="List a model's labels",
    description="Those on versions that the caller may see, with where each pointed before.",
    responses={404: {"description": "There is no such model."}},
)
def list_labels(request: Request, viewer: Viewer, session: Reading, model: ModelName) -> LabelsPage:
    find_model(session, model)
    sight = parts(request).admission.sight(viewer)
    shown = [
        LabelShown(
            model=model,
            label=label.name,
            version=label.version,
            previous=label.previous if label.previous and sight.version(model, label.previous) else None,
        )
        for label in labels_of(session, [model])
        if sight.version(model, label.version)
    ]
    return LabelsPage(labels=shown)


@router.put(
    "/{model}/labels/{label}",
    summary="Point a label to a version",
    description=(
        "Makes or moves the label; callers that use it get the new version within a second. Where the label demands"
        " gates, the version is tried at them first, which may take 30 seconds; with `dry_run` nothing is moved."
    ),
    responses=NOT_FOUND
    | {
        409: {
            "description": (
                "The version is not AVAILABLE; or it did not pass the label's gates, and `gates` says what each found;"
                " or the label was moved at the same time."
            )
        }
    },
)
def put_label(
    request: Request,
    admin: Labeller,
    model: ModelName,
    label: LabelName,
    body: LabelBody,
    dry_run: Annotated[bool, Query(description="Only say whether it would move.")] = False,
) -> LabelMoved:
    note(request, version=body.version)
    with reading(request) as session:
        seen = _movable(session, model, label, body.version)
    outcomes = _tried(request, model, label, body.version, seen)
    if dry_run:
        note(request, dry_run=True)
        previous = seen.version if seen.version != body.version else seen.previous
        moved = Seen(body.version, previous)
    else:
        LABELLING.check_again(request, admin)
        with writing(request) as session:
            moved = labels.set_label(session, model, label, body.version, seen=seen if outcomes else None)
        log.info("label %s of model %s points to version %s, by %s", label, model, body.version, admin.client_id)
    return LabelMoved(
        model=model, label=label, version=body.version, previous=moved.previous, dry_run=dry_run, gates=outcomes
    )


@router.delete(
    "/{model}/labels/{label}",
    status_code=204,
    summary="Delete a label",
    description="Its gates stay for a label that is made again under this name.",
    responses=NO_LABEL | IN_USE,
)
def delete_label(admin: Labeller, session: Writing, model: ModelName, label: LabelName) -> None:
    labels.delete_label(session, model, label)
    log.info("label %s of model %s deleted by %s", label, model, admin.client_id)


@router.post(
    "/{model}/labels/{label}/rollback",
    summary="Roll a label back",
    description=(
        "Points it to what it pointed to before, without asking its gates: that version served already. One that had"
        " left is loaded, warmed up and comes back. To roll back twice is to roll forth."
    ),
    responses=NOT_FOUND | {409: {"description": "It pointed to no other version before, or that does not come back."}},
)
def roll_back_label(request: Request, admin: Labeller, model: ModelName, label: LabelName) -> LabelRolledBack:
    with reading(request) as session:
        seen = labels.look(session, model, label)
        previous = labels.version_before(seen, model, label)
        gone = find_version(session, model, previous).state != State.AVAILABLE
    warmed = warm(parts(request), model, [previous] if gone else [])
    LABELLING.check_again(request, admin)
    note(request, version=previous, rolled_back=seen.version)
    with writing(request) as session:
        labels.roll_back(session, model, label, seen=seen)
    log.info("label %s of model %s rolled back to version %d by %s", label, model, previous, admin.client_id)
    return LabelRolledBack(model=model, label=label, version=previous, previous=seen.version, restored=warmed)


@router.get(
    "/{model}/labels/{label}/gates",
    summary="Show a label's gates",
    description="All null where it demands nothing.",
    responses={404: {"description": "There is no such model."}},
)
def show_gates(
    viewer: Viewer,  # noqa: ARG001 - asking for it is the check
    session: Reading,
    model: ModelName,
    label: LabelName,
) -> Gates:
    check_name(label, "label")
    find_model(session, model)
    return gates_in(labels.look(session, model, label).gates) or Gates()


@router.put(
    "/{model}/labels/{label}/gates",
    summary="Say what a label demands",
    description="Holds for every later move of it by `PUT`, also of one that is not there yet; roll-backs ask no gate.",
    responses={404: {"description": "There is no such model."}},
)
def put_gates(
    request: Request, admin: Labeller, session: Writing, model: ModelName, label: LabelName, body: GatesBody
) -> Gates:
    note(request, gates=body.model_dump_json(exclude_none=True))
    find_model(session, model)
    labels.set_gates(session, model, label, body.model_dump_json(exclude_none=True))
    log.info("gates of label %s of model %s replaced by %s", label, model, admin.client_id)
    return body


@router.delete(
    "/{model}/labels/{label}/gates",
    status_code=204,
    summary="Let a label demand nothing",
    responses={404: {"description": "There is no such model."}},
)
def delete_gates(admin: Labeller, session: Writing, model: ModelName, label: LabelName) -> None:
    find_model(session, model)
    labels.set_gates(session, model, label, None)
    log.info("gates of label %s of model %s removed by %s", label, model, admin.client_id)


def _movable(session: Session, model: str, label: str, version: int) -> Seen:
    """The label as it is; raises NameInvalid, ModelNotFound and VersionNotAvailable before anything is tried."""
    check_name(label, "label")
    state = find_version(session, model, version).state
    if state != State.AVAILABLE:
        raise VersionNotAvailable(f"version {version} is {state}; a label points to an AVAILABLE version only")
    return labels.look(session, model, label)


def _tried(request: Request, model: str, label: str, version: int, seen: Seen) -> list[Outcome]:
    """What the label's gates found; raises GatesNotPassed."""
    gates = gates_in(seen.gates)
    if gates is None:
        return []
    found = parts(request)
    trials = Trials(found.sessions, found.artifacts, found.settings, found.publisher)
    with place():
        outcomes = trials.run(gates, model, version, seen.version)
    note(request, gates={outcome.gate: outcome.detail for outcome in outcomes})
    failed = [outcome for outcome in outcomes if not outcome.passed]
    if failed:
        raise GatesNotPassed(
            f"label {label} stays: "
            + "; ".join(f"gate {outcome.gate} is not passed: {outcome.detail}" for outcome in failed),
            outcomes,
        )
    return outcomes
