"""Refresh tokens of people who are signed in: each is good for one use, and one that comes back ends the sign-in.

All tokens of one sign-in are a family (RFC 9700, section 4.14.2). Who presents a used token again has stolen it, or it
was stolen from them: nobody can tell which, so the whole family and its access tokens are refused from then on.
Clients never get one: their secret gets an access token at any time.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Collection
from dataclasses import dataclass, field

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from auth.revocations import KEEP_SECONDS, KEPT_FOR_JOBS_SECONDS, LONGEST_SECONDS
from auth.scopes import Scope, format_scopes, known_scopes
from auth.token_tables import RefreshToken, TokenFamily
from model_store.database import clock_ms
from model_store.generation import bump_generation

IDLE_SECONDS = 3600
LIFE_SECONDS = 12 * 3600
SECOND_MS = 1000

_TEXT = re.compile(r"slr_[A-Za-z0-9_-]{43}")


@dataclass(frozen=True, slots=True)
class Refreshed:
    """Who a refresh token belongs to, and the next one; `family` is the `sid` of the access tokens that go with it.

    `signed_in_at` is in milliseconds since 1970, by the database's clock.
    """

    identity_id: str
    scopes: frozenset[Scope]
    family: str
    signed_in_at: int
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Standing:
    """A refresh token that would be accepted now; its end in seconds since 1970."""

    identity_id: str
    scopes: frozenset[Scope]
    family: str
    expires_at: int


def issue(
    session: Session,
    identity_id: str,
    scopes: Collection[Scope],
    *,
    idle_seconds: int = IDLE_SECONDS,
    life_seconds: int = LIFE_SECONDS,
) -> Refreshed:
    """The first refresh token of a new family, at sign-in.

    It must be used within `idle_seconds`, as must each that follows it; none outlives `life_seconds` from now.
    """
    now = clock_ms(session)
    # Not before its access tokens are dead, and the jobs that these let in: one that is gone is not known as revoked.
    dead = TokenFamily.ends_at <= now - (LONGEST_SECONDS + KEEP_SECONDS + KEPT_FOR_JOBS_SECONDS) * SECOND_MS
    session.execute(delete(TokenFamily).where(dead))
    family = TokenFamily(
        id=secrets.token_urlsafe(16),
        identity_id=identity_id,
        scopes=format_scopes(scopes),
        idle_seconds=idle_seconds,
        created_at=now,
        ends_at=now + life_seconds * SECOND_MS,
    )
    session.add(family)
    session.flush()
    return Refreshed(identity_id, frozenset(scopes), family.id, now, _next(session, family, now))


def redeem(session: Session, text: str) -> Refreshed | None:
    """Uses up a refresh token and gives the next one; None where it is unknown, expired, revoked or was used before.

    To be committed also where it is None: a used token that came back has revoked its whole family.
    """
    found = _find(session, text)
    if found is None:
        return None
    token, family, now = found
    if family.revoked_at is not None or min(token.expires_at, family.ends_at) <= now:
        return None
    used = update(RefreshToken).where(RefreshToken.hash == token.hash, RefreshToken.used_at.is_(None))
    taken = session.execute(
        used.values(used_at=now).returning(RefreshToken.hash).execution_options(synchronize_session=False)
    ).one_or_none()
    if taken is None:
        revoke_family(session, family.id)
        return None
    text = _next(session, family, now)
    return Refreshed(family.identity_id, known_scopes(family.scopes), family.id, family.created_at, text)


def standing(session: Session, text: str) -> Standing | None:
    """What a refresh token stands for, without using it up; None where it would not be accepted."""
    found = _find(session, text)
    if found is None:
        return None
    token, family, now = found
    ends_at = min(token.expires_at, family.ends_at)
    if family.revoked_at is not None or token.used_at is not None or ends_at <= now:
        return None
    return Standing(family.identity_id, known_scopes(family.scopes), family.id, ends_at // SECOND_MS)


def family_of(session: Session, text: str) -> TokenFamily | None:
    """The family that a refresh token belongs to, used or not; None where the token is unknown."""
    found = _find(session, text)
    return None if found is None else found[1]


def revoke_family(session: Session, family_id: str) -> None:
    """Ends a sign-in: its refresh tokens are refused at once, its access tokens everywhere within a second."""
    family = session.get(TokenFamily, family_id)
    if family is None or family.revoked_at is not None:
        return
    family.revoked_at = clock_ms(session)
    session.flush()
    bump_generation(session)


def revoke_all(session: Session, identity_id: str) -> None:
    """Ends all sign-ins of somebody: a new password, a lost second factor, a person disabled."""
    live = select(TokenFamily.id).where(TokenFamily.identity_id == identity_id, TokenFamily.revoked_at.is_(None))
    for family_id in session.scalars(live).all():
        revoke_family(session, family_id)


def _find(session: Session, text: str) -> tuple[RefreshToken, TokenFamily, int] | None:
    if not _TEXT.fullmatch(text):
        return None
    wanted = select(RefreshToken, TokenFamily).join(TokenFamily, TokenFamily.id == RefreshToken.family)
    row = session.execute(wanted.where(RefreshToken.hash == _hash(text))).one_or_none()
    return None if row is None else (row[0], row[1], clock_ms(session))


def _next(session: Session, family: TokenFamily, now: int) -> str:
    text = f"slr_{secrets.token_urlsafe(32)}"
    expires_at = min(now + family.idle_seconds * SECOND_MS, family.ends_at)
    session.add(RefreshToken(hash=_hash(text), family=family.id, expires_at=expires_at))
    session.flush()
    return text


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
