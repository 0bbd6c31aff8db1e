"""Roles of people: each stands for the scopes that its holders have; clients have scopes of their own instead."""

from __future__ import annotations

from enum import StrEnum

from auth.scopes import Scope, known_scopes


class Role(StrEnum):
    """Administrators do everything but predict; operators look after models and jobs; auditors and readers only look.

    Nobody reads the contents of other people's jobs by a role: that is for a client that was given the scope.
    """

    ADMIN = "admin"
    OPERATOR = "operator"
    AUDITOR = "auditor"
    READER = "reader"


SCOPES = {
    Role.ADMIN: known_scopes("jobs:admin models:read models:write clients:admin audit:read metrics:read"),
    Role.OPERATOR: known_scopes("jobs:admin models:read models:write metrics:read"),
    Role.AUDITOR: known_scopes("models:read audit:read metrics:read"),
    # What people had before there were roles: `/metrics`, and `/docs` like everybody with a password.
    Role.READER: known_scopes("metrics:read"),
}


def scopes_of(role: str) -> frozenset[Scope]:
    """The scopes of a stored role; none for one that a newer release wrote."""
    return SCOPES[Role(role)] if role in set(Role) else frozenset()
