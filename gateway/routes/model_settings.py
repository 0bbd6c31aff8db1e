"""Administration of what is said of models and versions, and of how models run."""

from __future__ import annotations

import logging
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request

from auth.grants import Action
from auth.scopes import Scope
from gateway.admission import Caller
from gateway.audit_trail import note
from gateway.class_names import require_names_fit
from gateway.dependencies import TokenFirst
from gateway.model_descriptions import MetadataBody, SettingsBody, show_metadata, show_settings
from gateway.model_rights import RequireOnModel
from gateway.routes.admin_models import NOT_FOUND, ModelName, Number, Reading, Retirer, Uploader, Viewer, Writing
from model_store import model_settings
from model_store.listing import find_model, find_version, newest_signature
from model_store.signature import Signature

log = logging.getLogger(__name__)

router = APIRouter(prefix="/admin/models", tags=["Models"], route_class=TokenFirst)

# The same may be read by who may use the model: how an input is made is no secret of its administrators.
Known = Annotated[
    Caller, Depends(RequireOnModel(Scope.MODELS_READ, Action.METADATA, Scope.MODELS_WRITE, Scope.PREDICT))
]


@router.get(
    "/{model}/settings",
    summary="Show a model's settings",
    description="How its versions run, and what describes them unless a version says otherwise.",
    responses=NOT_FOUND,
)
def show_model_settings(viewer: Viewer, session: Reading, model: ModelName) -> SettingsBody:  # noqa: ARG001 - asking is the check
    find_model(session, model)
    return show_settings(model_settings.settings_of(session, model))


@router.put(
    "/{model}/settings",
    summary="Replace a model's settings",
    description=(
        "All of them: what is not named becomes null. Gateways go by them within a second; a worker that has a version"
        " loaded, soon after."
    ),
    responses=NOT_FOUND,
)
def replace_model_settings(
    request: Request, admin: Retirer, session: Writing, model: ModelName, body: SettingsBody
) -> SettingsBody:
    note(request, settings=body.model_dump_json(include={"pool", "pinned", "max_parallelism", "max_instances", "tags"}))
    find_model(session, model)
    if body.class_names != show_settings(model_settings.settings_of(session, model)).class_names:
        require_names_fit(body.class_names, newest_signature(session, model))
    model_settings.replace_settings(session, model, body.settings())
    log.info("settings of model %s replaced by %s", model, admin.client_id)
    return body


@router.get(
    "/{model}/versions/{version}/metadata",
    summary="Show what describes a version",
    description="What is said of it alone, else what its model's settings say.",
    responses=NOT_FOUND,
)
def show_version_metadata(
    known: Known,  # noqa: ARG001 - asking for it is the check
    session: Reading,
    model: ModelName,
    version: Number,
    own: Annotated[bool, Query(description="Only what is said of the version alone.")] = False,
) -> MetadataBody:
    find_version(session, model, version)
    told = model_settings.own_metadata if own else model_settings.metadata_of
    return show_metadata(told(session, model, version))


@router.put(
    "/{model}/versions/{version}/metadata",
    summary="Replace what is said of one version",
    description="In place of what its model's settings say; null leaves it to them. What the version computes stays.",
    responses=NOT_FOUND,
)
def replace_version_metadata(
    request: Request, admin: Uploader, session: Writing, model: ModelName, version: Number, body: MetadataBody
) -> MetadataBody:
    note(request, metadata=sorted(body.model_dump(exclude_none=True)))
    row = find_version(session, model, version)
    require_names_fit(body.class_names, None if row.signature is None else Signature.from_json(row.signature))
    model_settings.replace_metadata(session, model, version, body.metadata())
    log.info("metadata of version %s of model %s replaced by %s", version, model, admin.client_id)
    return show_metadata(model_settings.metadata_of(session, model, version))
