"""A model's own OpenAPI document: for whoever may look at it, with its shapes, its classes and bodies that work."""

from __future__ import annotations

import logging
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict
from sqlalchemy.orm import Session

from auth.grants import Action
from gateway.admission import Caller
from gateway.dependencies import parts, read_session
from gateway.model_interface import Facts, document
from gateway.routes.admin_models import Viewer
from gateway.routes.models import NOT_FOUND, NOT_READY, UNKNOWN_LABEL, KnownCaller, LabelName, ModelName, Number
from gateway.visible_models import model_name, version_number
from model_store import golden
from model_store.artifacts import Artifacts
from model_store.errors import SluiceError, VersionNotReady
from model_store.listing import find_version
from model_store.model_settings import metadata_of
from model_store.signature import Signature, Tensors

log = logging.getLogger(__name__)

# Of more values an example would be longer than it is worth.
MOST_SAMPLE_BYTES = 256 * 1024
# What is about a caller's rights must not be found in a cache by somebody else.
HEADERS = {"cache-control": "private, no-cache"}

Reading = Annotated[Session, Depends(read_session, scope="function")]


class InterfaceDocument(BaseModel):
    """An OpenAPI 3.1 document about one version."""

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={
            "examples": [
                {
                    "openapi": "3.1.0",
                    "info": {"title": "linear", "version": "1", "description": "* takes `x: float32 [-1, 2]`"},
                    "servers": [{"url": "/"}],
                    "paths": {
                        "/v1/models/linear:predict": {"post": {"summary": "Predict (TensorFlow Serving)"}},
                    },
                }
            ]
        },
    )

    openapi: str
    info: dict[str, Any]
    paths: dict[str, Any]


DOCUMENT: dict[str, Any] = {
    "description": "Its paths under every protocol, with its own shapes, its classes, and a body that works.",
    "response_class": JSONResponse,
}
FOUND: dict[int | str, dict[str, Any]] = {200: {"model": InterfaceDocument, "description": "The document."}}

router = APIRouter(tags=["Models in use"])
own = APIRouter(prefix="/v1/models")


@own.get(
    "/{model}/versions/{version}/openapi.json",
    summary="A version's own description",
    responses=FOUND | NOT_FOUND | NOT_READY,
    **DOCUMENT,
)
def version_interface(
    request: Request, caller: KnownCaller, session: Reading, model: ModelName, version: Number
) -> JSONResponse:
    return _interface(request, caller, session, model, version=version_number(version))


@own.get(
    "/{model}/labels/{label}/openapi.json",
    summary="The description of the version that a label points to",
    responses=FOUND | NOT_FOUND | UNKNOWN_LABEL,
    **DOCUMENT,
)
def label_interface(
    request: Request, caller: KnownCaller, session: Reading, model: ModelName, label: LabelName
) -> JSONResponse:
    return _interface(request, caller, session, model, label=label)


@own.get(
    "/{model}/openapi.json",
    summary="A model's own description",
    responses=FOUND | NOT_FOUND | NOT_READY,
    **DOCUMENT,
)
def model_interface(request: Request, caller: KnownCaller, session: Reading, model: ModelName) -> JSONResponse:
    return _interface(request, caller, session, model)


@router.get(
    "/admin/models/{model}/openapi.json",
    summary="A model's own description, for people",
    responses=FOUND | NOT_FOUND | NOT_READY,
    **DOCUMENT,
)
def shown_interface(request: Request, viewer: Viewer, session: Reading, model: ModelName) -> JSONResponse:
    return _interface(request, viewer, session, model)


router.include_router(own)


def _interface(
    request: Request,
    caller: Caller,
    session: Session,
    model: str,
    version: int | None = None,
    label: str | None = None,
) -> JSONResponse:
    found = parts(request)
    target = found.admission.target(caller, Action.METADATA, model_name(request, model), version, label)
    if target.signature is None:
        raise VersionNotReady(f"version {target.number} of model {model} has no signature yet", retry_after_seconds=1)
    place = "" if version is None else f"/versions/{version}"
    facts = Facts(
        model=model,
        version=target.number,
        target=place if label is None else f"/labels/{label}",
        signature=target.signature,
        most_instances=found.snapshot.catalog.most_instances(model, found.settings.max_instances),
        metadata=metadata_of(session, model, target.number),
        further=target.further,
        samples=_samples(found.artifacts, find_version(session, model, target.number).golden, target.signature),
    )
    return JSONResponse(document(facts), headers=HEADERS)


def _samples(artifacts: Artifacts, digest: str | None, signature: Signature) -> Tensors | None:
    """The first of the version's golden inputs, which preparation drew and the model answered; None where large."""
    if digest is None:
        return None
    try:
        with artifacts.opened(digest) as path:
            inputs = golden.unpack(path.read_bytes())[0] if path.stat().st_size <= golden.FULL_BYTES * 2 else {}
    except (SluiceError, golden.GoldenInvalid) as error:
        log.warning("golden samples cannot be read for a description: %s", error)
        return None
    if inputs.keys() != {spec.name for spec in signature.inputs}:
        return None
    first = {spec.name: inputs[spec.name][:1] if spec.batched else inputs[spec.name] for spec in signature.inputs}
    return first if sum(tensor.nbytes for tensor in first.values()) <= MOST_SAMPLE_BYTES else None
