"""Public keys that clients registered, with which they sign assertions instead of sending a secret (RFC 7523)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from auth import clients
from auth.errors import KeyUnacceptable
from auth.public_keys import VerifyingKey, read_key
from auth.token_tables import ClientKey

# Enough for a rotation by publishing both, on several machines.
MOST_KEYS = 16
ALGORITHMS = ("ES256", "RS256", "RS384", "RS512")


def set_keys(session: Session, client_id: str, documents: Sequence[Mapping[str, object]]) -> None:
    """Replaces all keys of a client; where one of them goes, so do all of the client's tokens.

    Raises ClientNotFound, and KeyUnacceptable with the place of the bad one.
    """
    client = clients.get(session, client_id)
    before = {str(key["kid"]): key for key in keys_of(session, client_id)}
    if len(documents) > MOST_KEYS:
        raise KeyUnacceptable(f"a client may have at most {MOST_KEYS} keys")
    session.execute(delete(ClientKey).where(ClientKey.client_id == client.id))
    kids: set[str] = set()
    for place, document in enumerate(documents):
        key = _read(place, document)
        if key.kid in kids:
            raise KeyUnacceptable(f"keys.{place}: another key has this kid")
        kids.add(key.kid)
        row = ClientKey(client_id=client.id, kid=key.kid, algorithm=key.algorithm, jwk=json.dumps(dict(key.jwk)))
        session.add(row)
    session.flush()
    after = {str(key["kid"]): key for key in keys_of(session, client_id)}
    if any(after.get(kid) != key for kid, key in before.items()):
        # A key goes because somebody may have it: with it, tokens were made that its end does not reach.
        clients.revoke_tokens(session, client_id)


def keys_of(session: Session, client_id: str) -> Sequence[Mapping[str, str]]:
    """The client's keys as JWK, public members only; raises ClientNotFound."""
    client = clients.get(session, client_id)
    rows = session.scalars(select(ClientKey).where(ClientKey.client_id == client.id).order_by(ClientKey.kid))
    return [json.loads(row.jwk) for row in rows]


def find_key(session: Session, client_id: str, kid: str | None) -> VerifyingKey | None:
    """The client's key of that name, or the only one that it has where none is named."""
    rows = session.scalars(select(ClientKey).where(ClientKey.client_id == client_id)).all()
    found = [row for row in rows if kid is None or row.kid == kid]
    return read_key(json.loads(found[0].jwk), ALGORITHMS) if len(found) == 1 else None


def _read(place: int, document: Mapping[str, object]) -> VerifyingKey:
    try:
        return read_key(document, ALGORITHMS)
    except KeyUnacceptable as error:
        raise KeyUnacceptable(f"keys.{place}: {error.message}") from None
