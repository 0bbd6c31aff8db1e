"""Roles of people: each stands for the scopes that its holders have; clients have scopes of their own instead."""

from __future__ import annotations

from enum import StrEnum

from auth.scopes import Scope, known_scopes

# What the id of a person begins with; a client's never does.
PERSON = "usr_"


class Role(StrEnum):
    """Administrators do everything; operators look after models and jobs; auditors and readers only look.

    Nobody reads the contents of other people's jobs by a role: that is for a client that was given the scope. Nor has a
    role the scope `jobs`: webhooks are for programs.
    """

    ADMIN = "admin"
    OPERATOR = "operator"
    AUDITOR = "auditor"
    READER = "reader"


# Who may bring a model into service, and take it out, may try it: less than that.
_TRYING = known_scopes("predict explain")
SCOPES = {
    Role.ADMIN: _TRYING | known_scopes("jobs:admin models:read models:write clients:admin audit:read metrics:read"),
    Role.OPERATOR: _TRYING | known_scopes("jobs:admin models:read models:write metrics:read"),
    Role.AUDITOR: known_scopes("models:read audit:read metrics:read"),
    # What people had before there were roles: `/metrics`, and `/docs` like everybody with a password.
    Role.READER: known_scopes("metrics:read"),
}


def scopes_of(role: str) -> frozenset[Scope]:
    """The scopes of a stored role; none for one that a newer release wrote."""
    return SCOPES[Role(role)] if role in set(Role) else frozenset()
