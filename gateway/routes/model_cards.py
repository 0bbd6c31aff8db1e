"""Model cards, and the evaluation on labelled samples that they show."""

from __future__ import annotations

import contextlib
import logging
from datetime import UTC, datetime

from anyio.to_thread import run_sync
from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from gateway import model_views
from gateway.audit_trail import note
from gateway.dependencies import TokenFirst, open_session, parts, read_session
from gateway.evaluating import evaluate
from gateway.model_card import POLICY, Facts, card
from gateway.routes.admin_models import NOT_FOUND, ModelName, Number, Reading, Uploader, Viewer
from model_store import samples
from model_store.environment import Environment
from model_store.evaluations import Evaluation, evaluation_of, keep_evaluation
from model_store.listing import find_version
from model_store.model_settings import metadata_of, settings_of
from model_store.samples import Kind

log = logging.getLogger(__name__)

router = APIRouter(prefix="/admin/models", tags=["Models"], route_class=TokenFirst)


class EvaluationShown(BaseModel):
    """How a version answered its model's labelled samples."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "samples_digest": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                    "instances": 200,
                    "right": 197,
                    "accuracy": 0.985,
                    "counts": [[99, 1], [2, 98]],
                    "created_at": "2026-11-22T13:10:00.123000Z",
                }
            ]
        }
    )

    samples_digest: str
    instances: int
    right: int
    accuracy: float
    counts: list[list[int]] = Field(
        description="Row i and column j: samples of class i that were taken for class j; empty beyond 100 classes."
    )
    created_at: datetime


@router.post(
    "/{model}/versions/{version}/evaluation",
    summary="Evaluate a version on its model's labelled samples",
    description=(
        "Asks the version for at most the first 20,000 samples at bulk priority, counts what it took for what, and"
        " keeps that for its model card."
    ),
    responses={
        400: {"description": "The samples do not fit this version."},
        404: {"description": "There is no such model or version, or the model has no labelled samples."},
        409: {"description": "The version is not AVAILABLE, or failed on a sample."},
        503: {"description": "The version is still being prepared, or the queue cannot be reached."},
        504: {"description": "No worker answered in time, or all samples took more than two minutes."},
    },
)
async def evaluate_version(request: Request, admin: Uploader, model: ModelName, version: Number) -> EvaluationShown:
    digest = await run_sync(_labelled, request, model, version)
    known = parts(request).snapshot.catalog.resolve(model, version)
    found = await evaluate(parts(request), admin.client_id, model, known, digest)
    shown = await run_sync(_keep, request, model, version, found)
    log.info("version %s of model %s evaluated by %s", version, model, admin.client_id)
    return shown


@router.get(
    "/{model}/versions/{version}/card",
    summary="A version's model card",
    description="One page of HTML with everything in it: what the version is, takes, answers and was measured to do.",
    response_class=HTMLResponse,
    responses=NOT_FOUND | {200: {"description": "The page.", "content": {"text/html": {}}}},
)
def show_card(viewer: Viewer, session: Reading, model: ModelName, version: Number) -> HTMLResponse:  # noqa: ARG001 - asking is the check
    headers = {"content-security-policy": POLICY, "cache-control": "no-store"}
    return HTMLResponse(card(_facts(session, model, version)), headers=headers)


def _facts(session: Session, model: str, version: int) -> Facts:
    shown = model_views.show_version(session, model, version)
    environment = find_version(session, model, version).environment
    return Facts(
        shown,
        settings_of(session, model),
        metadata_of(session, model, version),
        None if environment is None else Environment.from_json(environment),
        evaluation_of(session, model, version),
        samples.samples_of(session, model),
    )


def _labelled(request: Request, model: str, version: int) -> str:
    with contextlib.contextmanager(read_session)(request) as session:
        find_version(session, model, version)
        return samples.get(session, model, Kind.LABELLED).digest


def _keep(request: Request, model: str, version: int, found: Evaluation) -> EvaluationShown:
    # A transaction of its own, not the request's: predictions take seconds, and SQLite has one writer.
    with contextlib.contextmanager(open_session)(request) as session:
        note(request, samples=found.samples_digest, right=found.right, instances=found.instances)
        find_version(session, model, version)
        keep_evaluation(session, model, version, found)
        kept = evaluation_of(session, model, version) or found
    return EvaluationShown(
        samples_digest=kept.samples_digest,
        instances=kept.instances,
        right=kept.right,
        accuracy=kept.accuracy,
        counts=[list(line) for line in kept.counts],
        created_at=datetime.fromtimestamp(kept.created_at / 1000, UTC),
    )
