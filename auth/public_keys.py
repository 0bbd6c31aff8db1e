"""Public keys of others, as JWK (RFC 7517): clients that sign assertions, and issuers whose tokens are accepted."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric import ec, rsa

from auth.compact import Key, prebuilt
from auth.errors import KeyUnacceptable

FEWEST_RSA_BITS = 2048
# Verifying takes time in proportion to its square, and to the exponent's length.
MOST_RSA_BITS = 4096
MOST_EXPONENT_BITS = 32
RSA_ALGORITHMS = ("RS256", "RS384", "RS512")
CURVES: dict[str, tuple[str, ec.EllipticCurve]] = {
    "P-256": ("ES256", ec.SECP256R1()),
    "P-384": ("ES384", ec.SECP384R1()),
    "P-521": ("ES512", ec.SECP521R1()),
}
PRIVATE = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})

_KID = re.compile(r"[\x21-\x7e]{1,128}")
_BASE64URL = re.compile(r"[A-Za-z0-9_-]{1,1024}")


@dataclass(frozen=True, slots=True)
class VerifyingKey:
    """A key, the only algorithm that it is used with, and the JWK of its public members."""

    kid: str
    algorithm: str
    jwk: Mapping[str, str]
    key: Key = field(repr=False)


def read_key(document: Mapping[str, object], algorithms: Collection[str]) -> VerifyingKey:
    """A signature key of a JWK, for one of these algorithms; `kid` is its RFC 7638 thumbprint where it names none.

    Raises KeyUnacceptable: a private or symmetric key, one of another kind, weak, or for another use.
    """
    _require(not PRIVATE & document.keys(), "it has private members: send the public key only, and make a new one")
    _require(document.get("use", "sig") == "sig", "its use is not sig")
    operations = document.get("key_ops", ["verify"])
    _require(isinstance(operations, list) and "verify" in operations, "its key_ops do not have verify")
    members, fitting = _members(document)
    stated = document.get("alg")
    _require(stated is None or stated in fitting, "its alg does not fit the key")
    allowed = [algorithm for algorithm in fitting if algorithm in algorithms and stated in (None, algorithm)]
    _require(bool(allowed), f"its algorithm is none of: {' '.join(sorted(algorithms))}")
    kid = document.get("kid", _thumbprint(members))
    if not isinstance(kid, str) or not _KID.fullmatch(kid):
        raise KeyUnacceptable("its kid is not of 1 to 128 visible ASCII characters")
    # One algorithm for each key (RFC 8725, section 3.1): where the key does not say, the first that fits.
    jwk = {**members, "kid": kid, "use": "sig", "alg": allowed[0]}
    return VerifyingKey(kid, allowed[0], jwk, prebuilt(_public_key(members), allowed[0]))


def _members(document: Mapping[str, object]) -> tuple[dict[str, str], tuple[str, ...]]:
    """The members that make the key, and the algorithms that fit it."""
    kind = document.get("kty")
    if kind == "RSA":
        return {"e": _text(document, "e"), "kty": "RSA", "n": _text(document, "n")}, RSA_ALGORITHMS
    curve = document.get("crv")
    if kind != "EC" or not isinstance(curve, str) or curve not in CURVES:
        raise KeyUnacceptable(f"it is neither RSA nor on one of the curves {', '.join(CURVES)}")
    members = {"crv": curve, "kty": "EC", "x": _text(document, "x"), "y": _text(document, "y")}
    return members, (CURVES[curve][0],)


def _public_key(members: Mapping[str, str]) -> ec.EllipticCurvePublicKey | rsa.RSAPublicKey:
    try:
        if members["kty"] == "EC":
            curve = CURVES[members["crv"]][1]
            return ec.EllipticCurvePublicNumbers(_number(members["x"]), _number(members["y"]), curve).public_key()
        modulus, exponent = _number(members["n"]), _number(members["e"])
        _require(exponent.bit_length() <= MOST_EXPONENT_BITS, "its exponent is too large")
        _require(FEWEST_RSA_BITS <= modulus.bit_length() <= MOST_RSA_BITS, "RSA keys have 2048 to 4096 bits")
        return rsa.RSAPublicNumbers(exponent, modulus).public_key()
    except ValueError:
        raise KeyUnacceptable("its numbers are no key") from None


def _text(document: Mapping[str, object], member: str) -> str:
    value = document.get(member)
    if not isinstance(value, str) or not _BASE64URL.fullmatch(value):
        raise KeyUnacceptable(f"{member} is not base64url without padding")
    return value


def _number(text: str) -> int:
    return int.from_bytes(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)), "big")


def _thumbprint(members: Mapping[str, str]) -> str:
    canonical = json.dumps(members, separators=(",", ":"), sort_keys=True)
    return base64.urlsafe_b64encode(hashlib.sha256(canonical.encode()).digest()).rstrip(b"=").decode()


def _require(held: bool, fault: str) -> None:
    if not held:
        raise KeyUnacceptable(fault)
