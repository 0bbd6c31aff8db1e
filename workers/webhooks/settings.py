"""Settings of webhooks: where they may go. Gateways refuse other addresses at once, background workers once more."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator

from model_store.settings import Settings
from workers.webhooks.networks import parse_networks

HOST_PATTERN = r"(\*|(\*\.)?[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*)"


class WebhookSettings(Settings):
    """Where webhooks may go; nowhere, unless hosts are named."""

    webhook_hosts: str = Field(
        "",
        pattern=rf"^({HOST_PATTERN}( {HOST_PATTERN})*)?$",
        description=(
            "Hosts that webhooks may go to, separated by spaces: `hooks.example.com`, `*.example.com` for all names "
            "below it, `*` for every host. Empty: there are no webhooks."
        ),
    )
    webhook_networks: str = Field(
        "",
        pattern=r"^[0-9a-fA-F:./]*( [0-9a-fA-F:./]+)*$",
        description=(
            "Networks (CIDR, separated by spaces) that webhooks may go to although their addresses are private, "
            "loopback, link-local or reserved, which are refused otherwise."
        ),
    )
    webhook_ports: str = Field(
        "443 8443", pattern=r"^[0-9]{1,5}( [0-9]{1,5})*$", description="Ports that webhooks may go to."
    )
    webhook_plain_http: bool = Field(False, description="Whether webhooks may go to `http://` addresses.")
    webhook_ca: Path | None = Field(
        None,
        description="File (PEM) of the authorities that sign receivers' certificates; by default the system's.",
    )

    @field_validator("webhook_networks")
    @classmethod
    def _are_networks(cls, text: str) -> str:
        parse_networks(text)
        return text
