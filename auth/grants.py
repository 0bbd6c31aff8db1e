"""Grants: which models, versions and labels a client may use, and how; as they are stored."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum

from sqlalchemy import select
from sqlalchemy.orm import Session

from auth import clients
from auth.errors import GrantInvalid
from auth.model_patterns import check_pattern, is_pattern, pattern_of
from auth.tables import Grant
from model_store.database import clock_ms
from model_store.generation import bump_generation
from model_store.registry import check_name

MOST_GRANTS = 1000
# Names are looked up, patterns are tried one after the other.
MOST_PATTERNS = 100
HIGHEST_VERSION = 2**31 - 1
LEAST_WEIGHT, MOST_WEIGHT = 0.1, 100.0
# 9999-12-31: what a date can say.
LATEST_MS = 253_402_214_400_000


class Action(StrEnum):
    """What a grant allows; the last three are for administrators of some models rather than of all."""

    PREDICT = "predict"  # and wait for the answer
    SUBMIT = "submit"  # as a job
    METADATA = "metadata"  # read status, signature and report
    UPLOAD = "upload"  # new versions, and with the first one the model
    LABEL = "label"  # make, move and delete labels
    RETIRE = "retire"  # take versions out of service, and delete them then


# What a grant means that names no action.
USE = frozenset({Action.PREDICT, Action.SUBMIT, Action.METADATA})
ADMINISTRATION = frozenset({Action.METADATA, Action.UPLOAD, Action.LABEL, Action.RETIRE})


@dataclass(frozen=True, slots=True)
class GrantSpec:
    """Actions on one version, on whatever version a label points to, or (neither given) on all of the model's.

    `model` is a name or a pattern. From `expires_at` on (milliseconds since 1970, the database's clock) it allows
    nothing. `id` is that of a stored grant; one that is not stored names the `rule` that gives it. By `weight` the
    client's lanes share the workers with those of others.
    """

    model: str
    version: int | None = None
    label: str | None = None
    actions: frozenset[Action] = USE
    expires_at: int | None = None
    weight: float = 1.0
    id: int | None = field(default=None, compare=False)
    rule: str = field(default="", compare=False)

    def names(self, model: str) -> bool:
        """Whether it is about this model."""
        return pattern_of(self.model).matches(model) if is_pattern(self.model) else self.model == model

    def covers(self, version: int | None, labels: Collection[str]) -> bool:
        """Whether it is about this version, to which these labels point now; None is the model as a whole."""
        if self.version is not None:
            return self.version == version
        return self.label is None or self.label in labels

    def lasts(self, now_ms: int) -> bool:
        """Whether it has not expired."""
        return self.expires_at is None or now_ms < self.expires_at

    @property
    def text(self) -> str:
        """All of it in one line, for people."""
        place = "" if self.version is None else f" version {self.version}"
        place = place if self.label is None else f" label {self.label}"
        weight = "" if self.weight == 1.0 else f", weight {self.weight:g}"
        end = "" if self.expires_at is None else f", until {moment(self.expires_at)}"
        return f"{_format(self.actions).replace(' ', ', ')} on {self.model}{place}{weight}{end}"


def deciding(
    grants: Iterable[GrantSpec], action: str, version: int | None, labels: Collection[str], now_ms: int
) -> GrantSpec | None:
    """The one grant by which this is allowed, of those about its model: the one that lasts longest; None if none."""
    found: GrantSpec | None = None
    for grant in grants:
        if action in grant.actions and grant.covers(version, labels) and grant.lasts(now_ms):
            if grant.expires_at is None:
                return grant
            if found is None or grant.expires_at > (found.expires_at or 0):
                found = grant
    return found


def set_grants(session: Session, client_id: str, grants: Iterable[GrantSpec]) -> None:
    """Replaces all grants of a client; one that is in both lists keeps its id. A model need not exist yet.

    Raises ClientNotFound, NameInvalid, and GrantInvalid for one that names both version and label, or no action, and
    for too many.
    """
    client = clients.get(session, client_id)
    wanted = _merged(grants)
    for row in session.scalars(select(Grant).where(Grant.client_id == client.id)):
        grant = wanted.pop((row.model, row.version, row.label, row.expires_at), None)
        if grant is None:
            session.delete(row)
        else:
            row.actions, row.weight = _format(grant.actions), grant.weight
    for grant in wanted.values():
        session.add(
            Grant(
                client_id=client.id, model=grant.model, version=grant.version, label=grant.label,
                actions=_format(grant.actions), expires_at=grant.expires_at, weight=grant.weight,
            )
        )  # fmt: skip
    session.flush()
    bump_generation(session)


def require_lasting(session: Session, client_id: str, wanted: Iterable[GrantSpec]) -> None:
    """Raises GrantInvalid for a new grant that has ended already, by the database's clock; and ClientNotFound.

    One that the client holds may be among them: whoever adds a grant to a list sends the others again.
    """
    now, held = clock_ms(session), {spec.expires_at for spec in grants_of(session, client_id)}
    for grant in wanted:
        if grant.expires_at is not None and not grant.lasts(now) and grant.expires_at not in held:
            raise GrantInvalid(f"a grant that ended at {moment(grant.expires_at)} would allow nothing")


def grants_of(session: Session, client_id: str) -> Sequence[GrantSpec]:
    """The client's grants, ordered by model; raises ClientNotFound."""
    client = clients.get(session, client_id)
    rows = session.scalars(select(Grant).where(Grant.client_id == client.id).order_by(Grant.model, Grant.id))
    return [spec_of(row) for row in rows]


def spec_of(row: Grant) -> GrantSpec:
    """What a stored grant says."""
    # Actions that a newer release wrote are left out: they must not stop this one from reading rights.
    actions = frozenset(action for action in Action if action in row.actions.split(" "))
    return GrantSpec(row.model, row.version, row.label, actions, row.expires_at, row.weight, id=row.id)


def moment(milliseconds: int) -> str:
    """Milliseconds since 1970 as RFC 3339 in UTC."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


Place = tuple[str, int | None, str | None, int | None]


def _merged(grants: Iterable[GrantSpec]) -> dict[Place, GrantSpec]:
    """One grant for each place: with the actions of all of them, and the largest weight."""
    merged: dict[Place, GrantSpec] = {}
    for grant in grants:
        _check(grant)
        place = (grant.model, grant.version, grant.label, grant.expires_at)
        other = merged.get(place, grant)
        merged[place] = replace(grant, actions=grant.actions | other.actions, weight=max(grant.weight, other.weight))
    if len(merged) > MOST_GRANTS:
        raise GrantInvalid(f"a client may have at most {MOST_GRANTS} grants")
    if sum(is_pattern(place[0]) for place in merged) > MOST_PATTERNS:
        raise GrantInvalid(f"a client may have at most {MOST_PATTERNS} grants with patterns")
    return merged


def _check(grant: GrantSpec) -> None:
    check_pattern(grant.model)
    if grant.version is not None and grant.label is not None:
        raise GrantInvalid("a grant names a version or a label, not both")
    if grant.version is not None and not 1 <= grant.version <= HIGHEST_VERSION:
        raise GrantInvalid("versions are numbered from 1")
    if grant.label is not None:
        check_name(grant.label, "label")
    if grant.version is not None and Action.LABEL in grant.actions:
        raise GrantInvalid("`label` on one version allows nothing: grant it for the model, or for one label")
    if Action.UPLOAD in grant.actions and (grant.version, grant.label) != (None, None):
        raise GrantInvalid("`upload` makes new versions, so it needs a grant that names neither version nor label")
    if not grant.actions:
        raise GrantInvalid(f"a grant names at least one action of: {_format(Action)}")
    if not LEAST_WEIGHT <= grant.weight <= MOST_WEIGHT:
        raise GrantInvalid(f"a grant's weight is a number from {LEAST_WEIGHT:g} to {MOST_WEIGHT:g}")
    if grant.expires_at is not None and not 0 < grant.expires_at < LATEST_MS:
        raise GrantInvalid("a grant expires between 1970 and the year 9999")


def _format(actions: Collection[Action] | type[Action]) -> str:
    return " ".join(action for action in Action if action in actions)
