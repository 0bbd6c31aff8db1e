"""Other issuers whose access tokens are accepted: what the setting SLUICE_TRUSTED_ISSUERS says of each."""

from __future__ import annotations

import ipaddress
import json
from typing import Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator

from auth.scopes import Scope

# All that python-jose can check with public keys.
Algorithm = Literal["ES256", "ES384", "ES512", "RS256", "RS384", "RS512"]


class TrustedIssuer(BaseModel):
    """One issuer, the keys that it signs with, and how its claims are read."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    issuer: str = Field(min_length=1, max_length=256)  # `iss`, compared character by character
    audience: str = Field(min_length=1, max_length=256)  # what `aud` must be or contain: this installation
    jwks_url: str = Field(max_length=2048)
    algorithms: tuple[Algorithm, ...] = Field(min_length=1)
    # Names the client: `azp` with Keycloak and Auth0, `client_id` by RFC 9068, or `sub`.
    client_claim: str = Field("azp", min_length=1, max_length=256)
    # `typ` of the header. Keycloak and others say only JWT, of identity tokens too: then `claims` tells them apart.
    types: tuple[str, ...] = Field(("at+jwt",), min_length=1)
    claims: dict[str, str] = Field(default_factory=dict)  # claims that must have exactly this value
    # Where scopes are: a claim, or a path like `realm_access.roles`; null gives a token all scopes of its client.
    scope_claim: str | None = "scope"
    # Ours for each of theirs; without it theirs are called as ours. Others are passed over.
    scopes: dict[str, tuple[Scope, ...]] | None = None
    max_seconds: int = Field(3600, ge=60, le=86_400)  # the longest life that a token may have
    keep_seconds: int = Field(3600, ge=60, le=86_400)  # how long keys are good that could not be fetched again

    @field_validator("jwks_url")
    @classmethod
    def _secure(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.username is not None or not parts.hostname:
            raise ValueError("jwks_url must name a host, and no user")
        if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.hostname)):
            raise ValueError("jwks_url must be https: whoever can change what it answers can sign tokens")
        return url

    @property
    def media_types(self) -> frozenset[str]:
        """Accepted values of `typ`, in lower case, with and without the prefix (RFC 7515, section 4.1.9)."""
        names = {kind.lower().removeprefix("application/") for kind in self.types}
        return frozenset(names | {f"application/{kind}" for kind in names})


def read_trusted_issuers(value: object) -> object:
    """The setting, which is JSON where it comes from the environment or a file; raises ValueError."""
    if not isinstance(value, str):
        return value
    return json.loads(value) if value.strip() else ()


def is_loopback(host: str) -> bool:
    """Whether the host is this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
