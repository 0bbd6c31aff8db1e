"""Settings of tokens, signing keys and client secrets; only a gateway and the command line read them."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr

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
    keys_dir: Path = Field(
        Path("sluice-data/keys"),
        description="Folder of the signing keys (mode 700); a key is made at the first start.",
    )
    client_secret_key: SecretStr = Field(
        min_length=32,
        description="Key under which secrets of clients are hashed: 32 random characters or more; there is no default.",
    )

    @property
    def pepper(self) -> bytes:
        """The key of the clients' secrets as bytes."""
        return self.client_secret_key.get_secret_value().encode()
