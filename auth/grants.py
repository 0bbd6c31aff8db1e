"""Grants: which models, versions and labels a client may use, and how; their picture in memory for gateways."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import and_, delete, select
from sqlalchemy.orm import Session

from auth import clients
from auth.errors import GrantInvalid
from auth.scopes import Scope, known_scopes
from auth.tables import Client, Grant
from model_store.generation import bump_generation
from model_store.registry import check_name
from model_store.tables import Label

MOST_GRANTS = 1000
MOST_REMEMBERED = 10_000
HIGHEST_VERSION = 2**31 - 1


class Action(StrEnum):
    """What a grant allows: predicting and waiting, submitting jobs, reading status and metadata."""

    PREDICT = "predict"
    SUBMIT = "submit"
    METADATA = "metadata"


ACTIONS = frozenset(Action)


@dataclass(frozen=True, slots=True)
class GrantSpec:
    """Actions on one version, on whatever version a label points to, or (neither given) on all of the model's."""

    model: str
    version: int | None = None
    label: str | None = None
    actions: frozenset[Action] = ACTIONS


# Compared and hashed by identity: a changed client comes as a new object with the next picture.
@dataclass(frozen=True, slots=True, eq=False)
class ClientRights:
    """What one client may do; `tokens_not_before` is in milliseconds since 1970, `grants` are by model."""

    id: str
    name: str
    disabled: bool
    tokens_not_before: int
    scopes: frozenset[Scope]
    grants: Mapping[str, tuple[GrantSpec, ...]]

    def allows(self, action: str, model: str, version: int, labels: Collection[str]) -> bool:
        """Whether a grant covers this; `labels` are those that point to the version now."""
        return any(
            action in grant.actions and _covers(grant.version, grant.label, version, labels)
            for grant in self.grants.get(model, ())
        )

    def sees(self, model: str) -> bool:
        """Whether the client holds any grant for the model; else the model does not exist for it."""
        return model in self.grants


@dataclass(frozen=True, slots=True, eq=False)
class Rights:
    """All clients by id; never changed, replaced as a whole."""

    clients: Mapping[str, ClientRights]


def set_grants(session: Session, client_id: str, grants: Iterable[GrantSpec]) -> None:
    """Replaces all grants of a client. A model need not exist yet; grants stay when it goes.

    Raises ClientNotFound, NameInvalid, and GrantInvalid for one that names both version and label, or no action.
    """
    client = clients.get(session, client_id)
    merged: dict[tuple[str, int | None, str | None], frozenset[Action]] = {}
    for grant in grants:
        _check(grant)
        place = (grant.model, grant.version, grant.label)
        merged[place] = merged.get(place, frozenset()) | grant.actions
    if len(merged) > MOST_GRANTS:
        raise GrantInvalid(f"a client may have at most {MOST_GRANTS} grants")
    session.execute(delete(Grant).where(Grant.client_id == client.id))
    for (model, version, label), actions in merged.items():
        session.add(Grant(client_id=client.id, model=model, version=version, label=label, actions=_format(actions)))
    session.flush()
    bump_generation(session)


def grants_of(session: Session, client_id: str) -> Sequence[GrantSpec]:
    """The client's grants, ordered by model; raises ClientNotFound."""
    client = clients.get(session, client_id)
    rows = session.scalars(select(Grant).where(Grant.client_id == client.id).order_by(Grant.model, Grant.id))
    return [_spec(row) for row in rows]


def load_rights(session: Session) -> Rights:
    """Reads the picture of this moment."""
    grants: dict[str, dict[str, list[GrantSpec]]] = {}
    for row in session.scalars(select(Grant)):
        grants.setdefault(row.client_id, {}).setdefault(row.model, []).append(_spec(row))
    return Rights(
        {
            client.id: ClientRights(
                id=client.id,
                name=client.name,
                disabled=client.disabled,
                tokens_not_before=client.tokens_not_before,
                scopes=known_scopes(client.scopes),
                grants={model: tuple(specs) for model, specs in grants.get(client.id, {}).items()},
            )
            for client in session.scalars(select(Client))
        }
    )


def allows_now(session: Session, client_id: str, action: str, model: str, version: int) -> bool:
    """Whether the client is enabled and a grant covers this at the moment of asking.

    For the claim of a job: what was allowed when it was submitted may have been withdrawn while it waited.
    """
    rows = session.execute(
        select(Grant.actions, Grant.version, Grant.label, Label.version.label("labelled"))
        .join(Client, Client.id == Grant.client_id)
        .outerjoin(Label, and_(Label.model == Grant.model, Label.name == Grant.label))
        .where(Grant.client_id == client_id, Grant.model == model, Client.disabled.is_(False))
    )
    return any(
        action in row.actions.split(" ")
        and _covers(row.version, row.label, version, (row.label,) if row.labelled == version else ())
        for row in rows
    )


class Standing:
    """What `allows_now` says, remembered for the generation in which it was asked; safe for several threads."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, str, str, str, int], bool] = {}

    def allows(self, session: Session, generation: int, asked: tuple[str, str, str, int]) -> bool:
        """As `allows_now` of client, action, model and version; `generation` was read in this transaction before."""
        place = (generation, *asked)
        known = self._known.get(place)
        if known is None:
            if len(self._known) >= MOST_REMEMBERED:
                self._known.clear()
            known = self._known[place] = allows_now(session, *asked)
        return known


def _covers(granted_version: int | None, granted_label: str | None, version: int, labels: Collection[str]) -> bool:
    if granted_version is not None:
        return granted_version == version
    return granted_label is None or granted_label in labels


def _check(grant: GrantSpec) -> None:
    check_name(grant.model)
    if grant.version is not None and grant.label is not None:
        raise GrantInvalid("a grant names a version or a label, not both")
    if grant.version is not None and not 1 <= grant.version <= HIGHEST_VERSION:
        raise GrantInvalid("versions are numbered from 1")
    if grant.label is not None:
        check_name(grant.label, "label")
    if not grant.actions:
        raise GrantInvalid(f"a grant names at least one action of: {_format(ACTIONS)}")


def _spec(row: Grant) -> GrantSpec:
    # Actions that a newer release wrote are left out: they must not stop this one from reading rights.
    actions = frozenset(action for action in Action if action in row.actions.split(" "))
    return GrantSpec(row.model, row.version, row.label, actions)


def _format(actions: Collection[Action]) -> str:
    return " ".join(action for action in Action if action in actions)
