"""Access tokens: claims and signatures that a verifier must refuse, one case each."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from auth.errors import Reason, TokenInvalid
from tests.forgery import (
    CLAIMS,
    HEADER,
    KEY,
    NOW,
    OTHER_KEY,
    assembled,
    decoded,
    encoded,
    es256,
    forged,
    reason_of,
    verifier,
    with_payload,
)

BAD_CLAIMS: dict[str, tuple[dict[str, Any], Reason]] = {
    "expired": ({"iat": NOW - 900, "exp": NOW - 31}, Reason.EXPIRED),
    "expired at the end of the leeway": ({"iat": NOW - 900, "exp": NOW - 30}, Reason.EXPIRED),
    "exp missing": ({"exp": ...}, Reason.CLAIMS),
    "exp as text": ({"exp": str(NOW + 900)}, Reason.CLAIMS),
    "exp as a fraction": ({"exp": NOW + 900.0}, Reason.CLAIMS),
    "exp true": ({"exp": True}, Reason.CLAIMS),
    "exp null": ({"exp": None}, Reason.CLAIMS),
    "exp as a list": ({"exp": [NOW + 900]}, Reason.CLAIMS),
    "exp negative": ({"exp": -1}, Reason.EXPIRED),
    "exp far away": ({"exp": 2**63}, Reason.LIFETIME),
    "a longer life than we give": ({"exp": NOW + 901}, Reason.LIFETIME),
    "expired before it was issued": ({"iat": NOW, "exp": NOW - 1}, Reason.LIFETIME),
    "nbf in the future": ({"nbf": NOW + 31}, Reason.NOT_YET_VALID),
    "nbf as text": ({"nbf": "0"}, Reason.CLAIMS),
    "nbf null": ({"nbf": None}, Reason.CLAIMS),
    "iat in the future": ({"iat": NOW + 61}, Reason.NOT_YET_VALID),
    "iat missing": ({"iat": ...}, Reason.CLAIMS),
    "iat as a fraction": ({"iat": NOW + 0.5}, Reason.CLAIMS),
    "iat false": ({"iat": False}, Reason.CLAIMS),
    "aud missing": ({"aud": ...}, Reason.AUDIENCE),
    "aud null": ({"aud": None}, Reason.AUDIENCE),
    "aud of somebody else": ({"aud": "other"}, Reason.AUDIENCE),
    "aud of others": ({"aud": ["other", "another"]}, Reason.AUDIENCE),
    "aud of nobody": ({"aud": []}, Reason.AUDIENCE),
    "aud as a number": ({"aud": [1]}, Reason.AUDIENCE),
    "aud ours beside a number": ({"aud": ["sluice", 1]}, Reason.AUDIENCE),
    "aud as an object": ({"aud": {"sluice": 1}}, Reason.AUDIENCE),
    "aud with a space": ({"aud": "sluice "}, Reason.AUDIENCE),
    "aud in capitals": ({"aud": "Sluice"}, Reason.AUDIENCE),
    "aud in a list within a list": ({"aud": [["sluice"]]}, Reason.AUDIENCE),
    "iss missing": ({"iss": ...}, Reason.ISSUER),
    "iss of somebody else": ({"iss": "staging"}, Reason.ISSUER),
    "iss with a slash": ({"iss": "sluice/"}, Reason.ISSUER),
    "iss as a list": ({"iss": ["sluice"]}, Reason.ISSUER),
    "iss a part of ours": ({"iss": "slui"}, Reason.ISSUER),
    "sub missing": ({"sub": ...}, Reason.CLAIMS),
    "sub as a number": ({"sub": 1}, Reason.CLAIMS),
    "sub empty": ({"sub": "", "client_id": ""}, Reason.CLAIMS),
    "sub of another client": ({"sub": "cli_2"}, Reason.CLAIMS),
    "sub too long": ({"sub": "c" * 129, "client_id": "c" * 129}, Reason.CLAIMS),
    "client_id missing": ({"client_id": ...}, Reason.CLAIMS),
    "client_id with a newline": ({"sub": "cli_1\n", "client_id": "cli_1\n"}, Reason.CLAIMS),
    "client_id with a lone surrogate": ({"sub": "\ud800", "client_id": "\ud800"}, Reason.CLAIMS),
    "jti missing": ({"jti": ...}, Reason.CLAIMS),
    "jti as a number": ({"jti": 7}, Reason.CLAIMS),
    "jti empty": ({"jti": ""}, Reason.CLAIMS),
    "scope missing": ({"scope": ...}, Reason.CLAIMS),
    "scope as a list": ({"scope": ["predict"]}, Reason.CLAIMS),
    "scope with an unknown one": ({"scope": "predict root"}, Reason.CLAIMS),
    "scope with a tab": ({"scope": "predict\tjobs"}, Reason.CLAIMS),
    "scope with a quote": ({"scope": 'predict" jobs'}, Reason.CLAIMS),
    "scope empty": ({"scope": ""}, Reason.CLAIMS),
    "scope in capitals": ({"scope": "PREDICT"}, Reason.CLAIMS),
}


@pytest.mark.parametrize(("changes", "reason"), BAD_CLAIMS.values(), ids=BAD_CLAIMS.keys())
def test_a_properly_signed_token_with_other_claims_is_refused(changes: dict[str, Any], reason: Reason):
    assert reason_of(forged(claims=changes)) is reason


RAW_PAYLOADS = {
    "sub twice": json.dumps(CLAIMS)[:-1] + ', "sub": "admin"}',
    "scope twice": json.dumps(CLAIMS)[:-1] + ', "scope": "clients:admin"}',
    "exp twice": json.dumps(CLAIMS)[:-1] + f', "exp": {NOW + 10**9}}}',
    "a member twice further in": json.dumps(CLAIMS)[:-1] + ', "x": {"a": 1, "a": 2}}',
    "an array": "[1]",
    "a number": "7",
    "null": "null",
    "no JSON": "sub=cli_1",
    "deep": '{"a":' * 900 + "1" + "}" * 900,
    "deep arrays": "[" * 5000,
    "exp NaN": json.dumps({**CLAIMS, "exp": float("nan")}),
    "exp infinite": json.dumps({**CLAIMS, "exp": float("inf")}),
    "a number of 4400 digits": json.dumps(CLAIMS)[:-1] + ', "x": ' + "9" * 4400 + "}",
}


@pytest.mark.parametrize("payload", RAW_PAYLOADS.values(), ids=RAW_PAYLOADS.keys())
def test_a_properly_signed_payload_that_is_not_strict_json_is_refused(payload: str):
    assert reason_of(with_payload(payload)) is Reason.MALFORMED


def test_an_exponent_in_exp_is_refused():
    assert reason_of(with_payload(json.dumps(CLAIMS).replace(f'"exp": {NOW + 900}', '"exp": 1e400'))) is Reason.CLAIMS
    assert reason_of(with_payload(json.dumps(CLAIMS).replace(f'"exp": {NOW + 900}', '"exp": 18e8'))) is Reason.CLAIMS


def test_claims_verified_earlier_are_current_until_the_end_of_the_leeway():
    claims = verifier().verify(forged())
    assert verifier(NOW + 929).current(claims)
    assert not verifier(NOW + 930).current(claims)


@given(
    st.dictionaries(st.sampled_from(sorted(CLAIMS)), st.none() | st.booleans() | st.floats() | st.text(), min_size=1)
)
def test_no_claim_of_another_type_leads_to_anything_but_claims_or_a_refusal(changes: dict[str, Any]):
    token = forged(claims=changes)
    try:
        claims = verifier().verify(token)
    except TokenInvalid:
        return
    assert claims.client_id == json.loads(decoded(token.split(".")[1]))["client_id"]


def test_a_signature_with_any_bit_flipped_is_refused():
    head, _, tail = forged().rpartition(".")
    signature = decoded(tail)
    for bit in range(len(signature) * 8):
        changed = bytearray(signature)
        changed[bit // 8] ^= 1 << bit % 8
        assert reason_of(f"{head}.{encoded(bytes(changed))}") is Reason.SIGNATURE


def test_the_other_form_of_an_ecdsa_signature_is_refused():
    token = assembled(
        json.dumps(HEADER).encode(),
        json.dumps(CLAIMS).encode(),
        lambda message: KEY.key.sign(message, ec.ECDSA(hashes.SHA256())),
    )
    assert reason_of(token) is Reason.SIGNATURE


ORDER_OF_P256 = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


@pytest.mark.parametrize("r", [0, 1, ORDER_OF_P256, ORDER_OF_P256 - 1])
@pytest.mark.parametrize("s", [0, 1, ORDER_OF_P256, ORDER_OF_P256 - 1])
def test_a_signature_made_of_edge_values_is_refused(r: int, s: int):
    signature = r.to_bytes(32, "big") + s.to_bytes(32, "big")
    assert reason_of(f"{forged().rpartition('.')[0]}.{encoded(signature)}") is Reason.SIGNATURE


def test_a_signature_of_another_key_token_or_length_is_refused():
    head, _, tail = forged().rpartition(".")
    swapped = forged(claims={"scope": "clients:admin"}).split(".")
    wrong = [
        assembled(json.dumps(HEADER).encode(), json.dumps(CLAIMS).encode(), lambda message: es256(message, OTHER_KEY)),
        ".".join([swapped[0], swapped[1], tail]),
        f"{head}.{encoded(decoded(tail)[:-1])}",
        f"{head}.{encoded(decoded(tail) + bytes(1))}",
        f"{head}.{encoded(bytes(1))}",
    ]
    for token in wrong:
        assert reason_of(token) is Reason.SIGNATURE
