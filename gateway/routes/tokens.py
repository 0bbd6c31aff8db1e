"""Tokens: the token endpoint (RFC 6749), and what others need to verify its tokens (RFC 7517, RFC 8414)."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from auth import clients, refresh_tokens
from auth.assertions import TYPE
from auth.client_keys import ALGORITHMS
from auth.errors import RefreshTokenInvalid, ScopeInvalid
from auth.refresh_tokens import Refreshed
from auth.rights import ClientRights
from auth.scopes import Scope, format_scopes, known_scopes, parse_scopes
from gateway.audit_trail import note
from gateway.certificates import ClientCertificates
from gateway.client_certificates import thumbprint_of
from gateway.client_credentials import ByAssertion, authenticated
from gateway.dependencies import TOKEN_PATH, parts
from gateway.forms import FORM
from gateway.parts import Parts
from gateway.settings import GatewaySettings
from gateway.token_requests import OF_CLIENTS, OF_PEOPLE, ClientRequest, RefreshRequest, read_token_request
from model_store.database import transaction
from monitoring.metrics import TOKENS_ISSUED

JWKS_PATH = "/.well-known/jwks.json"
METADATA_PATH = "/.well-known/oauth-authorization-server"
REVOKE_PATH = "/oauth/revoke"
INTROSPECT_PATH = "/oauth/introspect"
CACHE_PUBLIC = {"cache-control": "public, max-age=300"}
NO_STORE = {"cache-control": "no-store", "pragma": "no-cache"}
WAYS = ["client_secret_basic", "client_secret_post", "private_key_jwt"]

router = APIRouter(tags=["Tokens"])


class TokenAnswer(BaseModel):
    """RFC 6749, section 5.1. Only people get refresh tokens: a client's secret gets a new token at any time."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "access_token": "eyJhbGciOiJFUzI1NiIsImtpZCI6Ii4uLiIsInR5cCI6ImF0K2p3dCJ9.….…",
                    "token_type": "Bearer",
                    "expires_in": 900,
                    "scope": "predict jobs models:read",
                }
            ]
        }
    )

    access_token: str
    token_type: str
    expires_in: int = Field(description="Seconds until the token expires.")
    scope: str = Field(description="What the token may do; separated by spaces.")
    refresh_token: str | None = Field(None, description="The next refresh token, for the grant type of that name.")


CLIENT_FIELDS = {
    "client_id": {"type": "string", "description": "Unless HTTP Basic is used."},
    "client_secret": {"type": "string", "format": "password", "description": "Unless HTTP Basic is used."},
    "client_assertion_type": {"type": "string", "enum": [TYPE]},
    "client_assertion": {
        "type": "string",
        "description": "A JWT signed with a key that the client registered, instead of a secret (RFC 7523).",
    },
}
FORM_DESCRIPTION = {
    "requestBody": {
        "required": True,
        "content": {
            FORM: {
                "schema": {
                    "type": "object",
                    "required": ["grant_type"],
                    "properties": {
                        "grant_type": {"type": "string", "enum": [OF_CLIENTS, OF_PEOPLE]},
                        **CLIENT_FIELDS,
                        "refresh_token": {"type": "string", "description": "Of a person who is signed in."},
                        "scope": {
                            "type": "string",
                            "description": "Scopes separated by spaces, for a token that may do less than its owner.",
                        },
                    },
                },
                "example": {"grant_type": OF_CLIENTS, "client_id": "cli_…", "client_secret": "sls_…"},
            }
        },
    }
}


@router.post(
    TOKEN_PATH,
    summary="Get an access token",
    description=(
        "The client proves who it is by HTTP Basic, by `client_id` and `client_secret` in the form, or by an assertion "
        "that it signs, never in two ways. Without `scope` the token has all scopes of the client. On a connection "
        "with a client certificate the token is bound to that certificate (RFC 8705)."
    ),
    responses={
        400: {
            "description": (
                "`invalid_request`, `unsupported_grant_type`, `invalid_scope`, `invalid_grant` (the refresh token is "
                "not valid) or `unauthorized_client` (RFC 6749, section 5.2)."
            )
        },
        401: {"description": "`invalid_client`: unknown, disabled, or the secret or assertion is wrong."},
        429: {"description": "Too many failed attempts from this address for this client."},
    },
    openapi_extra=FORM_DESCRIPTION,
    response_model_exclude_none=True,
)
def issue_token(
    request: Request, response: Response, asked: Annotated[ClientRequest | RefreshRequest, Depends(read_token_request)]
) -> TokenAnswer:
    thumbprint = thumbprint_of(request.scope.get("extensions"))
    if isinstance(asked, RefreshRequest):
        answer = _for_person(request, asked, thumbprint)
    else:
        answer = _for_client(request, asked, thumbprint)
    TOKENS_ISSUED.inc()
    response.headers.update(NO_STORE)
    return answer


@router.get(
    JWKS_PATH,
    summary="Keys that verify access tokens",
    description="A JWK Set (RFC 7517) with public members only; may be cached for five minutes.",
)
async def publish_keys(request: Request) -> JSONResponse:
    return JSONResponse(parts(request).keys.ring.jwks(), headers=CACHE_PUBLIC)


@router.get(
    METADATA_PATH,
    summary="Where and how tokens are issued",
    description=(
        "Authorization server metadata (RFC 8414). Addresses begin with the configured issuer, whatever `Host` a "
        "request names; they are relative where the issuer is not an address."
    ),
)
async def publish_metadata(request: Request) -> JSONResponse:
    return JSONResponse(metadata(parts(request).settings), headers=CACHE_PUBLIC)


def metadata(settings: GatewaySettings) -> dict[str, str | list[str] | bool]:
    """The document of RFC 8414, section 2; nothing of it comes from the request."""
    address = settings.issuer.rstrip("/") if settings.issuer.startswith(("https://", "http://")) else ""
    signatures: list[str] = [*ALGORITHMS]
    return {
        "issuer": settings.issuer,
        "token_endpoint": address + TOKEN_PATH,
        "revocation_endpoint": address + REVOKE_PATH,
        "introspection_endpoint": address + INTROSPECT_PATH,
        "jwks_uri": address + JWKS_PATH,
        "scopes_supported": [str(scope) for scope in Scope],
        "response_types_supported": [],
        "grant_types_supported": [OF_CLIENTS, OF_PEOPLE],
        "token_endpoint_auth_methods_supported": WAYS,
        "token_endpoint_auth_signing_alg_values_supported": signatures,
        "revocation_endpoint_auth_methods_supported": WAYS,
        "revocation_endpoint_auth_signing_alg_values_supported": signatures,
        "introspection_endpoint_auth_methods_supported": WAYS,
        "introspection_endpoint_auth_signing_alg_values_supported": signatures,
        # RFC 8705, section 3.3.
        "tls_client_certificate_bound_access_tokens": settings.tls_client_certificates is not ClientCertificates.OFF,
    }


def audiences(settings: GatewaySettings) -> tuple[str, ...]:
    """By which values of `aud` an assertion means this server: its issuer, and its token endpoint's address."""
    return (settings.issuer, str(metadata(settings)["token_endpoint"]))


def _for_client(request: Request, asked: ClientRequest, thumbprint: str | None) -> TokenAnswer:
    found = parts(request)
    # Only an assertion is written down: on SQLite, whoever has a secret waits for no writer.
    with transaction(found.sessions, write=isinstance(asked.credentials, ByAssertion)) as session:
        client = authenticated(session, asked.credentials, request)
        scopes = _chosen(known_scopes(client.scopes), asked.scope)
        moment = clients.issue_moment(session, client.tokens_not_before)
    token, seconds = found.issuer.issue(client.id, scopes, issued_at=moment, thumbprint=thumbprint)
    # Made on another machine a moment ago: its first request must not find a gateway that does not know it yet.
    _known(found, client.id)
    return _answer(token, seconds, scopes)


def _for_person(request: Request, asked: RefreshRequest, thumbprint: str | None) -> TokenAnswer:
    # Committed whatever comes of it, since a used token that came back ends the sign-in; but not where more scopes are
    # asked for than there are: that raises, and uses nothing up.
    with transaction(parts(request).sessions) as session:
        refreshed = refresh_tokens.redeem(session, asked.refresh_token)
        answer = None if refreshed is None else _refreshed(session, request, refreshed, asked.scope, thumbprint)
        family = refresh_tokens.family_of(session, asked.refresh_token) if answer is None else None
        if family is not None:
            # It may have been stolen: whose it is shall stand beside the refusal.
            note_owner(request, family.identity_id)
    if answer is None:
        raise RefreshTokenInvalid
    return answer


def _refreshed(
    session: Session, request: Request, refreshed: Refreshed, asked: str | None, thumbprint: str | None
) -> TokenAnswer | None:
    """The next tokens; None, and the sign-in ends, where the person may not be signed in any more."""
    found = parts(request)
    person = _known(found, refreshed.identity_id)
    # A sign-in from before a new password does not count.
    if person is None or person.disabled or refreshed.signed_in_at < person.tokens_not_before:
        refresh_tokens.revoke_family(session, refreshed.family)
        return None
    scopes = _chosen(refreshed.scopes & person.scopes, asked)
    token, seconds = found.issuer.issue(
        person.id,
        scopes,
        issued_at=clients.issue_moment(session, person.tokens_not_before),
        family=refreshed.family,
        thumbprint=thumbprint,
    )
    note(request, identity=person.id, name=person.name)
    return _answer(token, seconds, scopes, refreshed.text)


def note_owner(request: Request, identity_id: str) -> None:
    """Has the audit log say whose token it was that nobody authenticated for."""
    owner = parts(request).snapshot.rights.clients.get(identity_id)
    note(request, identity=identity_id, name="" if owner is None else owner.name)


def _known(found: Parts, identity_id: str) -> ClientRights | None:
    if identity_id not in found.snapshot.rights.clients:
        found.snapshot.refresh()
    return found.snapshot.rights.clients.get(identity_id)


def _chosen(has: frozenset[Scope], asked: str | None) -> frozenset[Scope]:
    wanted = has if asked is None else parse_scopes(asked)
    if not wanted or not wanted <= has:
        # Never widened, and never narrowed without a word either.
        raise ScopeInvalid(f"the scopes to choose from are: {format_scopes(has)}")
    return wanted


def _answer(token: str, seconds: int, scopes: frozenset[Scope], refresh_token: str | None = None) -> TokenAnswer:
    return TokenAnswer(
        access_token=token,
        token_type="Bearer",  # noqa: S106 - a kind
        expires_in=seconds,
        scope=format_scopes(scopes),
        refresh_token=refresh_token,
    )
