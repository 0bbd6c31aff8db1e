"""Addresses of predictions: which model and version a path names, in which dialect, and whether it submits a job."""

from __future__ import annotations

import re
from dataclasses import dataclass

from workers.protocols.body import Dialect

_NAME = "[A-Za-z0-9][A-Za-z0-9._-]{0,127}"
_TENSORFLOW_SERVING = re.compile(
    rf"/v1/models/(?P<model>{_NAME})"
    rf"(?:/versions/(?P<version>[0-9]{{1,9}})|/labels/(?P<label>{_NAME}))?:(?P<verb>predict|submit)"
)
_OPEN_INFERENCE = re.compile(rf"/v2/models/(?P<model>{_NAME})(?:/versions/(?P<version>[0-9]{{1,9}}))?/infer")


@dataclass(frozen=True, slots=True)
class Address:
    """What a prediction's path names; `route` is its template, for metrics."""

    model: str
    version: int | None
    label: str | None
    submits: bool
    dialect: Dialect
    route: str


def parse_path(path: str) -> Address | None:
    """What a prediction's path names; None where it is none."""
    if (match := _TENSORFLOW_SERVING.fullmatch(path)) is not None:
        verb = match["verb"]
        route, dialect = f"/v1/models/{{model}}:{verb}", Dialect.TENSORFLOW_SERVING
        return Address(match["model"], _number(match["version"]), match["label"], verb == "submit", dialect, route)
    if (match := _OPEN_INFERENCE.fullmatch(path)) is not None:
        route, dialect = "/v2/models/{model}/infer", Dialect.OPEN_INFERENCE
        return Address(match["model"], _number(match["version"]), None, False, dialect, route)
    return None


def _number(version: str | None) -> int | None:
    return None if version is None else int(version)
