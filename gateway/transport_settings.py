"""Settings of how the gateway is reached: TLS, connections, and pages of other origins."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Self

from pydantic import Field, field_validator, model_validator

from gateway.certificates import ClientCertificates, TlsFiles
from gateway.connections import ConnectionBounds
from model_store.settings import Settings

# RFC 6454, section 7, without paths and user names, which browsers never send.
ORIGIN = re.compile(r"https?://(?:[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?")


class TransportSettings(Settings):
    """What is decided before a request is one."""

    tls_certificate: Path | None = Field(
        None, description="PEM file of the gateway's certificate and its chain; with it the gateway speaks TLS only."
    )
    tls_key: Path | None = Field(None, description="PEM file of the certificate's key, unencrypted, mode 600.")
    tls_client_certificates: ClientCertificates = Field(
        ClientCertificates.OFF, description="`off`, `optional` or `required`: certificates of callers (TLS 1.3 then)."
    )
    tls_client_ca: Path | None = Field(
        None, description="PEM file of the authorities that make those, and of their revocation lists, if any."
    )
    connections: int = Field(4096, ge=1, description="Most connections of one gateway process; more are answered 503.")
    connections_per_address: int = Field(
        0, ge=0, description="Most connections from one address (IPv6: one /64); 0 is any number, as behind a proxy."
    )
    least_bytes_per_second: int = Field(
        4096, ge=1, description="Callers that send a body or read an answer more slowly for 20 seconds are cut off."
    )
    cors_origins: str = Field(
        "", description="Origins whose pages may call the interface, such as `https://a.example.org`, with commas."
    )

    @field_validator("cors_origins")
    @classmethod
    def _name_origins(cls, value: str) -> str:
        for origin in _parts(value):
            if not ORIGIN.fullmatch(origin):
                raise ValueError(f"{origin[:200]!r} is no origin: write each as https://host or https://host:port")
        return value

    @model_validator(mode="after")
    def _tls_is_whole(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key belong together")
        if self.tls_client_certificates is not ClientCertificates.OFF and (
            self.tls_client_ca is None or self.tls_certificate is None
        ):
            raise ValueError("tls_client_certificates need tls_client_ca and tls_certificate")
        return self

    @property
    def tls_files(self) -> TlsFiles | None:
        """None where the gateway speaks plain HTTP."""
        if self.tls_certificate is None or self.tls_key is None:
            return None
        return TlsFiles(self.tls_certificate, self.tls_key, self.tls_client_ca, self.tls_client_certificates)

    @property
    def connection_bounds(self) -> ConnectionBounds:
        return ConnectionBounds(self.connections, self.connections_per_address, self.least_bytes_per_second)

    @property
    def origins(self) -> frozenset[bytes]:
        """As browsers write them in the header Origin."""
        return frozenset(origin.encode() for origin in _parts(self.cors_origins))


def _parts(value: str) -> list[str]:
    return [part.strip() for part in value.split(",") if part.strip()]
