"""Keys, assertions and another issuer for tests: real signatures, and a real server that publishes its keys."""

from __future__ import annotations

import contextlib
import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from auth.assertions import TYPE
from tests.forgery import assembled, encoded

TOKEN_ADDRESS = "https://sluice.example/oauth/token"
ISSUER = "https://sluice.example"


@dataclass(frozen=True)
class Signer:
    """A private key of somebody else, with the JWK of its public part."""

    kid: str
    algorithm: str
    jwk: dict[str, Any]
    sign: Callable[[bytes], bytes]
    private: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

    def token(self, claims: dict[str, Any], header: dict[str, Any] | None = None) -> str:
        """These claims signed; a member of the header that is `...` is left out."""
        members = {"alg": self.algorithm, "kid": self.kid, **(header or {})}
        kept = {name: value for name, value in members.items() if value is not ...}
        return assembled(json.dumps(kept).encode(), json.dumps(claims).encode(), self.sign)


def number(value: int, size: int | None = None) -> str:
    return encoded(value.to_bytes(size or (value.bit_length() + 7) // 8, "big"))


def elliptic(kid: str = "ec-1") -> Signer:
    key = ec.generate_private_key(ec.SECP256R1())
    numbers = key.public_key().public_numbers()

    def sign(message: bytes) -> bytes:
        r, s = decode_dss_signature(key.sign(message, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")

    jwk = {"kty": "EC", "crv": "P-256", "x": number(numbers.x, 32), "y": number(numbers.y, 32), "kid": kid}
    return Signer(kid, "ES256", jwk, sign, key)


def rivest(kid: str = "rsa-1", bits: int = 2048) -> Signer:
    key = rsa.generate_private_key(65537, bits)
    numbers = key.public_key().public_numbers()
    jwk = {"kty": "RSA", "n": number(numbers.n), "e": number(numbers.e), "kid": kid, "use": "sig", "alg": "RS256"}
    return Signer(kid, "RS256", jwk, lambda message: key.sign(message, PKCS1v15(), hashes.SHA256()), key)


def assertion_claims(client_id: str, **changes: object) -> dict[str, Any]:
    """What a proper assertion says; a claim that is `...` is left out."""
    now = int(time.time())
    claims = {
        "iss": client_id, "sub": client_id, "aud": TOKEN_ADDRESS, "jti": secrets.token_urlsafe(12), "iat": now,
        "exp": now + 60, **changes,
    }  # fmt: skip
    return {name: value for name, value in claims.items() if value is not ...}


def assertion_form(text: str, **form: str) -> dict[str, str]:
    return {"client_assertion_type": TYPE, "client_assertion": text, **form}


@dataclass
class OtherIssuer:
    """Another issuer: its address, the keys that it publishes, and how often it was asked for them."""

    address: str = ""
    keys: list[dict[str, Any]] = field(default_factory=list)
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    asked: list[str] = field(default_factory=list)

    @property
    def jwks_url(self) -> str:
        return f"{self.address}/keys"

    def answer(self) -> bytes:
        return json.dumps({"keys": self.keys}).encode() if self.body is None else self.body


@contextlib.contextmanager
def other_issuer(*signers: Signer) -> Iterator[OtherIssuer]:
    """A server on a port of its own that publishes these keys."""
    issuer = OtherIssuer(keys=[signer.jwk for signer in signers])

    class Answering(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            issuer.asked.append(self.path)
            body = issuer.answer()
            self.send_response(issuer.status)
            for name, value in issuer.headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            # Who asked may hang up early, as over an answer that is too long.
            with contextlib.suppress(OSError):
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    server.daemon_threads = True
    issuer.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield issuer
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
