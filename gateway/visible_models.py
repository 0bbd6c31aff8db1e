"""Models as a path names them and a caller may see them: the same for every protocol's status and metadata."""

from __future__ import annotations

import re

from fastapi import Request

from gateway.admission import Caller
from gateway.dependencies import parts
from model_store.catalog import CatalogModel, not_found
from model_store.errors import SluiceError

HIGHEST_VERSION = 2**63 - 1
DIGITS = re.compile(r"[0-9]+")


class RequestMalformed(SluiceError):
    """The address fits none of the protocol's forms."""

    status = 400
    code = "request_malformed"


def visible_model(request: Request, caller: Caller, name: str, version: int | None = None) -> CatalogModel:
    """The model with those versions and labels that the client may see.

    Raises ModelNotFound, about the version where one is asked for, when it may see none.
    """
    sight = parts(request).admission.sight(caller)
    found = sight.catalog.models.get(model_name(request, name))
    if found is None:
        raise not_found(name, version)
    versions = {number: known for number, known in found.versions.items() if sight.version(name, number)}
    if not versions:
        raise not_found(name, version)
    labels = {label: number for label, number in found.labels.items() if number in versions}
    return CatalogModel(name, versions, labels, found.latest if found.latest in versions else None)


def used_models(request: Request, caller: Caller) -> list[str]:
    """The names of the models that the client may do anything with, in order."""
    sight = parts(request).admission.sight(caller)
    return sorted(name for name, model in sight.catalog.models.items() if sight.uses(model))


def model_name(request: Request, model: str) -> str:
    """The name, if it can be one; raises RequestMalformed."""
    # TensorFlow Serving's own rule, `[^/:]+`: `GET /v1/models/mnist:predict` is malformed, not an unknown model.
    if ":" in model:
        raise malformed_request(request)
    return model


def version_number(version: str) -> int:
    """The number of a version in a path; raises RequestMalformed."""
    if not DIGITS.fullmatch(version):
        raise RequestMalformed(f"Malformed request: version {version[:64]!r} is not a number")
    # More digits than any version has: Python itself refuses to convert thousands of them.
    if len(version) > 19 or int(version) > HIGHEST_VERSION:
        raise RequestMalformed(f"Failed to convert version: {version[:64]} to numeric.")
    return int(version)


def malformed_request(request: Request) -> RequestMalformed:
    """What to raise for an address that is none."""
    return RequestMalformed(f"Malformed request: {request.method} {request.url.path[:200]}")
