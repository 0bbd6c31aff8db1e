"""Scopes: what a token may do at all, whichever models its client has grants for."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from auth.errors import ScopeInvalid


class Scope(StrEnum):
    """Each is required by at least one route; the texts stand in the API's description."""

    PREDICT = "predict"
    EXPLAIN = "explain"
    JOBS = "jobs"
    JOBS_ADMIN = "jobs:admin"
    JOBS_CONTENTS = "jobs:contents"
    MODELS_READ = "models:read"
    MODELS_WRITE = "models:write"
    CLIENTS_ADMIN = "clients:admin"
    AUDIT_READ = "audit:read"
    METRICS_READ = "metrics:read"


MEANINGS = {
    Scope.PREDICT: "Predict, and submit and read one's own jobs.",
    Scope.EXPLAIN: "Ask which parts of an input a prediction is owed to.",
    Scope.JOBS: "Read, cancel and delete one's own jobs.",
    Scope.JOBS_ADMIN: "See, cancel, delete and replay jobs of all clients; not their contents.",
    Scope.JOBS_CONTENTS: "Read inputs and results of all clients' jobs.",
    Scope.MODELS_READ: "See models, versions and preparation reports.",
    Scope.MODELS_WRITE: "Upload models, move labels, retire versions.",
    Scope.CLIENTS_ADMIN: "Create clients, give them grants, rotate their secrets.",
    Scope.AUDIT_READ: "Read the audit log.",
    Scope.METRICS_READ: "Read metrics.",
}
DEFAULT = frozenset({Scope.PREDICT, Scope.JOBS, Scope.MODELS_READ})

_BY_NAME = {str(scope): scope for scope in Scope}


def parse_scopes(text: str) -> frozenset[Scope]:
    """Scopes separated by single spaces (RFC 6749, section 3.3), in any order, with or without repetitions.

    Raises ScopeInvalid for an unknown one, other white space, and for none at all.
    """
    try:
        return frozenset(_BY_NAME[name] for name in text.split(" "))
    except KeyError:
        # The name itself is not repeated: it may be long, or hold what breaks out of a log line or a header.
        raise ScopeInvalid(f"scopes are separated by single spaces and are of: {format_scopes(Scope)}") from None


def known_scopes(text: str) -> frozenset[Scope]:
    """Those scopes of a stored list that this release knows.

    A newer release may have written others during a rolling upgrade; they must not stop this one from reading rights.
    """
    return frozenset(_BY_NAME[name] for name in text.split(" ") if name in _BY_NAME)


def format_scopes(scopes: Iterable[Scope]) -> str:
    """The list as RFC 6749 writes it, always in the same order."""
    wanted = frozenset(scopes)
    return " ".join(scope for scope in Scope if scope in wanted)
