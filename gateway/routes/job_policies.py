"""Administration of job policies: what the jobs of one model may take of time and attempts."""

from __future__ import annotations

import logging
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request
from pydantic import BaseModel, ConfigDict, Field, StrictFloat, StrictInt
from sqlalchemy.orm import Session

from auth.grants import Action
from auth.scopes import Scope
from gateway.admission import Caller
from gateway.audit_trail import note
from gateway.dependencies import TokenFirst, open_session, read_session
from gateway.model_rights import RequireOnModel
from gateway.submit_options import LONGEST_SECONDS, MOST_ATTEMPTS
from model_store import job_policies
from model_store.job_policies import NO_POLICY, JobPolicy
from model_store.listing import find_model

log = logging.getLogger(__name__)

router = APIRouter(prefix="/admin/models", tags=["Models"], route_class=TokenFirst)

Viewer = Annotated[Caller, Depends(RequireOnModel(Scope.MODELS_READ, Action.METADATA, Scope.MODELS_WRITE))]
# A policy can keep a model from being used by jobs, as retiring its versions does.
Retirer = Annotated[Caller, Depends(RequireOnModel(Scope.MODELS_WRITE, Action.RETIRE))]
Writing = Annotated[Session, Depends(open_session, scope="function")]
Reading = Annotated[Session, Depends(read_session, scope="function")]
# PostgreSQL refuses a NUL in a text with an error of its own.
ModelName = Annotated[str, Path(pattern=r"^[^\x00]*$", description="The model's name.", examples=["mnist"])]
Seconds = Annotated[StrictFloat | None, Field(gt=0, le=LONGEST_SECONDS, allow_inf_nan=False)]

NOT_FOUND: dict[int | str, dict[str, Any]] = {404: {"description": "There is no such model."}}


class JobPolicyBody(BaseModel):
    """What a model's jobs may take; null is what the settings say."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"deadline_seconds": 3600, "max_attempts": 2, "queue_seconds": 600}]},
    )

    deadline_seconds: Seconds = Field(
        None, description="How long a job may wait before it expires; a job's own deadline may be shorter."
    )
    max_attempts: StrictInt | None = Field(
        None, ge=1, le=MOST_ATTEMPTS, description="How often a job is tried at most where machines fail under it."
    )
    queue_seconds: Seconds = Field(
        None, description="Jobs that would wait longer than this are not accepted: 503 `queue_too_old`."
    )

    def policy(self) -> JobPolicy:
        return JobPolicy(self.deadline_seconds, self.max_attempts, self.queue_seconds)


@router.get(
    "/{model}/jobs-policy",
    summary="Show a model's job policy",
    description="All null where it has none.",
    responses=NOT_FOUND,
)
def show_policy(viewer: Viewer, session: Reading, model: ModelName) -> JobPolicyBody:  # noqa: ARG001 - asking is the check
    find_model(session, model)
    return _shown(job_policies.policy_of(session, model))


@router.put(
    "/{model}/jobs-policy",
    summary="Replace a model's job policy",
    description="Holds at every gateway within a second, for jobs that are submitted from then on.",
    responses=NOT_FOUND,
)
def replace_policy(
    request: Request, admin: Retirer, session: Writing, model: ModelName, body: JobPolicyBody
) -> JobPolicyBody:
    note(request, policy=body.model_dump_json(exclude_none=True))
    find_model(session, model)
    job_policies.set_policy(session, model, body.policy())
    log.info("job policy of model %s replaced by %s", model, admin.client_id)
    return body


@router.delete("/{model}/jobs-policy", status_code=204, summary="Remove a model's job policy", responses=NOT_FOUND)
def remove_policy(admin: Retirer, session: Writing, model: ModelName) -> None:
    find_model(session, model)
    job_policies.set_policy(session, model, NO_POLICY)
    log.info("job policy of model %s removed by %s", model, admin.client_id)


def _shown(policy: JobPolicy) -> JobPolicyBody:
    return JobPolicyBody(
        deadline_seconds=policy.deadline_seconds,
        max_attempts=policy.max_attempts,
        queue_seconds=policy.queue_seconds,
    )
