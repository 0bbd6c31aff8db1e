"""Registered clients: creating and changing them, and proving that a secret is theirs.

A secret is 256 random bits, so a keyed hash is enough to store it (ASVS 5.0, 6.5.2) and a token costs no slow hash that
somebody could burn processors with. Every change counts up the generation: gateways learn of it within a second.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Collection, Sequence

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from auth import revocations
from auth.errors import ClientAuthenticationFailed, ClientExists, ClientNotFound, ScopeInvalid
from auth.scopes import Scope, format_scopes
from auth.tables import Client
from model_store.database import clock_ms
from model_store.generation import bump_generation
from model_store.registry import check_name

ID = re.compile(r"cli_[A-Za-z0-9_-]{1,60}")
SECOND_MS = 1000

_NO_HASH = "0" * 64


def create(session: Session, name: str, scopes: Collection[Scope], pepper: bytes) -> tuple[Client, str]:
    """A new client and its secret, which is known only here and now.

    Raises NameInvalid, ScopeInvalid for no scope at all, and ClientExists where the name is taken.
    """
    check_name(name, "client")
    if not scopes:
        raise ScopeInvalid("a client needs at least one scope")
    secret = _new_secret()
    client = Client(
        # Made here, with a prefix: nobody can choose an id that is taken for somebody else's (RFC 9700, section 4.15).
        id=f"cli_{secrets.token_urlsafe(18)}",
        name=name,
        secret_hash=_hash(secret, pepper),
        scopes=format_scopes(scopes),
        disabled=False,
        tokens_not_before=0,
    )
    session.add(client)
    try:
        session.flush()
    except IntegrityError as error:
        raise ClientExists(f"there is a client named {name} already") from error
    session.refresh(client)
    bump_generation(session)
    return client, secret


def get(session: Session, client_id: str) -> Client:
    """Raises ClientNotFound."""
    client = session.get(Client, client_id) if ID.fullmatch(client_id) else None
    if client is None:
        raise _not_found()
    return client


def page(session: Session, *, after: str = "", limit: int = 100) -> Sequence[Client]:
    """At most `limit` clients in the order of their names, those after the name `after`."""
    return session.scalars(select(Client).where(Client.name > after).order_by(Client.name).limit(limit)).all()


def rotate_secret(
    session: Session, client_id: str, pepper: bytes, *, grace_seconds: int = 0, keep_tokens: bool = False
) -> str:
    """A new secret. Raises ClientNotFound.

    The old one is good for `grace_seconds` more, any older one no longer; every token issued so far stops working
    unless `keep_tokens`.
    """
    client = _lock(session, client_id)
    secret = _new_secret()
    client.previous_secret_hash = client.secret_hash if grace_seconds else None
    client.previous_secret_until = clock_ms(session) + grace_seconds * SECOND_MS if grace_seconds else None
    client.secret_hash = _hash(secret, pepper)
    session.flush()
    if not keep_tokens:
        _revoke_tokens(session, client)
    return secret


def revoke_tokens(session: Session, client_id: str) -> None:
    """Refuses every token issued so far, everywhere within a second; the secret stays. Raises ClientNotFound."""
    _revoke_tokens(session, _lock(session, client_id))


def set_disabled(session: Session, client_id: str, disabled: bool) -> Client:
    """Disables or enables a client; tokens issued before it was disabled stay refused. Raises ClientNotFound."""
    client = _lock(session, client_id)
    if client.disabled != disabled:
        client.disabled = disabled
        _revoke_tokens(session, client)
    return client


def delete(session: Session, client_id: str) -> None:
    """Forgets a client and its grants. Raises ClientNotFound."""
    session.delete(_lock(session, client_id))
    session.flush()
    bump_generation(session)


def authenticate(session: Session, client_id: str, secret: str, pepper: bytes) -> Client:
    """The enabled client whose id and secret these are; raises ClientAuthenticationFailed.

    An unknown client costs the same query, hash and comparison as a known one.
    """
    # Anything else than our ids is asked for as "": PostgreSQL refuses a NUL in a text with an error of its own.
    wanted = client_id if ID.fullmatch(client_id) else ""
    client = session.scalars(select(Client).where(Client.id == wanted)).one_or_none()
    expected = client.secret_hash if client is not None else _NO_HASH
    previous = (client.previous_secret_hash if client is not None else None) or _NO_HASH
    hashed = _hash(secret, pepper)
    matches, matches_previous = hmac.compare_digest(hashed, expected), hmac.compare_digest(hashed, previous)
    if client is None or client.disabled:
        raise ClientAuthenticationFailed
    if not matches and not (matches_previous and (client.previous_secret_until or 0) > clock_ms(session)):
        raise ClientAuthenticationFailed
    return client


def issue_moment(session: Session, tokens_not_before: int) -> int:
    """The `iat` of a token issued now: whole seconds since 1970 by the database's clock.

    Never before the identity's last revocation (in milliseconds), which would refuse a token within the second that
    follows it.
    """
    return max(clock_ms(session) // SECOND_MS, -(-tokens_not_before // SECOND_MS))


def _revoke_tokens(session: Session, client: Client) -> None:
    # Tokens say whole seconds. A revocation passes the second that tokens issued since the previous one may carry:
    # of two within one second, the later still revokes what was issued between them.
    beyond_previous = -(-client.tokens_not_before // SECOND_MS) * SECOND_MS
    client.tokens_not_before = max(clock_ms(session), beyond_previous) + 1
    session.flush()
    bump_generation(session)
    revocations.forget(session, client.id)


def _lock(session: Session, client_id: str) -> Client:
    if not ID.fullmatch(client_id):
        raise _not_found()
    wanted = select(Client).where(Client.id == client_id).with_for_update().execution_options(populate_existing=True)
    client = session.scalars(wanted).one_or_none()
    if client is None:
        raise _not_found()
    return client


def _not_found() -> ClientNotFound:
    return ClientNotFound("there is no client of this id; its name is no id")


def _new_secret() -> str:
    return f"sls_{secrets.token_urlsafe(32)}"


def _hash(secret: str, pepper: bytes) -> str:
    return hmac.new(pepper, secret.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()
