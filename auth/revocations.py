"""Revoked tokens: single access tokens by their `jti`, and all of a sign-in by its family, until they would expire.

Never by the token's text: one token may be spelled in several ways, and only what was verified has a `jti`.
"""

from __future__ import annotations

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from auth.token_tables import RevokedToken, TokenFamily
from model_store.database import clock_ms
from model_store.generation import bump_generation

# Every gateway holds all revoked tokens in memory and reads them with each change of rights: a client that revokes
# more than this loses all the tokens that it has, which asks for no memory.
MOST_OF_ONE_IDENTITY = 1000
# The longest that an access token may live (`AuthSettings.token_seconds`).
LONGEST_SECONDS = 3600
# Expired tokens are accepted for some seconds longer, by clocks that may differ.
KEEP_SECONDS = 120
# How much longer they are kept in SQL: jobs that were let in by them may wait so long, unless settings say otherwise.
KEPT_FOR_JOBS_SECONDS = 86_400
SECOND_MS = 1000


def revoke(session: Session, token_id: str, identity_id: str, expires_at: int) -> bool:
    """Refuses the token everywhere within a second; `expires_at` is its `exp`, in seconds since 1970.

    False, and nothing done, where the identity has too many revoked tokens already.
    """
    if session.get(RevokedToken, token_id) is not None:
        # Whoever repeats it must not make every gateway read all rights again.
        return True
    # First of what is written: it makes those that revoke at the same time wait for each other, in one order.
    bump_generation(session)
    now = clock_ms(session)
    session.execute(delete(RevokedToken).where(RevokedToken.expires_at <= now - KEPT_FOR_JOBS_SECONDS * SECOND_MS))
    if session.get(RevokedToken, token_id) is not None:
        return True
    remembered = (RevokedToken.identity_id == identity_id) & (RevokedToken.expires_at > now)
    if int(session.scalar(select(func.count()).where(remembered)) or 0) >= MOST_OF_ONE_IDENTITY:
        return False
    until = (expires_at + KEEP_SECONDS) * SECOND_MS
    session.add(RevokedToken(id=token_id, identity_id=identity_id, expires_at=until))
    session.flush()
    return True


def forget(session: Session, identity_id: str) -> None:
    """Drops the single revocations of an identity, all of whose tokens are refused in another way from now on."""
    session.execute(delete(RevokedToken).where(RevokedToken.identity_id == identity_id))


def is_revoked(session: Session, token_id: str) -> bool:
    """Whether a token, or a sign-in, was revoked, which is known for a day after its access tokens have expired."""
    if session.get(RevokedToken, token_id) is not None:
        return True
    family = select(TokenFamily.id).where(TokenFamily.id == token_id, TokenFamily.revoked_at.is_not(None))
    return session.scalar(family) is not None


def load_revoked(session: Session) -> frozenset[str]:
    """The `jti` and families that are refused at this moment."""
    now = clock_ms(session)
    since = now - (LONGEST_SECONDS + KEEP_SECONDS) * SECOND_MS
    tokens = select(RevokedToken.id).where(RevokedToken.expires_at > now)
    families = select(TokenFamily.id).where(TokenFamily.revoked_at > since)
    return frozenset(session.scalars(tokens.union_all(families)))
