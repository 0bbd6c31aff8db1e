"""Addresses of predictions: which model and version a path names, in which dialect, and whether it submits a job."""

from __future__ import annotations

import re
from dataclasses import dataclass

from auth.scopes import Scope
from workers.protocols.body import Dialect

_NAME = "[A-Za-z0-9][A-Za-z0-9._-]{0,127}"
_TARGET = rf"(?P<model>{_NAME})(?:/versions/(?P<version>[0-9]{{1,9}})|/labels/(?P<label>{_NAME}))?"
_VERBS = {
    "predict": Dialect.TENSORFLOW_SERVING,
    "submit": Dialect.TENSORFLOW_SERVING,
    "classify": Dialect.CLASSIFY,
    "regress": Dialect.REGRESS,
    "explain": Dialect.EXPLAIN,
}
# An explanation is so many inferences that it is always a job.
SUBMITTING = frozenset({"submit", "explain"})
_TENSORFLOW_SERVING = re.compile(rf"/v1/models/{_TARGET}:(?P<verb>{'|'.join(_VERBS)})")
# The protocol has no labels; here they mean the same under every protocol.
_OPEN_INFERENCE = re.compile(rf"/v2/models/{_TARGET}/infer")
# A model's own base URL as of a scoring server, and the address that MLflow's deployment client makes of a name.
_MLFLOW = re.compile(rf"/(?:models|endpoints)/{_TARGET}/invocations")


@dataclass(frozen=True, slots=True)
class Address:
    """What a prediction's path names; `route` is its template, for metrics, and `right` the scope that it takes."""

    model: str
    version: int | None
    label: str | None
    submits: bool
    dialect: Dialect
    route: str
    right: Scope = Scope.PREDICT


def parse_path(path: str) -> Address | None:
    """What a prediction's path names; None where it is none."""
    if (match := _TENSORFLOW_SERVING.fullmatch(path)) is not None:
        verb = match["verb"]
        route, dialect = f"/v1/models/{{model}}:{verb}", _VERBS[verb]
        submits, right = verb in SUBMITTING, Scope.EXPLAIN if dialect is Dialect.EXPLAIN else Scope.PREDICT
        version, label = _number(match["version"]), match["label"]
        return Address(match["model"], version, label, submits, dialect, route, right)
    if (match := _OPEN_INFERENCE.fullmatch(path)) is not None:
        route, dialect = "/v2/models/{model}/infer", Dialect.OPEN_INFERENCE
        return Address(match["model"], _number(match["version"]), match["label"], False, dialect, route)
    if (match := _MLFLOW.fullmatch(path)) is not None:
        route, dialect = "/models/{model}/invocations", Dialect.MLFLOW
        return Address(match["model"], _number(match["version"]), match["label"], False, dialect, route)
    return None


def _number(version: str | None) -> int | None:
    return None if version is None else int(version)
