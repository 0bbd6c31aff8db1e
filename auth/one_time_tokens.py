"""Tokens that are good for one act and for a short time; handed over by hand, kept as hashes only."""

from __future__ import annotations

import hashlib
import secrets
from enum import StrEnum

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from auth.people_errors import OneTimeTokenInvalid
from auth.people_tables import OneTimeToken
from model_store.database import clock_ms

SECOND_MS = 1000
PREFIX = "slo_"


class Purpose(StrEnum):
    """What a token is good for."""

    SETUP = "setup"
    PASSWORD = "password"  # noqa: S105 - a purpose


SECONDS = {Purpose.SETUP: 3600, Purpose.PASSWORD: 86_400}


def issue(session: Session, purpose: Purpose, person_id: str | None = None) -> tuple[str, int]:
    """A new token and the moment at which it expires, in milliseconds since 1970; earlier ones of the kind are void."""
    token = PREFIX + secrets.token_urlsafe(32)
    now = clock_ms(session)
    same = (OneTimeToken.purpose == purpose) & (OneTimeToken.person_id == person_id)
    session.execute(delete(OneTimeToken).where(same | (OneTimeToken.expires_at <= now)))
    expires_at = now + SECONDS[purpose] * SECOND_MS
    session.add(OneTimeToken(token_hash=_hash(token), purpose=purpose, person_id=person_id, expires_at=expires_at))
    session.flush()
    return token, expires_at


def look_up(session: Session, token: str, purpose: Purpose) -> str | None:
    """Whose token this is, if anybody's; it stays good. Raises OneTimeTokenInvalid.

    For a look before the hashing of a password, which strangers must not be able to cause.
    """
    row = session.scalars(select(OneTimeToken).where(OneTimeToken.token_hash == _hash(token))).one_or_none()
    if row is None or row.purpose != purpose or row.expires_at <= clock_ms(session):
        raise OneTimeTokenInvalid
    return row.person_id


def spend(session: Session, token: str, purpose: Purpose) -> str | None:
    """As `look_up`, and the token is used up. Raises OneTimeTokenInvalid."""
    person_id = look_up(session, token, purpose)
    # Of two who came with it at the same time, one finds it gone.
    gone = session.execute(delete(OneTimeToken).where(OneTimeToken.token_hash == _hash(token))).rowcount  # type: ignore[attr-defined] # of DELETE
    if gone != 1:
        raise OneTimeTokenInvalid
    return person_id


def _hash(token: str) -> str:
    # 256 random bits: nobody guesses them, so a fast hash is enough (ASVS 5.0, 6.5.2).
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
