"""Clients that sign an assertion instead of sending a secret (RFC 7523), on two gateways with one database."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from auth import clients
from auth.errors import KeyUnacceptable
from auth.public_keys import read_key
from auth.scopes import Scope
from auth.token_tables import UsedAssertion
from model_store.database import transaction
from tests.forgery import assembled, encoded
from tests.oauth_kit import (
    ISSUER,
    TOKEN_ADDRESS,
    Signer,
    assertion_claims,
    assertion_form,
    elliptic,
    number,
    rivest,
)
from tests.quiet_gateway import QuietGateway, bearer, quiet_gateway

EC, RSA = elliptic(), rivest()
OTHERS = elliptic("others")


class Keyed:
    """A client with the two keys above, and another with a key of its own."""

    def __init__(self, gateway: QuietGateway, second: QuietGateway) -> None:
        self.gateway, self.second = gateway, second
        self.id, self.secret = gateway.client("keyed", [Scope.PREDICT, Scope.MODELS_READ])
        self.other_id, _ = gateway.client("other", [Scope.PREDICT])
        self.admin = gateway.headers("admin", [Scope.CLIENTS_ADMIN])
        self.put(self.id, EC.jwk, RSA.jwk).raise_for_status()
        self.put(self.other_id, OTHERS.jwk).raise_for_status()

    def put(self, client_id: str, *keys: dict[str, Any]) -> httpx.Response:
        return self.gateway.http.put(f"/admin/clients/{client_id}/keys", json={"keys": list(keys)}, headers=self.admin)

    def post(self, text: str, gateway: QuietGateway | None = None, **form: str) -> httpx.Response:
        fields = assertion_form(text, grant_type="client_credentials", **form)
        return (gateway or self.gateway).http.post("/oauth/token", data=fields)


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyed]:
    folder = tmp_path_factory.mktemp("gateways")
    with quiet_gateway(folder, issuer=ISSUER) as one, quiet_gateway(folder, issuer=ISSUER) as other:
        yield Keyed(one, other)


@pytest.fixture(autouse=True)
def forgiven(keyed: Keyed) -> None:
    """What a test before failed to do is not held against this one."""
    for gateway in (keyed.gateway, keyed.second):
        for name in (keyed.id, keyed.other_id, ""):
            gateway.parts.failures.forget("127.0.0.1", name)


def assert_refused(answer: httpx.Response, status: int = 401, error: str = "invalid_client") -> None:
    assert (answer.status_code, answer.json()["error"]) == (status, error), answer.text
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("signer", [EC, RSA], ids=["ES256", "RS256"])
@pytest.mark.parametrize("audience", [ISSUER, TOKEN_ADDRESS, ["https://other.example", ISSUER]], ids=str)
@pytest.mark.parametrize("kind", [..., "JWT", "client-authentication+jwt"], ids=str)
def test_a_signed_assertion_gives_a_token(keyed: Keyed, signer: Signer, audience: object, kind: object):
    text = signer.token(assertion_claims(keyed.id, aud=audience), {"typ": kind})
    answer = keyed.post(text, client_id=keyed.id)
    assert answer.status_code == 200, answer.text
    assert answer.json()["scope"] == "predict models:read"
    token = answer.json()["access_token"]
    assert keyed.gateway.http.get("/v1/models", headers=bearer(token)).status_code == 200


def test_without_a_name_the_only_key_is_meant(keyed: Keyed):
    text = OTHERS.token(assertion_claims(keyed.other_id), {"kid": ...})
    assert keyed.post(text).status_code == 200
    assert_refused(keyed.post(EC.token(assertion_claims(keyed.id), {"kid": ...})))


def test_an_assertion_is_good_once_at_whichever_gateway(keyed: Keyed):
    text = EC.token(assertion_claims(keyed.id))
    assert keyed.post(text).status_code == 200
    assert_refused(keyed.post(text))
    assert_refused(keyed.post(text, keyed.second))
    # The name counts, not the text: the same `jti` in another assertion is the same.
    again = EC.token(assertion_claims(keyed.id, jti="named-once"))
    renamed = RSA.token(assertion_claims(keyed.id, jti="named-once", exp=int(time.time()) + 200))
    assert keyed.post(again).status_code == 200
    assert_refused(keyed.post(renamed, keyed.second))
    # Another client's is its own.
    assert keyed.post(OTHERS.token(assertion_claims(keyed.other_id, jti="named-once"))).status_code == 200


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_of_many_that_show_one_assertion_at_once_one_gets_a_token(database_url: str, tmp_path: Path):
    with (
        quiet_gateway(tmp_path, issuer=ISSUER, database_url=database_url) as one,
        quiet_gateway(tmp_path, issuer=ISSUER, database_url=database_url) as other,
        ThreadPoolExecutor(6) as threads,
    ):
        keyed = Keyed(one, other)
        text = EC.token(assertion_claims(keyed.id))
        answers = list(threads.map(lambda turn: keyed.post(text, (one, other)[turn % 2]), range(6)))
        assert sorted(answer.status_code for answer in answers) == [200] + [401] * 5

        # And the same token is revoked at both at once, which neither may fail at.
        token = next(answer.json()["access_token"] for answer in answers if answer.status_code == 200)

        def revoke(turn: int) -> int:
            http = (one, other)[turn % 2].http
            return http.post("/oauth/revoke", data={"token": token}, auth=(keyed.id, keyed.secret)).status_code

        assert set(threads.map(revoke, range(6))) == {200}
        for gateway in (one, other):
            gateway.parts.snapshot.refresh()
            assert gateway.http.get("/v1/models", headers=bearer(token)).status_code == 401


def bad_claims(now: int) -> dict[str, dict[str, Any]]:
    """What is wrong at a moment: tests are collected long before they run."""
    return {
        "aud of somebody else": {"aud": "https://other.example"},
        "aud missing": {"aud": ...},
        "aud of the issuer in another spelling": {"aud": f"{ISSUER}/"},
        "aud of the access tokens": {"aud": "sluice"},
        "aud beside a number": {"aud": [ISSUER, 1]},
        "exp missing": {"exp": ...},
        "exp past": {"iat": now - 200, "exp": now - 100},
        "exp as text": {"exp": str(now + 60)},
        "exp as a fraction": {"exp": now + 60.0},
        "a life of more than five minutes": {"iat": now - 200, "exp": now + 101},
        "a life of more than five minutes from now": {"iat": ..., "exp": now + 900},
        "made in the future": {"iat": now + 900, "exp": now + 960},
        "iat as text": {"iat": str(now)},
        "not yet valid": {"nbf": now + 900},
        "iss of another client": {"iss": "cli_other"},
        "iss missing": {"iss": ...},
        "sub missing": {"sub": ...},
        "sub as a list": {"sub": ["cli_1"], "iss": ["cli_1"]},
        "sub of nobody": {"sub": "cli_nobody", "iss": "cli_nobody"},
        "sub of a person": {"sub": "usr_1", "iss": "usr_1"},
        "jti missing": {"jti": ...},
        "jti as a number": {"jti": 7},
        "jti empty": {"jti": ""},
        "jti too long": {"jti": "j" * 129},
    }


@pytest.mark.parametrize("wrong", bad_claims(0))
def test_an_assertion_with_a_wrong_claim_is_refused(keyed: Keyed, wrong: str):
    changes = bad_claims(int(time.time()))[wrong]
    assert_refused(keyed.post(EC.token(assertion_claims(keyed.id, **changes))))


BAD_HEADERS: dict[str, dict[str, Any]] = {
    "alg none": {"alg": "none"},
    "alg in another spelling": {"alg": "es256"},
    "alg missing": {"alg": ...},
    "the alg of another kind of key": {"alg": "RS256"},
    "a symmetric alg": {"alg": "HS256"},
    "kid of another key": {"kid": "rsa-1"},
    "kid unknown": {"kid": "unknown"},
    "kid as a list": {"kid": ["ec-1"]},
    "kid as a path": {"kid": "../../dev/null"},
    "a key in the header": {"jwk": OTHERS.jwk},
    "an address of keys": {"jku": "http://127.0.0.1:9/keys"},
    "an address of certificates": {"x5u": "http://127.0.0.1:9/keys"},
    "certificates": {"x5c": ["MII"]},
    "crit": {"crit": ["exp"]},
    "an access token's typ": {"typ": "at+jwt"},
    "typ as a number": {"typ": 1},
}


@pytest.mark.parametrize("changes", BAD_HEADERS.values(), ids=BAD_HEADERS)
def test_an_assertion_with_a_wrong_header_is_refused(keyed: Keyed, changes: dict[str, Any]):
    assert_refused(keyed.post(EC.token(assertion_claims(keyed.id), changes)))


def with_another_signature(keyed: Keyed) -> str:
    return EC.token(assertion_claims(keyed.id)).rpartition(".")[0] + "." + encoded(b"\0" * 64)


def unsigned(keyed: Keyed) -> str:
    header = json.dumps({"alg": "none"}).encode()
    return assembled(header, json.dumps(assertion_claims(keyed.id)).encode(), lambda _: b"").rstrip(".") + "."


TEXTS: dict[str, Callable[[Keyed], str]] = {
    "signed by another client's key": lambda keyed: OTHERS.token(assertion_claims(keyed.id)),
    "signed by another key under this name": lambda keyed: OTHERS.token(assertion_claims(keyed.id), {"kid": "ec-1"}),
    "a signature of zeros": with_another_signature,
    "no signature": unsigned,
    "nonsense": lambda _: "nonsense",
    "three dots": lambda _: "...",
    "deep": lambda keyed: EC.token({**assertion_claims(keyed.id), "deep": [[[[[[[[[[1]]]]]]]]]]}),
    "one of our access tokens": lambda keyed: keyed.gateway.token(keyed.id, keyed.secret),
    "padded": lambda keyed: EC.token(assertion_claims(keyed.id)) + "=",
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_a_text_that_the_client_did_not_sign_is_refused(keyed: Keyed, text: Callable[[Keyed], str]):
    assert_refused(keyed.post(text(keyed)))


def test_two_ways_of_authenticating_are_refused(keyed: Keyed):
    form = assertion_form(EC.token(assertion_claims(keyed.id)), grant_type="client_credentials")
    http = keyed.gateway.http
    assert_refused(http.post("/oauth/token", data=form, auth=(keyed.id, keyed.secret)), 400, "invalid_request")
    both = {**form, "client_id": keyed.id, "client_secret": keyed.secret}
    assert_refused(http.post("/oauth/token", data=both), 400, "invalid_request")
    other_type = {**form, "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:saml2-bearer"}
    assert_refused(http.post("/oauth/token", data=other_type), 400, "invalid_request")
    assert_refused(http.post("/oauth/token", data={**form, "client_id": keyed.other_id}))


def test_an_assertion_does_not_help_a_disabled_client(keyed: Keyed):
    client_id, _ = keyed.gateway.client("disabled")
    signer = elliptic()
    keyed.put(client_id, signer.jwk).raise_for_status()
    assert keyed.post(signer.token(assertion_claims(client_id))).status_code == 200
    with transaction(keyed.gateway.parts.sessions) as session:
        clients.set_disabled(session, client_id, True)
    assert_refused(keyed.post(signer.token(assertion_claims(client_id))))


def test_replaced_keys_are_good_no_longer(keyed: Keyed):
    client_id, _ = keyed.gateway.client("replacing")
    old, new = elliptic("old"), elliptic("new")
    keyed.put(client_id, old.jwk, new.jwk).raise_for_status()
    made = keyed.post(old.token(assertion_claims(client_id)))
    bearer = {"authorization": f"Bearer {made.json()['access_token']}"}
    assert keyed.gateway.http.get("/v1/jobs", headers=bearer).status_code == 200
    keyed.put(client_id, old.jwk, new.jwk).raise_for_status()
    assert keyed.gateway.http.get("/v1/jobs", headers=bearer).status_code == 200
    keyed.put(client_id, new.jwk).raise_for_status()
    # Whoever has the key may have made tokens with it: they end too.
    assert keyed.gateway.http.get("/v1/jobs", headers=bearer).status_code == 401
    assert_refused(keyed.post(old.token(assertion_claims(client_id))))
    assert keyed.post(new.token(assertion_claims(client_id))).status_code == 200
    shown = keyed.gateway.http.get(f"/admin/clients/{client_id}/keys", headers=keyed.admin).json()
    assert shown == {"keys": [{**new.jwk, "alg": "ES256", "use": "sig"}]}


def test_guessing_assertions_is_slowed_down_and_the_good_client_is_not(keyed: Keyed):
    client_id, _ = keyed.gateway.client("guessed")
    signer = elliptic()
    keyed.put(client_id, signer.jwk).raise_for_status()
    answers = [keyed.post(OTHERS.token(assertion_claims(client_id))) for _ in range(15)]
    assert {answer.status_code for answer in answers[:10]} == {401}
    assert {answer.status_code for answer in answers[11:]} == {429}
    assert int(answers[-1].headers["retry-after"]) > 0
    assert keyed.post(signer.token(assertion_claims(client_id))).status_code == 200


def p384() -> dict[str, Any]:
    return {"kty": "EC", "crv": "P-384", "x": number(1, 48), "y": number(2, 48)}


BAD_KEYS: dict[str, dict[str, Any]] = {
    "a private key": {**EC.jwk, "d": number(5, 32)},
    "a symmetric key": {"kty": "oct", "k": "c2VjcmV0"},
    "a weak RSA key": rivest(bits=1024).jwk,
    "an RSA key with a huge exponent": {**RSA.jwk, "e": number(2**64 + 1)},
    "a point that is not on the curve": {**EC.jwk, "x": number(1, 32), "y": number(1, 32)},
    "another curve": p384(),
    "an Edwards key": {"kty": "OKP", "crv": "Ed25519", "x": number(1, 32)},
    "a key to encrypt with": {**EC.jwk, "use": "enc"},
    "a key that only signs": {**EC.jwk, "key_ops": ["sign"]},
    "an alg of another kind": {**EC.jwk, "alg": "RS256"},
    "a symmetric alg": {**RSA.jwk, "alg": "HS256"},
    "an alg that nobody checks here": {**RSA.jwk, "alg": "PS256"},
    "a kid that is a number": {**EC.jwk, "kid": 1},
    "a kid with a newline": {**EC.jwk, "kid": "a\nb"},
    "padded numbers": {**EC.jwk, "x": EC.jwk["x"] + "="},
    "no members": {},
    "a modulus that is a list": {**RSA.jwk, "n": [1]},
}


@pytest.mark.parametrize("jwk", BAD_KEYS.values(), ids=BAD_KEYS)
def test_a_key_that_must_not_verify_anything_is_refused_and_nothing_changes(keyed: Keyed, jwk: dict[str, Any]):
    answer = keyed.put(keyed.id, EC.jwk | {"kid": "fine"}, jwk)
    assert (answer.status_code, answer.json()["code"]) == (422, "key_unacceptable"), answer.text
    assert answer.json()["detail"].startswith("keys.1: ")
    assert keyed.post(EC.token(assertion_claims(keyed.id))).status_code == 200


def test_two_keys_of_one_name_and_too_many_are_refused(keyed: Keyed):
    assert keyed.put(keyed.id, EC.jwk, {**OTHERS.jwk, "kid": EC.kid}).json()["code"] == "key_unacceptable"
    assert keyed.put(keyed.id, *[{**EC.jwk, "kid": str(n)} for n in range(17)]).status_code == 422
    assert keyed.put("cli_nobody", EC.jwk).status_code == 404
    mass = keyed.gateway.http.put(
        f"/admin/clients/{keyed.id}/keys", json={"keys": [], "scopes": ["clients:admin"]}, headers=keyed.admin
    )
    assert mass.status_code == 422


def test_a_key_without_a_name_is_known_by_its_thumbprint():
    # RFC 7638, section 3.1.
    modulus = (
        "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknj"
        "hMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQ"
        "vRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzK"
        "nqDKgw"
    )
    key = read_key({"kty": "RSA", "n": modulus, "e": "AQAB"}, ["RS256"])
    assert (key.kid, key.algorithm) == ("NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs", "RS256")
    with pytest.raises(KeyUnacceptable, match="none of: ES256"):
        read_key({"kty": "RSA", "n": modulus, "e": "AQAB"}, ["ES256"])


def test_used_assertions_are_forgotten_once_they_have_expired(keyed: Keyed):
    with transaction(keyed.gateway.parts.sessions) as session:
        session.add(UsedAssertion(hash=secrets.token_hex(32), expires_at=1))
    assert keyed.post(EC.token(assertion_claims(keyed.id))).status_code == 200
    with transaction(keyed.gateway.parts.sessions) as session:
        assert session.query(UsedAssertion).filter_by(expires_at=1).count() == 0
