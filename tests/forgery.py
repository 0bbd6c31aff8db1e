"""Tokens of every kind for tests: properly signed with our key, and wrong in one thing."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from auth.errors import Reason, TokenInvalid
from auth.keys import HeldKey, KeyRing, PublicKey, SigningKey
from auth.tokens import Verifier

NOW = 1_800_000_000


def signing_key() -> SigningKey:
    key = ec.generate_private_key(ec.SECP256R1())
    return SigningKey(key, PublicKey.of(key.public_key()))


class FixedKeys:
    """Keys that never change: the first one signs, if its private part is known."""

    def __init__(self, *keys: PublicKey | SigningKey) -> None:
        self.ring = KeyRing(
            HeldKey(key, None) if isinstance(key, PublicKey) else HeldKey(key.public, key.key) for key in keys
        )


KEY = signing_key()
OTHER_KEY = signing_key()
RETIRING_KEY = signing_key()
HEADER = {"typ": "at+jwt", "alg": "ES256", "kid": KEY.public.kid}
CLAIMS = {
    "iss": "sluice", "aud": "sluice", "sub": "cli_1", "client_id": "cli_1", "scope": "predict jobs", "jti": "a1",
    "iat": NOW, "nbf": NOW, "exp": NOW + 900,
}  # fmt: skip


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def es256(message: bytes, key: SigningKey = KEY) -> bytes:
    r, s = decode_dss_signature(key.key.sign(message, ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def assembled(header: bytes, payload: bytes, sign: Callable[[bytes], bytes] = es256) -> str:
    message = f"{encoded(header)}.{encoded(payload)}"
    return f"{message}.{encoded(sign(message.encode()))}"


def forged(header: dict[str, Any] | None = None, claims: dict[str, Any] | None = None) -> str:
    """A token properly signed with our key, with these changes; a value of `...` takes a member out."""
    parts = []
    for original, changes in ((HEADER, header or {}), (CLAIMS, claims or {})):
        parts.append({name: value for name, value in {**original, **changes}.items() if value is not ...})
    return assembled(json.dumps(parts[0]).encode(), json.dumps(parts[1]).encode())


def with_header(text: str) -> str:
    return assembled(text.encode(), json.dumps(CLAIMS).encode())


def with_payload(text: str) -> str:
    return assembled(json.dumps(HEADER).encode(), text.encode())


def verifier(now: float = NOW, *keys: PublicKey) -> Verifier:
    return Verifier(
        FixedKeys(*keys or (KEY.public, RETIRING_KEY.public)),
        issuer="sluice",
        audience="sluice",
        max_seconds=900,
        clock=lambda: now,
    )


def reason_of(token: object, now: float = NOW) -> Reason:
    with pytest.raises(TokenInvalid) as refused:
        verifier(now).verify(token)
    assert refused.value.status == 401
    assert refused.value.message == "the access token is not valid"
    assert refused.value.challenge == 'Bearer realm="sluice", error="invalid_token"'
    return refused.value.reason
