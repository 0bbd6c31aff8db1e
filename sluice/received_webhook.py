"""Checks a webhook that was received, as its receiver does: after the Standard Webhooks specification.

It asks no gateway, and needs nothing but Python's own library, so that a receiver may copy it.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import time
from collections.abc import Mapping

PREFIX = "whsec_"
# A captured message is of no use to anybody longer than this.
TOLERANCE_SECONDS = 300


class WebhookInvalid(Exception):
    """The message was not signed with this secret, was changed, or is too old; the text says which."""


def verify(
    secret: str,
    fields: Mapping[str, str],
    body: bytes,
    *,
    now: float | None = None,
    tolerance_seconds: float = TOLERANCE_SECONDS,
) -> str:
    """The message's id, by which one that comes twice is known; raises WebhookInvalid.

    `fields` are the request's header fields by their names in any case, `body` its bytes as they came.
    """
    given = {name.lower(): value for name, value in fields.items()}
    try:
        message, timestamp, signatures = (given[f"webhook-{name}"] for name in ("id", "timestamp", "signature"))
    except KeyError as error:
        raise WebhookInvalid(f"the field {error.args[0]} is missing") from None
    if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 12):
        raise WebhookInvalid("webhook-timestamp is no number of seconds")
    age = (time.time() if now is None else now) - int(timestamp)
    if abs(age) > tolerance_seconds:
        raise WebhookInvalid(f"it was signed {age:.0f} seconds ago; {tolerance_seconds:.0f} at most are taken")
    expected = hmac.digest(_key(secret), f"{message}.{timestamp}.".encode() + body, "sha256")
    for signature in signatures.split(" "):
        version, _, text = signature.partition(",")
        if version == "v1" and hmac.compare_digest(text.encode(), base64.b64encode(expected)):
            return message
    raise WebhookInvalid("no signature fits this secret, id, timestamp and body")


def _key(secret: str) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not key:
        # Anybody can sign with the empty one, which is what a variable that was not set gives.
        raise WebhookInvalid(f"a secret is {PREFIX} and base64")
    return key
