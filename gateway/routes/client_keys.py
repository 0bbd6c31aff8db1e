"""Administration of clients that show no secret: their public keys, and what other issuers call them."""

from __future__ import annotations

import logging
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from auth import client_identities, client_keys
from auth.client_identities import MOST_IDENTITIES, Identity
from auth.client_keys import MOST_KEYS
from gateway.dependencies import TokenFirst
from gateway.routes.clients import NOT_FOUND, Admin, ClientId, Reading, Writing

log = logging.getLogger(__name__)

VISIBLE = r"^[\x21-\x7e]+$"

router = APIRouter(prefix="/admin/clients", tags=["Clients"], route_class=TokenFirst)


class KeySet(BaseModel):
    """Public keys of a client, as a JWK Set (RFC 7517): P-256 for ES256, RSA of 2048 to 4096 bits for RS256 to 512."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"keys": [{"kty": "EC", "crv": "P-256", "x": "…", "y": "…", "kid": "2026"}]}]},
    )

    # Their members depend on their kind: `auth.public_keys` reads them, and refuses private ones.
    keys: list[dict[str, Any]] = Field(max_length=MOST_KEYS)


class IdentityBody(BaseModel):
    """What another issuer calls a client."""

    model_config = ConfigDict(extra="forbid")

    issuer: str = Field(
        min_length=1, max_length=256, description="`iss` of its tokens.", examples=["https://id.example"]
    )
    subject: str = Field(
        min_length=1,
        max_length=128,
        pattern=VISIBLE,
        description="The value of the claim that names clients there.",
        examples=["reading-room"],
    )


class Identities(BaseModel):
    """All that other issuers call a client."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"identities": [{"issuer": "https://id.example", "subject": "reading-room"}]}]},
    )

    identities: list[IdentityBody] = Field(max_length=MOST_IDENTITIES)


@router.get("/{client_id}/keys", summary="Show a client's public keys", responses=NOT_FOUND)
def show_keys(admin: Admin, session: Reading, client_id: ClientId) -> KeySet:  # noqa: ARG001 - asking for it is the check
    return _keys(session, client_id)


@router.put(
    "/{client_id}/keys",
    summary="Replace a client's public keys",
    description=(
        "The list replaces all keys. With one of them the client signs assertions and needs no secret "
        "(`private_key_jwt`, RFC 7523). A key serves one algorithm: the one that it names, or the first that fits."
    ),
    responses=NOT_FOUND | {422: {"description": "A key is weak, private or of an unknown kind: the text says which."}},
)
def replace_keys(admin: Admin, session: Writing, client_id: ClientId, body: KeySet) -> KeySet:
    client_keys.set_keys(session, client_id, body.keys)
    log.info("keys of client %s replaced by %s", client_id, admin.client_id)
    return _keys(session, client_id)


@router.get("/{client_id}/identities", summary="Show what other issuers call a client", responses=NOT_FOUND)
def show_identities(admin: Admin, session: Reading, client_id: ClientId) -> Identities:  # noqa: ARG001 - as above
    return _identities(session, client_id)


@router.put(
    "/{client_id}/identities",
    summary="Replace what other issuers call a client",
    description=(
        "Tokens of an issuer that the setting `SLUICE_TRUSTED_ISSUERS` names stand for this client where their claim "
        "has this value; every gateway knows it within a second. One value stands for one client."
    ),
    responses=NOT_FOUND | {409: {"description": "An identity is another client's."}},
)
def replace_identities(admin: Admin, session: Writing, client_id: ClientId, body: Identities) -> Identities:
    wanted = [Identity(identity.issuer, identity.subject) for identity in body.identities]
    client_identities.set_identities(session, client_id, wanted)
    log.info("identities of client %s replaced by %s", client_id, admin.client_id)
    return _identities(session, client_id)


def _keys(session: Session, client_id: str) -> KeySet:
    return KeySet(keys=[dict(jwk) for jwk in client_keys.keys_of(session, client_id)])


def _identities(session: Session, client_id: str) -> Identities:
    found = client_identities.identities_of(session, client_id)
    return Identities(identities=[IdentityBody(issuer=one.issuer, subject=one.subject) for one in found])
