"""Addresses that webhooks may be sent to: https, a host by its name that the operator allows, a port of few.

Read strictly and in one way only: where two readers of an address differ about its host, one of them checks what the
other does not connect to. The network address behind the name is judged later, by whoever connects.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from model_store.errors import SluiceError
from workers.webhooks.settings import WebhookSettings

URL_CHARACTERS = 2048
HOST_CHARACTERS = 253
DEFAULT_PORTS = {"https": 443, "http": 80}

# Nothing but what RFC 3986 allows in path and query; no user, no fragment, no backslash, no white space.
_URL = re.compile(
    r"(?P<scheme>https?)://(?P<host>[A-Za-z0-9_.-]+)(?::(?P<port>[1-9][0-9]{0,4}))?"
    r"(?P<target>(?:/[A-Za-z0-9\-._~!$&'()*+,;=:@%/]*)?(?:\?[A-Za-z0-9\-._~!$&'()*+,;=:@%/?]*)?)",
    re.ASCII,
)
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?", re.ASCII)
# What ends so is read as an IPv4 address by some: decimal, octal or hexadecimal (WHATWG URL, "ends in a number").
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII)


class WebhookRefused(SluiceError):
    """Webhooks do not go there; the message says why, by what the address says of itself alone."""

    status = 422
    code = "webhook_refused"


@dataclass(frozen=True, slots=True)
class Receiver:
    """A checked address in its parts; `target` is path and query as they are requested."""

    url: str
    secure: bool
    host: str
    port: int
    target: str

    @property
    def host_field(self) -> str:
        """The value of the field `Host`."""
        usual = DEFAULT_PORTS["https" if self.secure else "http"]
        return self.host if self.port == usual else f"{self.host}:{self.port}"


def receiver_of(url: str, settings: WebhookSettings) -> Receiver:
    """The address in its parts; raises WebhookRefused."""
    if not settings.webhook_hosts:
        raise WebhookRefused("there are no webhooks here: the setting SLUICE_WEBHOOK_HOSTS names no host")
    found = _URL.fullmatch(url) if len(url) <= URL_CHARACTERS else None
    if found is None:
        raise WebhookRefused(
            f"an address is https://HOST/…, at most {URL_CHARACTERS} characters of ASCII (names beyond it as xn--…), "
            "without user, password or fragment"
        )
    scheme, host = found["scheme"], found["host"].lower()
    labels = host.split(".")
    if len(host) > HOST_CHARACTERS or not all(map(_LABEL.fullmatch, labels)) or _NUMBER.fullmatch(labels[-1]):
        raise WebhookRefused("name the host: numbers, a dot at the end and empty parts are not taken")
    if scheme == "http" and not settings.webhook_plain_http:
        raise WebhookRefused("only https: the setting SLUICE_WEBHOOK_PLAIN_HTTP does not allow http")
    if not any(_names(pattern, host) for pattern in settings.webhook_hosts.split()):
        raise WebhookRefused("the setting SLUICE_WEBHOOK_HOSTS does not name this host")
    port = int(found["port"] or DEFAULT_PORTS[scheme])
    allowed = {int(word) for word in settings.webhook_ports.split()} | ({80} if settings.webhook_plain_http else set())
    if port not in allowed:
        raise WebhookRefused("the setting SLUICE_WEBHOOK_PORTS does not name this port")
    target = found["target"]
    return Receiver(url, scheme == "https", host, port, target if target.startswith("/") else f"/{target}")


def _names(pattern: str, host: str) -> bool:
    if pattern == "*":
        return True
    return host.endswith(pattern[1:]) if pattern.startswith("*.") else host == pattern
