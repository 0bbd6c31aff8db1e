"""Deleting a model with all that belongs to it, in one call."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Sequence

from fastapi import APIRouter, BackgroundTasks, Request
from sqlalchemy.orm import Session

from gateway.audit_trail import note
from gateway.dependencies import TokenFirst, parts
from gateway.parts import Parts
from gateway.routes.admin_models import HEARD_SECONDS, IN_USE, NOT_FOUND, RETIRING, ModelName, Retirer
from gateway.version_moves import writing
from model_store import deleted_models, partial_uploads
from model_store.errors import DatabaseUnavailable, StoreUnavailable, VersionInUse
from model_store.partial_uploads import Partial
from model_store.sweep import sweep
from workers import waiting

log = logging.getLogger(__name__)

router = APIRouter(prefix="/admin/models", tags=["Models"], route_class=TokenFirst)


@router.delete(
    "/{model}",
    status_code=204,
    summary="Delete a model",
    description=(
        "All of it at once, whatever serves: versions and their files, labels and their gates, traffic, shadow, canary,"
        " policies, settings, samples, evaluations, imports and unfinished uploads. Needs a grant for all its versions."
        " Refused, with nothing changed, while jobs for it wait or run. Takes the second in which every gateway hears"
        " that it ended: a job that one took until then keeps the model (409), whose versions have all ended then; to"
        " call again finishes it, as it does after a failure. Ended jobs, receipts, grants and limits that name it"
        " stay; a new model of its name goes on with the version numbers."
    ),
    responses=NOT_FOUND | IN_USE,
)
def delete_model(
    request: Request,
    admin: Retirer,
    model: ModelName,
    afterwards: BackgroundTasks,
) -> None:
    used = parts(request)
    with writing(request) as session:
        _require_no_jobs(session, model)
        uploads = deleted_models.withdraw(session, model)
        note(request, step="withdrawn")
    # Only after the commit, which background tasks follow, and also where the second step is refused or fails.
    _delete_parts(used, uploads)
    # Gateways that have not heard that it ended take jobs for it until they look again: these would only fail.
    time.sleep(HEARD_SECONDS)
    RETIRING.check_again(request, admin)
    with writing(request) as session:
        _require_no_jobs(session, model)
        uploads = deleted_models.forget(session, model)
        note(request, step="deleted")
    log.info("model %s deleted by %s", model, admin.client_id)
    afterwards.add_task(_clear, used, uploads)


def _clear(used: Parts, uploads: Sequence[Partial]) -> None:
    _delete_parts(used, uploads)
    # What is left now is taken by the next sweep.
    with contextlib.suppress(DatabaseUnavailable, StoreUnavailable):
        sweep(used.sessions, used.artifacts)


def _delete_parts(used: Parts, uploads: Sequence[Partial]) -> None:
    with contextlib.suppress(StoreUnavailable):
        for upload in uploads:
            partial_uploads.delete_parts(used.artifacts, upload)


def _require_no_jobs(session: Session, model: str) -> None:
    versions = ", ".join(str(number) for number in waiting.waited_for(session, model))
    if versions:
        raise VersionInUse(
            f"jobs for version {versions} wait or run: retire what serves, so that no more come, and try again when the"
            " jobs have ended or were canceled"
        )
