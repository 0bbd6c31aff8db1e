"""Settings of tokens, signing keys and client secrets; only a gateway and the command line read them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import BeforeValidator, Field, SecretStr, model_validator
from pydantic_settings import NoDecode

from auth.trusted_issuers import TrustedIssuer, read_trusted_issuers
from model_store.sealing import SealingKeys
from model_store.settings import Settings


class AuthSettings(Settings):
    """Who issues tokens, for whom, for how long, and where the secrets lie."""

    issuer: str = Field(
        "sluice",
        min_length=1,
        max_length=256,
        description="`iss` of tokens. Best the public `https://` address of the gateway, as RFC 8414 wants it.",
    )
    audience: str = Field(
        "sluice", min_length=1, max_length=256, description="`aud` of tokens: tokens for anybody else are refused."
    )
    token_seconds: int = Field(900, ge=60, le=3600, description="How long an access token is valid.")
    master_key: SecretStr = Field(
        min_length=43,
        description=(
            "Key under which signing keys and second factors are sealed: 32 random bytes in base64url, as "
            "`sluice keys new-master` prints them; several, separated by spaces, while it is changed, the newest "
            "first. There is no default."
        ),
    )
    trusted_issuers: Annotated[tuple[TrustedIssuer, ...], NoDecode, BeforeValidator(read_trusted_issuers)] = Field(
        (),
        description=(
            "Other issuers whose tokens are accepted: a JSON list of objects, as `docs/tokens.md` describes them."
        ),
    )
    key_days: int = Field(90, ge=0, le=3650, description="Age at which the signing key is rotated; 0 is never.")
    key_publish_seconds: int = Field(
        600, ge=2, le=86_400, description="How long a new signing key is published before it signs."
    )
    keys_dir: Path = Field(
        Path("sluice-data/keys"),
        description="Folder of signing keys as releases before 0.2 kept them; read once, at the first start.",
    )
    client_secret_key: SecretStr = Field(
        min_length=32,
        description="Key under which secrets of clients are hashed: 32 random characters or more; there is no default.",
    )

    @model_validator(mode="after")
    def _issuers_differ(self) -> Self:
        names = [self.issuer, *(trusted.issuer for trusted in self.trusted_issuers)]
        if len(set(names)) != len(names):
            raise ValueError("two issuers of tokens have the same name, or one has our own")
        return self

    @property
    def pepper(self) -> bytes:
        """The key of the clients' secrets as bytes."""
        return self.client_secret_key.get_secret_value().encode()

    @property
    def master_keys(self) -> SealingKeys:
        """The ring that seals signing keys and second factors; raises SealingKeysInvalid."""
        return SealingKeys.parse(self.master_key.get_secret_value())
