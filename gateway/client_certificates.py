"""The certificate that a caller showed when the TLS connection was made, as whoever terminates TLS here hands it over.

Only the gateway's own TLS fills it in: a header could be written by anybody.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from typing import Any

from auth.errors import Reason, TokenInvalid

# ASGI's `scope["extensions"]`.
Extensions = Mapping[str, Any]


def thumbprint_of(extensions: Extensions | None) -> str | None:
    """The certificate's SHA-256 in base64url, as `x5t#S256` writes it; None on a connection without one."""
    connection = (extensions or {}).get("tls") or {}
    found = connection.get("client_cert_thumbprint")
    return found if isinstance(found, str) and found else None


def require_bound(thumbprint: str, extensions: Extensions | None) -> None:
    """Raises TokenInvalid where a token is bound to another certificate than the connection's (RFC 8705, section 3)."""
    shown = thumbprint_of(extensions)
    if shown is None or not hmac.compare_digest(thumbprint.encode(), shown.encode()):
        raise TokenInvalid(reason=Reason.CERTIFICATE)
