"""Access tokens: what is issued, and every spelling and header that a verifier must refuse."""

from __future__ import annotations

import hashlib
import hmac
import json
import socket
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from auth.compact import prebuilt
from auth.errors import KeysInvalid, Reason, TokenInvalid
from auth.scopes import Scope
from auth.tokens import Issuer
from tests.forgery import (
    CLAIMS,
    HEADER,
    KEY,
    NOW,
    RETIRING_KEY,
    FixedKeys,
    assembled,
    decoded,
    encoded,
    forged,
    reason_of,
    verifier,
    with_header,
)


def test_an_issued_token_is_accepted_and_says_what_was_put_in():
    issuer = Issuer(FixedKeys(KEY), issuer="sluice", audience="sluice", seconds=900, clock=lambda: NOW + 0.9)

    token, seconds = issuer.issue("cli_1", {Scope.JOBS, Scope.PREDICT})
    claims = verifier().verify(token)

    assert seconds == 900
    assert (claims.client_id, claims.scopes) == ("cli_1", {Scope.PREDICT, Scope.JOBS})
    assert (claims.issued_at, claims.expires_at) == (NOW, NOW + 900)


def test_an_issued_token_has_the_shape_of_rfc_9068():
    issuer = Issuer(FixedKeys(KEY), issuer="https://a.example", audience="b", seconds=60)
    token, _ = issuer.issue("cli_1", {Scope.JOBS, Scope.PREDICT}, issued_at=NOW)

    header, payload, _ = (json.loads(part) if part[:1] == b"{" else part for part in map(decoded, token.split(".")))

    assert header == {"typ": "at+jwt", "alg": "ES256", "kid": KEY.public.kid}
    jti = payload.pop("jti")
    assert len(jti) >= 22
    assert payload == {
        "iss": "https://a.example", "aud": "b", "sub": "cli_1", "client_id": "cli_1", "scope": "predict jobs",
        "iat": NOW, "nbf": NOW, "exp": NOW + 60,
    }  # fmt: skip


def test_token_ids_do_not_repeat():
    issuer = Issuer(FixedKeys(KEY), issuer="sluice", audience="sluice", seconds=900)
    tokens = [issuer.issue("cli_1", {Scope.PREDICT})[0] for _ in range(2000)]
    assert len({json.loads(decoded(token.split(".")[1]))["jti"] for token in tokens}) == 2000


@pytest.mark.parametrize(
    "token",
    [
        forged(),
        forged(header={"typ": "AT+JWT"}),
        forged(header={"typ": "application/at+jwt"}),
        forged(claims={"aud": ["other", "sluice"]}),
        forged(claims={"nbf": ...}),
        forged(claims={"scope": "jobs predict jobs"}),
        forged(claims={"unknown": {"to": "us"}}),
        forged(claims={"iat": NOW + 60, "nbf": NOW + 30, "exp": NOW + 900}),
    ],
)
def test_a_token_within_the_rules_is_accepted(token: str):
    assert verifier().verify(token).client_id == "cli_1"


def test_a_retiring_key_still_verifies_and_a_removed_one_does_not():
    token, _ = Issuer(FixedKeys(RETIRING_KEY), issuer="sluice", audience="sluice", seconds=900).issue(
        "cli_1", {Scope.PREDICT}, issued_at=NOW
    )
    assert verifier().verify(token).client_id == "cli_1"
    with pytest.raises(TokenInvalid) as refused:
        verifier(NOW, KEY.public).verify(token)
    assert refused.value.reason is Reason.KEY_UNKNOWN


def respelled(token: str, segment: int, change: Callable[[str], str]) -> str:
    segments = token.split(".")
    segments[segment] = change(segments[segment])
    return ".".join(segments)


def last_bits_changed(segment: str) -> str:
    """The same bytes to a lenient decoder: the unused bits of the last character are set."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return segment[:-1] + alphabet[alphabet.index(segment[-1]) | 1]


SPELLINGS = {
    "an empty text": "",
    "one segment": forged().split(".")[0],
    "two segments": forged().rpartition(".")[0],
    "four segments": forged() + ".abc",
    "five segments, as a JWE has": "a.b.c.d.e",
    "an empty signature": forged().rpartition(".")[0] + ".",
    "an empty header": "." + forged().partition(".")[2],
    "an empty payload": forged().split(".")[0] + ".." + forged().split(".")[2],
    "the JSON serialisation": json.dumps({"payload": "e30", "protected": "e30", "signature": "e30"}),
    "a leading space": " " + forged(),
    "a trailing space": forged() + " ",
    "a tab": forged() + "\t",
    "a newline at the end": forged() + "\n",
    "something beyond ASCII": forged() + "ä",
    "percent-encoding": forged().replace(".", "%2E"),
    **{
        f"{what} in segment {segment}": respelled(forged(), segment, change)
        for segment in range(3)
        for what, change in {
            "padding": lambda text: text + "=",
            "double padding": lambda text: text + "==",
            "a plus": lambda text: text[:4] + "+" + text[5:],
            "a slash": lambda text: text[:4] + "/" + text[5:],
            "a space": lambda text: text[:4] + " " + text[4:],
            "a newline": lambda text: text[:4] + "\n" + text[4:],
            "a foreign character": lambda text: text[:4] + "!" + text[4:],
        }.items()
    },
    "unused bits set in the signature": respelled(forged(), 2, last_bits_changed),
}


@pytest.mark.parametrize("token", SPELLINGS.values(), ids=SPELLINGS.keys())
def test_another_spelling_of_a_token_is_refused(token: str):
    assert reason_of(token) is Reason.MALFORMED


def test_a_token_over_the_limit_is_refused_before_it_is_read():
    assert reason_of(forged(claims={"padding": "x" * 8192})) is Reason.TOO_LONG
    assert reason_of("{" * 65536) is Reason.TOO_LONG


@pytest.mark.parametrize("token", [None, b"bytes", 5, ["a.b.c"]])
def test_what_is_no_text_at_all_is_refused(token: object):
    assert reason_of(token) is Reason.MALFORMED


ATTACKER_JWK = {"kty": "EC", "crv": "P-256", "x": encoded(b"x" * 32), "y": encoded(b"y" * 32)}
HEADERS = {
    "alg none": {"alg": "none"},
    "alg nOnE": {"alg": "nOnE"},
    "alg empty": {"alg": ""},
    "alg missing": {"alg": ...},
    "alg as a list": {"alg": ["ES256"]},
    "alg as an object": {"alg": {"ES256": 1}},
    "alg as a number": {"alg": 256},
    "alg null": {"alg": None},
    "alg of another kind": {"alg": "RS256"},
    "alg of the same kind": {"alg": "ES384"},
    "alg in lower case": {"alg": "es256"},
    "kid missing": {"kid": ...},
    "kid as a path": {"kid": "../../dev/null"},
    "kid as an absolute path": {"kid": "/etc/passwd"},
    "kid as SQL": {"kid": "' OR 1=1--"},
    "kid with NUL": {"kid": "a\0b"},
    "kid empty": {"kid": ""},
    "kid long": {"kid": "k" * 65},
    "kid as a list": {"kid": [KEY.public.kid]},
    "kid as an object": {"kid": {}},
    "kid null": {"kid": None},
    "jku": {"jku": "http://127.0.0.1:1/jwks.json"},
    "x5u": {"x5u": "http://127.0.0.1:1/x.pem"},
    "jwk": {"jwk": ATTACKER_JWK},
    "x5c": {"x5c": ["MIIB"]},
    "crit of something unknown": {"crit": ["x"]},
    "crit empty": {"crit": []},
    "crit of a claim": {"crit": ["exp"]},
    "b64": {"b64": False},
    "typ of any JWT": {"typ": "JWT"},
    "typ missing": {"typ": ...},
    "typ of an ID token": {"typ": "id_token"},
    "typ as a list": {"typ": ["at+jwt"]},
    "cty of a nested token": {"cty": "JWT"},
    "zip": {"zip": "DEF"},
    "enc": {"enc": "A256GCM"},
}


@pytest.mark.parametrize("changes", HEADERS.values(), ids=HEADERS.keys())
def test_a_properly_signed_token_with_another_header_is_refused(changes: dict[str, Any]):
    assert reason_of(forged(header=changes)) is Reason.HEADER


def test_an_unknown_key_is_refused():
    assert reason_of(forged(header={"kid": "unknown"})) is Reason.KEY_UNKNOWN


RAW_HEADERS = {
    "alg twice": json.dumps(HEADER)[:-1] + ', "alg": "none"}',
    "kid twice": json.dumps(HEADER)[:-1] + ', "kid": "other"}',
    "deep": '{"typ": ' + "[" * 1000 + "]" * 1000 + "}",
    "only brackets": "[" * 1500,
    "an array": "[]",
    "a text": '"at+jwt"',
    "NaN": '{"alg": NaN}',
    "no JSON": "alg=ES256",
    "a byte order mark": "\ufeff" + json.dumps(HEADER),
}


@pytest.mark.parametrize("header", RAW_HEADERS.values(), ids=RAW_HEADERS.keys())
def test_a_header_that_is_not_strict_json_is_refused(header: str):
    assert reason_of(with_header(header)) is Reason.MALFORMED


@pytest.mark.parametrize("header", [b"\xff\xfe", b"\xed\xa0\x80", json.dumps(HEADER).encode("utf-16")])
def test_a_header_that_is_not_utf_8_is_refused(header: bytes):
    assert reason_of(assembled(header, json.dumps(CLAIMS).encode())) is Reason.MALFORMED


def test_a_header_over_the_limit_is_refused():
    assert reason_of(with_header(json.dumps(HEADER) + " " * 2048)) is Reason.HEADER


def test_a_token_that_names_a_key_server_does_not_make_us_ask_it():
    with socket.create_server(("127.0.0.1", 0)) as canary:
        canary.settimeout(0.05)
        address = f"http://127.0.0.1:{canary.getsockname()[1]}/"
        for member in ("jku", "x5u"):
            assert reason_of(forged(header={member: address})) is Reason.HEADER
        with pytest.raises(TimeoutError):
            canary.accept()


def test_our_public_key_in_any_spelling_is_no_secret_for_hs256():
    public = KEY.public.key
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    numbers = public.public_numbers()
    coordinates = numbers.x.to_bytes(32, "big") + numbers.y.to_bytes(32, "big")
    spellings = [
        pem, pem.strip(), json.dumps(KEY.public.jwk()).encode(), coordinates,
        public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH),
        b"", KEY.public.kid.encode(), b"secret",
    ]  # fmt: skip
    header = json.dumps({**HEADER, "alg": "HS256"}).encode()
    for secret in spellings:
        token = assembled(
            header,
            json.dumps(CLAIMS).encode(),
            lambda message, secret=secret: hmac.new(secret, message, hashlib.sha256).digest(),
        )
        assert reason_of(token) is Reason.HEADER


def test_an_rs256_token_under_the_id_of_our_key_is_refused():
    theirs = rsa.generate_private_key(65537, 2048)
    for algorithm in ("RS256", "ES256"):
        header = json.dumps({**HEADER, "alg": algorithm}).encode()
        token = assembled(
            header, json.dumps(CLAIMS).encode(), lambda message: theirs.sign(message, PKCS1v15(), hashes.SHA256())
        )
        assert reason_of(token) in {Reason.HEADER, Reason.SIGNATURE}


@given(st.text(max_size=200) | st.from_regex(r"[A-Za-z0-9_-]{1,40}(\.[A-Za-z0-9_-]{1,40}){2}", fullmatch=True))
def test_whatever_is_sent_the_answer_is_a_refusal(token: str):
    with pytest.raises(TokenInvalid):
        verifier().verify(token)


def test_a_library_without_the_cryptography_backend_is_refused():
    # A stand-in for what jwk.construct gives where python-jose came without its extra: a key of another class.
    with pytest.raises(KeysInvalid, match="python-jose"):
        prebuilt(b"x" * 32, "HS256")
