"""Receipts of jobs: which model answered which input with which output, signed, for whoever asks years later.

A receipt is a compact JWS (RFC 7515) with a `typ` of its own (RFC 8725, section 3.11): no verifier of tokens takes it
for a token, and no token passes for a receipt. It has no expiry. What verifies it is the history of public keys, which
whoever keeps receipts keeps with them.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Any

from auth.compact import (
    ISSUED_LEEWAY_SECONDS,
    Members,
    prebuilt,
    read_header,
    refusing_all_else,
    require,
    sign,
    split,
    strict_json,
    verify_signature,
    whole,
)
from auth.errors import Reason, TokenInvalid
from auth.keys import ALGORITHM, KeySource, SigningKey
from auth.public_keys import VerifyingKey, read_key
from model_store.errors import SluiceError

TYPE = "sluice-receipt+jwt"
# An installation rotates its key four times a year.
MOST_KEYS = 10_000
MOST_REMEMBERED = 1000


@dataclass(frozen=True, slots=True)
class JobReceipt:
    """What one job was, what ran and what came of it; digests are SHA-256 in hexadecimal, moments RFC 3339.

    `input_sha256` is of the body that the caller sent, `output_sha256` of the bytes that `GET /v1/jobs/{id}/result`
    answers. `artifact_sha256` is of the variant that ran, `upload_sha256` of the file that was uploaded.
    """

    job: str
    client_id: str
    model: str
    version: int
    upload_sha256: str
    artifact_sha256: str
    variant: str
    runtime: str
    platform: str
    worker: str
    input_sha256: str
    output_sha256: str
    output_bytes: int
    created_at: str
    started_at: str
    finished_at: str
    attempts: int


@dataclass(frozen=True, slots=True)
class Verified:
    """A receipt whose signature is good; `issued_at` is in seconds since 1970."""

    receipt: JobReceipt
    issuer: str
    key_id: str
    issued_at: int


class Fault(StrEnum):
    """What may be wrong with a receipt."""

    MALFORMED = "it is no receipt"
    OTHER_KIND = "it is another kind of signed text, such as a token, and no receipt"
    KEY_UNKNOWN = "the key that it names is not among these keys"
    KEY_REVOKED = "the key that signed it was revoked: anybody may have signed it"
    KEY_OUT_OF_TIME = "it says that it was signed at a time at which its key did not sign"
    FORGED = "its signature is not that of the key that it names"
    OTHER_INPUT = "it is about another input"
    OTHER_OUTPUT = "it is about another output"


class ReceiptInvalid(SluiceError):
    """A receipt that proves nothing, and why; told by the command line only."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.value)
        self.fault = fault


class ReceiptIssuer:
    """Signs receipts with the key whose time it is. Raises KeysUnavailable where there is none at this moment."""

    def __init__(self, keys: KeySource, *, issuer: str, clock: Callable[[], float] = time.time) -> None:
        self._keys = keys
        self._issuer = issuer
        self._clock = clock
        # Whoever waits for a job may look at it many times: what was signed is given again, by each key's name.
        self._signed: dict[tuple[JobReceipt, str], str] = {}

    def sign(self, receipt: JobReceipt) -> str:
        """The receipt in compact form; about 0.1 ms the first time."""
        signing = self._keys.ring.signing
        known = self._signed.get((receipt, signing.public.kid))
        if known is not None:
            return known
        if len(self._signed) >= MOST_REMEMBERED:
            self._signed.clear()
        signed = self._signed[receipt, signing.public.kid] = self._sign(receipt, signing)
        return signed

    def _sign(self, receipt: JobReceipt, signing: SigningKey) -> str:
        claims = {"iss": self._issuer, "iat": int(self._clock()), **asdict(receipt)}
        headers = {"typ": TYPE, "kid": signing.public.kid}
        return sign(claims, prebuilt(signing.key, ALGORITHM), headers, ALGORITHM)


@dataclass(frozen=True, slots=True)
class HistoricalKey:
    """A public key, and between which moments it signed, in seconds since 1970."""

    key: VerifyingKey
    signs_from: int | None
    verifies_until: int | None
    revoked: bool

    def signed_at(self, moment: int) -> bool:
        """Whether the key may have signed something at this moment."""
        begun = self.signs_from is None or moment >= self.signs_from - ISSUED_LEEWAY_SECONDS
        return begun and (self.verifies_until is None or moment <= self.verifies_until + ISSUED_LEEWAY_SECONDS)


def read_history(document: Mapping[str, object]) -> Mapping[str, HistoricalKey]:
    """The keys of a JWK Set by their names, ours or any other of RFC 7517; raises ReceiptInvalid, KeyUnacceptable."""
    listed = document.get("keys")
    if not isinstance(listed, list) or len(listed) > MOST_KEYS:
        raise ReceiptInvalid(Fault.KEY_UNKNOWN)
    return {found.key.kid: found for found in (_historical(jwk) for jwk in listed if isinstance(jwk, dict))}


def verify(text: str, keys: Mapping[str, HistoricalKey]) -> Verified:
    """What a genuine receipt says; raises ReceiptInvalid."""
    signed = text.strip()
    with _refusing(Fault.MALFORMED):
        encoded_header, payload, _ = split(signed)
        header, claims = read_header(encoded_header), strict_json(payload)
    if header.get("typ") != TYPE:
        raise ReceiptInvalid(Fault.OTHER_KIND)
    held = keys.get(str(header.get("kid")))
    if held is None:
        raise ReceiptInvalid(Fault.KEY_UNKNOWN)
    with _refusing(Fault.FORGED):
        require(header.get("alg") == held.key.algorithm, Reason.HEADER)
        verify_signature(signed, held.key.key, held.key.algorithm)
    if held.revoked:
        raise ReceiptInvalid(Fault.KEY_REVOKED)
    with _refusing(Fault.MALFORMED):
        verified = Verified(_receipt(claims), _text(claims, "iss"), held.key.kid, whole(claims, "iat"))
    if not held.signed_at(verified.issued_at):
        raise ReceiptInvalid(Fault.KEY_OUT_OF_TIME)
    return verified


def compare(receipt: JobReceipt, *, input_sha256: str | None = None, output_sha256: str | None = None) -> None:
    """Raises ReceiptInvalid where what was hashed is not what the receipt is about; None is not compared."""
    if input_sha256 is not None and input_sha256 != receipt.input_sha256:
        raise ReceiptInvalid(Fault.OTHER_INPUT)
    if output_sha256 is not None and output_sha256 != receipt.output_sha256:
        raise ReceiptInvalid(Fault.OTHER_OUTPUT)


@contextlib.contextmanager
def _refusing(fault: Fault) -> Iterator[None]:
    try:
        with refusing_all_else():
            yield
    except TokenInvalid:
        raise ReceiptInvalid(fault) from None


def _receipt(claims: Members) -> JobReceipt:
    values: dict[str, Any] = {
        found.name: whole(claims, found.name) if found.type == "int" else _text(claims, found.name)
        for found in fields(JobReceipt)
    }
    return JobReceipt(**values)


def _text(claims: Members, claim: str) -> str:
    value = claims.get(claim)
    if not isinstance(value, str):
        raise TokenInvalid(reason=Reason.CLAIMS)
    return value


def _historical(jwk: Mapping[str, object]) -> HistoricalKey:
    """A key as OpenID Federation 1.0 (section 8.7) tells of historical keys; plain ones have no times."""
    return HistoricalKey(read_key(jwk, (ALGORITHM,)), _seconds(jwk, "iat"), _seconds(jwk, "exp"), "revoked" in jwk)


def _seconds(jwk: Mapping[str, object], member: str) -> int | None:
    value = jwk.get(member)
    return value if type(value) is int else None  # not isinstance: true and false are ints to Python
