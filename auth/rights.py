"""Rights: what each client may do, as one immutable picture in memory; gateways ask it instead of SQL."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from sqlalchemy import select
from sqlalchemy.orm import Session

from auth.client_identities import load_identities
from auth.grants import ADMINISTRATION, USE, Action, GrantSpec, deciding, spec_of
from auth.limits import EVERYTHING, Bounds, ClientLimits, load_limits
from auth.model_patterns import ANY, is_pattern
from auth.people_tables import Person
from auth.revocations import load_revoked
from auth.roles import Role, scopes_of
from auth.scopes import Scope, known_scopes
from auth.tables import Client, Grant

# Grants that are not stored but follow from something else. None of them lets a client predict or submit.
_OF_SCOPE = GrantSpec(ANY, actions=ADMINISTRATION, rule=f"scope {Scope.CLIENTS_ADMIN}")
_OF_ROLES = {
    Role.ADMIN: GrantSpec(ANY, actions=ADMINISTRATION | USE, rule="role admin"),
    Role.OPERATOR: GrantSpec(ANY, actions=ADMINISTRATION | USE, rule="role operator"),
    Role.AUDITOR: GrantSpec(ANY, actions=frozenset({Action.METADATA}), rule="role auditor"),
    Role.READER: GrantSpec(ANY, actions=frozenset({Action.METADATA}), rule="role reader"),
}
# People try models; what asks more often is a program, and has a client of its own.
LIMITS_OF_PEOPLE: ClientLimits = {EVERYTHING: Bounds(requests_per_second=10, burst=50, queued_jobs=20)}
# What leads to a lane.
_OF_WHAT_WAITS = frozenset({Action.PREDICT, Action.SUBMIT})


def implicit_grants(role: str) -> tuple[GrantSpec, ...]:
    """What a person's role gives beside its scopes; nothing for a role that a newer release wrote."""
    return (_OF_ROLES[Role(role)],) if role in set(Role) else ()


# Compared and hashed by identity: a changed client comes as a new object with the next picture.
@dataclass(frozen=True, slots=True, eq=False)
class ClientRights:
    """What one client, or person, may do; `tokens_not_before` is in milliseconds since 1970.

    `grants` are those for models by their names, `patterns` the others, `implicit` what a role gives.
    """

    id: str
    name: str
    disabled: bool
    tokens_not_before: int
    scopes: frozenset[Scope]
    grants: Mapping[str, tuple[GrantSpec, ...]]
    patterns: tuple[GrantSpec, ...] = ()
    implicit: tuple[GrantSpec, ...] = ()
    limits: ClientLimits | None = None

    def rule(
        self, action: str, model: str, version: int | None, labels: Collection[str], now_ms: int
    ) -> GrantSpec | None:
        """The grant that allows this, or None. Every answer about rights in a gateway comes from here.

        `labels` are those that point to the version now; no version is the model as a whole. `now_ms` is the moment by
        the database's clock.
        """
        return deciding(self.held(model), action, version, labels, now_ms)

    def sees(self, model: str, now_ms: int) -> bool:
        """Whether the client holds any grant for the model; else the model does not exist for it."""
        return any(grant.lasts(now_ms) for grant in self.held(model))

    def sees_everything(self, now_ms: int) -> bool:
        """Whether every version of every model, also of those to come, may be looked at."""
        return any(
            grant.model == ANY and Action.METADATA in grant.actions and grant.covers(None, ()) and grant.lasts(now_ms)
            for grant in self._wide()
        )

    def held(self, model: str) -> tuple[GrantSpec, ...]:
        """The grants about a model, expired ones too."""
        return self.grants.get(model, ()) + tuple(grant for grant in self._wide() if grant.names(model))

    def weight(self, model: str, version: int) -> float:
        """By which this client's lanes of a version share the workers: the largest of the grants that let it use it.

        Of a grant for a label it does not matter where that points now: jobs of the version before may still wait.
        """
        weights = (
            grant.weight
            for grant in self.held(model)
            if grant.version in (None, version) and not grant.actions.isdisjoint(_OF_WHAT_WAITS)
        )
        return max(weights, default=1.0)

    def narrowed(self, scopes: Collection[Scope]) -> ClientRights:
        """The rights of a token with these scopes: what follows from a scope is not for tokens that lack it."""
        if Scope.CLIENTS_ADMIN in self.scopes and Scope.CLIENTS_ADMIN not in scopes:
            return dataclasses.replace(self, scopes=self.scopes.intersection(scopes))
        return self

    def _wide(self) -> tuple[GrantSpec, ...]:
        of_scope = (_OF_SCOPE,) if Scope.CLIENTS_ADMIN in self.scopes else ()
        return self.patterns + self.implicit + of_scope


@dataclass(frozen=True, slots=True, eq=False)
class Rights:
    """All clients and people by id; never changed, replaced as a whole.

    `revoked` are single tokens and sign-ins that are refused, `identities` what other issuers call our clients.
    """

    clients: Mapping[str, ClientRights]
    revoked: frozenset[str] = frozenset()
    identities: Mapping[tuple[str, str], str] = field(default_factory=dict)
    # The most running jobs of a client on a model, or ('') on all, where there is such a bound.
    running_bounds: Mapping[tuple[str, str], int] = field(default_factory=dict)

    def weight(self, client_id: str, model: str, version: int) -> float:
        """As `ClientRights.weight`; 1 for a client that is gone."""
        client = self.clients.get(client_id)
        return 1.0 if client is None else client.weight(model, version)


def load_rights(session: Session) -> Rights:
    """Reads the picture of this moment."""
    limits = load_limits(session)
    names: dict[str, dict[str, list[GrantSpec]]] = {}
    patterns: dict[str, list[GrantSpec]] = {}
    for row in session.scalars(select(Grant).order_by(Grant.id)):
        if is_pattern(row.model):
            patterns.setdefault(row.client_id, []).append(spec_of(row))
        else:
            names.setdefault(row.client_id, {}).setdefault(row.model, []).append(spec_of(row))
    of_clients = {
        client.id: ClientRights(
            id=client.id,
            name=client.name,
            disabled=client.disabled,
            tokens_not_before=client.tokens_not_before,
            scopes=known_scopes(client.scopes),
            grants={model: tuple(specs) for model, specs in names.get(client.id, {}).items()},
            patterns=tuple(patterns.get(client.id, ())),
            limits=limits.get(client.id),
        )
        for client in session.scalars(select(Client))
    }
    running = {
        (client_id, model): bounds.running_jobs
        for client_id, of_client in limits.items()
        for model, bounds in of_client.items()
        if bounds.running_jobs is not None
    }
    return Rights(of_clients | _of_people(session), load_revoked(session), load_identities(session), running)


def _of_people(session: Session) -> dict[str, ClientRights]:
    columns = (Person.id, Person.name, Person.role, Person.disabled, Person.tokens_not_before)
    return {
        row.id: ClientRights(
            id=row.id,
            name=row.name,
            disabled=row.disabled,
            tokens_not_before=row.tokens_not_before,
            scopes=scopes_of(row.role),
            grants={},
            implicit=implicit_grants(row.role),
            limits=LIMITS_OF_PEOPLE,
        )
        for row in session.execute(select(*columns))
    }
