"""Signatures of bundles: which files, with which digests, were exported from which version, and by whom.

A signature is a compact JWS (RFC 7515) with EdDSA over Ed25519 (RFC 8037) and a `typ` of its own (RFC 8725, section
3.11): no verifier of tokens or of receipts takes it for one of theirs. It has no expiry.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from auth.compact import ISSUED_LEEWAY_SECONDS, Members, read_header, refusing_all_else, split, strict_json, whole
from auth.errors import TokenInvalid
from model_store.errors import SluiceError
from model_store.upload_signatures import key_id

TYPE = "sluice-bundle+jwt"
ALGORITHM = "EdDSA"
MOST_KEYS = 10_000
MOST_FILES = 32

_DIGEST = re.compile(r"[0-9a-f]{64}")
_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a bundle is: the version that it was exported from, and the SHA-256 of each of its files by name."""

    model: str
    version: int
    variant: str
    upload_sha256: str
    files: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Verified:
    """A manifest whose signature is good; `issued_at` is in seconds since 1970."""

    manifest: Manifest
    issuer: str
    key_id: str
    issued_at: int


@dataclass(frozen=True, slots=True)
class KnownKey:
    """A public key, and between which moments it signed, in seconds since 1970."""

    key: Ed25519PublicKey
    signs_from: int | None
    signs_until: int | None
    revoked: bool

    def signed_at(self, moment: int) -> bool:
        """Whether the key may have signed something at this moment."""
        begun = self.signs_from is None or moment >= self.signs_from - ISSUED_LEEWAY_SECONDS
        return begun and (self.signs_until is None or moment <= self.signs_until + ISSUED_LEEWAY_SECONDS)


class Fault(StrEnum):
    """What may be wrong with a bundle."""

    MALFORMED = "it is no bundle, or it was cut off"
    OTHER_KIND = "its signature is another kind of signed text, such as a token"
    KEY_UNKNOWN = "the key that signed it is not among these keys"
    KEY_REVOKED = "the key that signed it was revoked: anybody may have signed it"
    KEY_OUT_OF_TIME = "it says that it was signed at a time at which its key did not sign"
    FORGED = "its signature is not that of the key that it names"
    OTHER_FILES = "it does not have the files that were signed, and those only"
    FILE_CHANGED = "a file in it is not the one that was signed"


class BundleInvalid(SluiceError):
    """A bundle that proves nothing, and why; told by the command line only."""

    def __init__(self, fault: Fault, where: str = "") -> None:
        super().__init__(f"{fault.value}: {where}" if where else fault.value)
        self.fault = fault


def sign(claims: Mapping[str, object], kid: str, key: Ed25519PrivateKey) -> str:
    """The claims, signed, in compact form."""
    header = {"alg": ALGORITHM, "kid": kid, "typ": TYPE}
    signed = f"{_encoded(_json(header))}.{_encoded(_json(claims))}"
    return f"{signed}.{_encoded(key.sign(signed.encode()))}"


def read_keys(document: Mapping[str, object]) -> Mapping[str, KnownKey]:
    """The Ed25519 keys of a JWK Set by their names; other kinds are passed over. Raises BundleInvalid."""
    listed = document.get("keys")
    if not isinstance(listed, list) or len(listed) > MOST_KEYS:
        raise BundleInvalid(Fault.KEY_UNKNOWN)
    found = (_known(jwk) for jwk in listed if isinstance(jwk, dict) and jwk.get("crv") == "Ed25519")
    return MappingProxyType(dict(found))


def verify(text: str, keys: Mapping[str, KnownKey]) -> Verified:
    """What a genuine signature says; raises BundleInvalid."""
    try:
        with refusing_all_else():
            encoded_header, payload, signature = split(text.strip())
            header, claims = read_header(encoded_header), strict_json(payload)
    except TokenInvalid:
        raise BundleInvalid(Fault.MALFORMED) from None
    if header.get("typ") != TYPE or header.get("alg") != ALGORITHM:
        raise BundleInvalid(Fault.OTHER_KIND)
    kid = str(header.get("kid"))
    known = keys.get(kid)
    if known is None:
        raise BundleInvalid(Fault.KEY_UNKNOWN)
    try:
        known.key.verify(signature, text.strip().rpartition(".")[0].encode())
    except InvalidSignature:
        raise BundleInvalid(Fault.FORGED) from None
    if known.revoked:
        raise BundleInvalid(Fault.KEY_REVOKED)
    try:
        with refusing_all_else():
            verified = Verified(_manifest(claims), str(claims["iss"]), kid, whole(claims, "iat"))
    except TokenInvalid:
        raise BundleInvalid(Fault.MALFORMED) from None
    if not known.signed_at(verified.issued_at):
        raise BundleInvalid(Fault.KEY_OUT_OF_TIME)
    return verified


def _manifest(claims: Members) -> Manifest:
    files = claims["files"]
    if not isinstance(files, dict) or len(files) > MOST_FILES:
        raise ValueError("no files")
    if not all(_FILE.fullmatch(name) and _DIGEST.fullmatch(digest) for name, digest in files.items()):
        raise ValueError("no name, or no digest")
    return Manifest(
        str(claims["model"]), whole(claims, "version"), str(claims["variant"]), str(claims["upload_sha256"]), files
    )


def _known(jwk: Mapping[str, object]) -> tuple[str, KnownKey]:
    """A key by its thumbprint, whatever name it is given: the name in a signature is to be that of these bytes."""
    try:
        raw = base64.b64decode(str(jwk.get("x")) + "=", b"-_", validate=True)
        key = Ed25519PublicKey.from_public_bytes(raw)
    except (binascii.Error, ValueError):
        raise BundleInvalid(Fault.KEY_UNKNOWN) from None
    return key_id(raw), KnownKey(key, _seconds(jwk, "iat"), _seconds(jwk, "exp"), "revoked" in jwk)


def _seconds(jwk: Mapping[str, object], member: str) -> int | None:
    value = jwk.get(member)
    return value if type(value) is int else None  # not isinstance: true and false are ints to Python


def _json(members: Mapping[str, object]) -> bytes:
    return json.dumps(members, separators=(",", ":"), ensure_ascii=False).encode()


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
