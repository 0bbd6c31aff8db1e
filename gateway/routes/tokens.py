"""Tokens: the token endpoint (RFC 6749), and what others need to verify its tokens (RFC 7517, RFC 8414)."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from auth import clients
from auth.errors import ClientAuthenticationFailed, ScopeInvalid
from auth.failures import Failures
from auth.scopes import Scope, format_scopes, known_scopes, parse_scopes
from auth.settings import AuthSettings
from auth.tables import Client
from gateway.dependencies import TOKEN_PATH, address_of, parts, read_session
from gateway.token_requests import FORM, GRANT_TYPE, TokenRequest, read_token_request
from monitoring.metrics import TOKENS_ISSUED

JWKS_PATH = "/.well-known/jwks.json"
METADATA_PATH = "/.well-known/oauth-authorization-server"
CACHE_PUBLIC = {"cache-control": "public, max-age=300"}

router = APIRouter(tags=["Tokens"])


class TokenAnswer(BaseModel):
    """RFC 6749, section 5.1. There is no refresh token: the client's secret gets a new one at any time."""

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


FORM_DESCRIPTION = {
    "requestBody": {
        "required": True,
        "content": {
            FORM: {
                "schema": {
                    "type": "object",
                    "required": ["grant_type"],
                    "properties": {
                        "grant_type": {"type": "string", "enum": [GRANT_TYPE]},
                        "client_id": {"type": "string", "description": "Unless HTTP Basic is used."},
                        "client_secret": {
                            "type": "string",
                            "format": "password",
                            "description": "Unless HTTP Basic is used.",
                        },
                        "scope": {
                            "type": "string",
                            "description": "Scopes separated by spaces, for a token that may do less than the client.",
                        },
                    },
                },
                "example": {"grant_type": GRANT_TYPE, "client_id": "cli_…", "client_secret": "sls_…"},
            }
        },
    }
}


@router.post(
    TOKEN_PATH,
    summary="Get an access token",
    description=(
        "The client proves who it is by HTTP Basic or by `client_id` and `client_secret` in the form, never by both. "
        "Without `scope` the token has all scopes of the client."
    ),
    responses={
        400: {"description": "`invalid_request`, `unsupported_grant_type` or `invalid_scope` (RFC 6749, section 5.2)."},
        401: {"description": "`invalid_client`: unknown, disabled, or the secret is wrong."},
        429: {"description": "Too many failed attempts from this address for this client."},
    },
    openapi_extra=FORM_DESCRIPTION,
)
def issue_token(
    request: Request,
    response: Response,
    asked: Annotated[TokenRequest, Depends(read_token_request)],
    session: Annotated[Session, Depends(read_session, scope="function")],
) -> TokenAnswer:
    found = parts(request)
    client = _authenticated(session, asked, found.settings.pepper, found.failures, address_of(request))
    scopes = _granted(client, asked.scope)
    token, seconds = found.issuer.issue(client.id, scopes, issued_at=clients.issue_moment(session, client))
    if client.id not in found.snapshot.rights.clients:
        # Made on another machine a moment ago: its first request must not find a gateway that does not know it yet.
        found.snapshot.refresh()
    TOKENS_ISSUED.inc()
    response.headers.update({"cache-control": "no-store", "pragma": "no-cache"})
    return TokenAnswer(access_token=token, token_type="Bearer", expires_in=seconds, scope=format_scopes(scopes))  # noqa: S106 - a kind


@router.get(
    JWKS_PATH,
    summary="Keys that verify access tokens",
    description="A JWK Set (RFC 7517) with public members only; may be cached for five minutes.",
)
async def publish_keys(request: Request) -> JSONResponse:
    return JSONResponse(parts(request).keys.jwks(), headers=CACHE_PUBLIC)


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


def metadata(settings: AuthSettings) -> dict[str, str | list[str]]:
    """The document of RFC 8414, section 2; nothing of it comes from the request."""
    address = settings.issuer.rstrip("/") if settings.issuer.startswith(("https://", "http://")) else ""
    return {
        "issuer": settings.issuer,
        "token_endpoint": address + TOKEN_PATH,
        "jwks_uri": address + JWKS_PATH,
        "scopes_supported": [str(scope) for scope in Scope],
        "response_types_supported": [],
        "grant_types_supported": [GRANT_TYPE],
        "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
    }


def _authenticated(session: Session, asked: TokenRequest, pepper: bytes, failures: Failures, address: str) -> Client:
    try:
        return clients.authenticate(session, asked.client_id, asked.secret, pepper)
    except ClientAuthenticationFailed:
        # Asked only after the secret was wrong: who has the right one cannot be locked out, not even from the same
        # address, and nobody guesses 256 bits.
        failures.require_few(address, asked.client_id)
        failures.count(address, asked.client_id)
        raise


def _granted(client: Client, asked: str | None) -> frozenset[Scope]:
    has = known_scopes(client.scopes)
    wanted = has if asked is None else parse_scopes(asked)
    if not wanted or not wanted <= has:
        # Never widened, and never narrowed without a word either.
        raise ScopeInvalid(f"this client has the scopes: {format_scopes(has)}")
    return wanted
