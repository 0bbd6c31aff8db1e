"""Secrets that sign webhooks, sealed in SQL; and the signatures, after the Standard Webhooks specification.

Signed is `id.timestamp.body`, with HMAC-SHA-256 under the secret's bytes. While two secrets are good, each signs, so
that a receiver changes from one to the other when it likes. Only gateways have the keys that open these secrets.
"""

from __future__ import annotations

import base64
import hmac
import secrets

from sqlalchemy import delete, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from model_store.database import clock_ms
from model_store.sealing import SealingKeys
from workers.webhooks.tables import WebhookSecret

PREFIX = "whsec_"
SECRET_BYTES = 32  # the specification wants 24 to 64
SECOND_MS = 1000
RESEAL_PAGE = 500


def ensure(session: Session, keys: SealingKeys, owner: str, client_id: str) -> str:
    """The owner's secret as its receiver wants it, made where there is none yet."""
    return text_of(_open(keys, _ensured(session, keys, owner, client_id)))


def rotate(session: Session, keys: SealingKeys, owner: str, client_id: str, *, overlap_seconds: int) -> str:
    """A new secret; the one so far signs beside it for `overlap_seconds` more, any older one no longer."""
    made = secrets.token_bytes(SECRET_BYTES)
    row = session.get(WebhookSecret, owner, with_for_update=True)
    if row is None:
        row = _ensured(session, keys, owner, client_id)
        row.sealed = keys.seal(made, _context(owner))
    else:
        row.previous = row.sealed if overlap_seconds else None
        row.previous_until = clock_ms(session) + overlap_seconds * SECOND_MS if overlap_seconds else None
        row.sealed = keys.seal(made, _context(owner))
    session.flush()
    return text_of(made)


def forget(session: Session, owner: str) -> None:
    """Forgets an owner's secrets."""
    session.execute(delete(WebhookSecret).where(WebhookSecret.owner == owner))


def good_secrets(session: Session, keys: SealingKeys, owner: str, client_id: str, now: int) -> list[bytes]:
    """The secrets that sign at a moment (milliseconds since 1970), the newest first. Raises SealBroken."""
    row = _ensured(session, keys, owner, client_id)
    good = [_open(keys, row)]
    if row.previous is not None and (row.previous_until or 0) > now:
        good.append(keys.open(row.previous, _context(owner)))
    return good


def signature(good: list[bytes], message_id: str, timestamp: int, body: bytes) -> str:
    """The value of `webhook-signature`: one signature for each secret, separated by spaces."""
    signed = b"%s.%d.%s" % (message_id.encode(), timestamp, body)
    return " ".join(f"v1,{base64.b64encode(hmac.digest(secret, signed, 'sha256')).decode()}" for secret in good)


def text_of(secret: bytes) -> str:
    """A secret as receivers and their libraries want it."""
    return PREFIX + base64.b64encode(secret).decode()


def reseal(session: Session, keys: SealingKeys) -> int:
    """Seals under the newest master key what older ones sealed; returns of how many owners. Raises SealBroken."""
    done, after = 0, ""
    while True:
        page = select(WebhookSecret).where(WebhookSecret.owner > after).order_by(WebhookSecret.owner).limit(RESEAL_PAGE)
        rows = session.scalars(page).all()
        for row in rows:
            done += _reseal(row, keys)
        session.flush()
        if len(rows) < RESEAL_PAGE:
            return done
        after = rows[-1].owner


def _ensured(session: Session, keys: SealingKeys, owner: str, client_id: str) -> WebhookSecret:
    row = session.get(WebhookSecret, owner)
    if row is not None:
        return row
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    sealed = keys.seal(secrets.token_bytes(SECRET_BYTES), _context(owner))
    # Of two that make it at once, the second one waits for the first and takes its.
    made = insert(WebhookSecret).values(owner=owner, client_id=client_id, sealed=sealed)
    session.execute(made.on_conflict_do_nothing(index_elements=["owner"]))
    return session.get_one(WebhookSecret, owner)


def _reseal(row: WebhookSecret, keys: SealingKeys) -> bool:
    old = [sealed for sealed in (row.sealed, row.previous) if sealed is not None and not keys.is_current(sealed)]
    if old:
        row.sealed = keys.seal(_open(keys, row), _context(row.owner))
        if row.previous is not None:
            row.previous = keys.seal(keys.open(row.previous, _context(row.owner)), _context(row.owner))
    return bool(old)


def _open(keys: SealingKeys, row: WebhookSecret) -> bytes:
    return keys.open(row.sealed, _context(row.owner))


def _context(owner: str) -> bytes:
    return b"webhook secret " + owner.encode()
