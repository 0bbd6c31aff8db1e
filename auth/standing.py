"""Standing: whether what was allowed when a job was submitted still is when its turn comes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from auth.grants import GrantSpec, deciding, spec_of
from auth.model_patterns import ANY
from auth.people_tables import Person
from auth.revocations import is_revoked
from auth.rights import implicit_grants
from auth.roles import PERSON
from auth.tables import Client, Grant
from model_store.tables import Label

MOST_REMEMBERED = 10_000


class Withdrawal(StrEnum):
    """Why a job may not run any more: its error's code, which callers may rely on."""

    CLIENT_DISABLED = "client_disabled"
    CLIENT_DELETED = "client_deleted"
    GRANT_WITHDRAWN = "grant_withdrawn"
    GRANT_EXPIRED = "grant_expired"
    TOKEN_REVOKED = "token_revoked"  # noqa: S105 - a code


REASONS = {
    Withdrawal.CLIENT_DISABLED: "the client was disabled",
    Withdrawal.CLIENT_DELETED: "the client was deleted",
    Withdrawal.GRANT_WITHDRAWN: "the right to this model was withdrawn",
    Withdrawal.GRANT_EXPIRED: "the right to this model expired",
    Withdrawal.TOKEN_REVOKED: "the token with which it was submitted was revoked",
}

SECOND_MS = 1000

# The id of a client, or of a person; what it does, the model, the version, and the grant that allowed it at first, if
# that is known: a label in it may point elsewhere by now, and the job runs on the version that it was submitted to all
# the same.
Asked = tuple[str, str, str, int, int | None]
# From when on (milliseconds since 1970) it is something else; None is never.
Until = int | None


@dataclass(frozen=True, slots=True)
class Authority:
    """By what a job was let in: the grant's id, and the token's `jti` and `iat` (seconds since 1970).

    Of a person's token it is the `sid` instead, by which a sign-in is revoked. Those of another issuer's token have
    none here; jobs of earlier releases have nothing.
    """

    grant: int | None = None
    token_id: str | None = None
    token_issued_at: int | None = None


UNKNOWN = Authority()


def withdrawn_now(session: Session, asked: Asked, now_ms: int) -> tuple[Withdrawal | None, Until]:
    """Why a client may not do this at `now_ms` (the database's clock), None where it may; and how long that holds."""
    client_id, action, model, version, granted_by = asked
    if client_id.startswith(PERSON):
        disabled = session.scalar(select(Person.disabled).where(Person.id == client_id))
    else:
        disabled = session.scalar(select(Client.disabled).where(Client.id == client_id))
    if disabled is None:
        return Withdrawal.CLIENT_DELETED, None
    if disabled:
        return Withdrawal.CLIENT_DISABLED, None
    grants = [grant for grant in _grants(session, client_id, model) if grant.names(model)]
    first = next((grant for grant in grants if grant.id == granted_by and action in grant.actions), None)
    if first is not None and first.lasts(now_ms):
        return None, first.expires_at
    labels = session.scalars(select(Label.name).where(Label.model == model, Label.version == version)).all()
    rule = deciding(grants, action, version, labels, now_ms)
    if rule is not None:
        return None, rule.expires_at
    # The grant is still there: only the time is over.
    expired = first or deciding(grants, action, version, labels, 0)
    return Withdrawal.GRANT_WITHDRAWN if expired is None else Withdrawal.GRANT_EXPIRED, None


def _grants(session: Session, client_id: str, model: str) -> Sequence[GrantSpec]:
    """Those that may be about the model: what is stored of a client, what follows from a person's role."""
    if client_id.startswith(PERSON):
        return implicit_grants(session.scalar(select(Person.role).where(Person.id == client_id)) or "")
    about = or_(Grant.model == model, Grant.model.contains(ANY))
    rows = session.scalars(select(Grant).where(Grant.client_id == client_id, about).order_by(Grant.id))
    return [spec_of(row) for row in rows]


class Standing:
    """What `withdrawn_now` says, remembered for the generation in which it was asked; safe for several threads."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, Asked], tuple[Withdrawal | None, Until]] = {}
        self._revoked: dict[tuple[int, str], bool] = {}
        self._not_before: dict[tuple[int, str], int] = {}

    def withdrawn(self, session: Session, moment: tuple[int, int], asked: Asked) -> Withdrawal | None:
        """As `withdrawn_now`; `moment` is the generation and the clock, read in this transaction before."""
        generation, now_ms = moment
        known = self._known.get((generation, asked))
        if known is None or (known[1] is not None and now_ms >= known[1]):
            if len(self._known) >= MOST_REMEMBERED:
                self._known.clear()
            known = self._known[(generation, asked)] = withdrawn_now(session, asked, now_ms)
        return known[0]

    def refuses(self, session: Session, generation: int, client_id: str, authority: Authority) -> bool:
        """Whether the token by which a job was let in was revoked since: itself, or with all of the client's."""
        if authority.token_issued_at is None:
            return False
        if authority.token_issued_at * SECOND_MS < self._tokens_not_before(session, generation, client_id):
            return True
        return authority.token_id is not None and self._is_revoked(session, generation, authority.token_id)

    def _is_revoked(self, session: Session, generation: int, token_id: str) -> bool:
        # One by one and not as gateways know them, who forget a token that has expired: a job may wait for longer.
        known = self._revoked.get((generation, token_id))
        if known is None:
            if len(self._revoked) >= MOST_REMEMBERED:
                self._revoked.clear()
            known = self._revoked[(generation, token_id)] = is_revoked(session, token_id)
        return known

    def _tokens_not_before(self, session: Session, generation: int, client_id: str) -> int:
        known = self._not_before.get((generation, client_id))
        if known is None:
            if len(self._not_before) >= MOST_REMEMBERED:
                self._not_before.clear()
            whose = Person if client_id.startswith(PERSON) else Client
            found = session.scalar(select(whose.tokens_not_before).where(whose.id == client_id))
            known = self._not_before[(generation, client_id)] = found or 0
        return known
