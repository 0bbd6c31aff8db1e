"""Tokens of another issuer: a real one with a server of its own, whose keys change while it is used."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import ValidationError

from auth import remote_keys
from auth.errors import Reason, TokenInvalid
from auth.foreign_tokens import FederatedVerifier, ForeignIssuer
from auth.remote_keys import JwksUnavailable, RemoteKeys, fetch, read_set
from auth.scopes import Scope
from auth.settings import AuthSettings
from auth.tokens import Claims
from auth.trusted_issuers import TrustedIssuer
from tests.forgery import KEY, FixedKeys, forged
from tests.live_gateway import eventually
from tests.oauth_kit import OtherIssuer, Signer, elliptic, other_issuer, rivest
from tests.quiet_gateway import QuietGateway, bearer, quiet_gateway

KEYCLOAK = "https://id.example/realms/work"
RSA, EC, NEXT = rivest("rsa-2026"), elliptic("ec-2026"), elliptic("ec-2027")


def now() -> int:
    """Seconds since 1970, asked for at each use: tokens that were made while tests were collected may be old by now."""
    return int(time.time())


def trusted(server: OtherIssuer, **changes: object) -> TrustedIssuer:
    """Keycloak as it comes: `typ` says only JWT, roles of the realm are what may be done."""
    said = {
        "issuer": KEYCLOAK,
        "audience": "sluice",
        "jwks_url": server.jwks_url,
        "algorithms": ["RS256", "ES256"],
        "client_claim": "azp",
        "types": ["JWT"],
        "claims": {"typ": "Bearer"},
        "scope_claim": "realm_access.roles",
        "scopes": {"predictor": ["predict", "jobs"], "reader": ["models:read"]},
        **changes,
    }
    return TrustedIssuer.model_validate(said)


def claims(**changes: object) -> dict[str, Any]:
    """What Keycloak 26 says of a client's service account; a claim that is `...` is left out."""
    said = {
        "exp": now() + 300, "iat": now(), "jti": "trrtcc:1f8a5c0e", "iss": KEYCLOAK, "aud": ["sluice", "account"],
        "sub": "0f2f-sub-of-the-service-account", "typ": "Bearer", "azp": "reading-room", "acr": "1",
        "allowed-origins": ["/*"], "realm_access": {"roles": ["offline_access", "predictor", "reader"]},
        "resource_access": {"account": {"roles": ["manage-account", "view-profile"]}}, "scope": "profile email",
        "clientHost": "10.0.0.7", "email_verified": False, "preferred_username": "service-account-reading-room",
        **changes,
    }  # fmt: skip
    return {name: value for name, value in said.items() if value is not ...}


def token(signer: Signer = RSA, header: dict[str, Any] | None = None, **changes: object) -> str:
    return signer.token(claims(**changes), {"typ": "JWT", **(header or {})})


@pytest.fixture(scope="module")
def server() -> Iterator[OtherIssuer]:
    with other_issuer(RSA, EC) as found:
        yield found


def verifier(one: TrustedIssuer) -> FederatedVerifier:
    """A verifier of ours that trusts this issuer, whose keys it has fetched."""
    made = FederatedVerifier(FixedKeys(KEY), [one], issuer="sluice", audience="sluice", max_seconds=900)
    made.foreign[one.issuer].keys.refresh()
    return made


@pytest.fixture(scope="module")
def keycloak(server: OtherIssuer) -> FederatedVerifier:
    return verifier(trusted(server))


def reason_of(found: FederatedVerifier, text: str) -> Reason:
    with pytest.raises(TokenInvalid) as refused:
        found.verify(text)
    return refused.value.reason


@pytest.mark.parametrize("signer", [RSA, EC], ids=["RS256", "ES256"])
def test_a_token_of_keycloak_is_read(keycloak: FederatedVerifier, signer: Signer):
    issued = now()
    found = keycloak.verify(token(signer, iat=issued, exp=issued + 300))
    assert found == Claims(
        "reading-room",
        frozenset({Scope.PREDICT, Scope.JOBS, Scope.MODELS_READ}),
        "trrtcc:1f8a5c0e",
        issued,
        issued + 300,
        signer.kid,
        issuer=KEYCLOAK,
    )
    assert keycloak.current(found)
    assert keycloak.trusts(found)


def test_our_own_tokens_are_verified_as_ever(keycloak: FederatedVerifier):
    own = KEY.public.kid
    times = {"iat": now(), "nbf": now(), "exp": now() + 600}
    found = keycloak.verify(forged(claims=times))
    assert (found.client_id, found.issuer, found.key_id) == ("cli_1", "", own)
    assert reason_of(keycloak, RSA.token({**claims(), "iss": "sluice"}, {"typ": "at+jwt"})) is Reason.KEY_UNKNOWN
    assert reason_of(keycloak, forged(claims={**times, "iss": KEYCLOAK})) is Reason.HEADER
    ours_under_their_type = forged({"typ": "JWT"}, {**times, "iss": KEYCLOAK})
    assert reason_of(keycloak, ours_under_their_type) is Reason.KEY_UNKNOWN


REFUSED: dict[str, tuple[Callable[[], str], Reason]] = {
    "of an issuer nobody trusts": (lambda: token(iss="https://evil.example"), Reason.HEADER),
    "of nearly the issuer": (lambda: token(iss=f"{KEYCLOAK}/"), Reason.HEADER),
    "for somebody else": (lambda: token(aud=["account"]), Reason.AUDIENCE),
    "for nobody": (lambda: token(aud=...), Reason.AUDIENCE),
    "an identity token": (lambda: token(typ="ID"), Reason.CLAIMS),
    "a refresh token": (lambda: token(typ=...), Reason.CLAIMS),
    "without a client": (lambda: token(azp=...), Reason.CLAIMS),
    "with a client that is a list": (lambda: token(azp=["reading-room"]), Reason.CLAIMS),
    "expired": (lambda: token(iat=now() - 400, exp=now() - 100), Reason.EXPIRED),
    "without an end": (lambda: token(exp=...), Reason.CLAIMS),
    "without a beginning": (lambda: token(iat=...), Reason.CLAIMS),
    "of the future": (lambda: token(iat=now() + 500, exp=now() + 600), Reason.NOT_YET_VALID),
    "that lives too long": (lambda: token(exp=now() + 7200), Reason.LIFETIME),
    "with another typ": (lambda: token(header={"typ": "at+jwt"}), Reason.HEADER),
    "without typ": (lambda: token(header={"typ": ...}), Reason.HEADER),
    "of an unknown key": (lambda: token(NEXT), Reason.KEY_UNKNOWN),
    "without a key's name": (lambda: token(header={"kid": ...}), Reason.CLAIMS),
    "of another key under this name": (lambda: token(NEXT, {"kid": EC.kid}), Reason.SIGNATURE),
    "with another alg of the same key": (lambda: token(header={"alg": "RS512"}), Reason.HEADER),
    "with the alg of the other key": (lambda: token(header={"alg": "ES256"}), Reason.HEADER),
    "with alg none": (lambda: token(header={"alg": "none"}), Reason.HEADER),
    "with an address of keys": (lambda: token(header={"jku": "http://127.0.0.1:9/"}), Reason.HEADER),
    "with an address of certificates": (lambda: token(header={"x5u": "http://127.0.0.1:9/"}), Reason.HEADER),
    "with a key of its own": (lambda: token(NEXT, {"jwk": NEXT.jwk}), Reason.HEADER),
    "with crit": (lambda: token(header={"crit": ["exp"]}), Reason.HEADER),
    "padded": (lambda: token() + "=", Reason.MALFORMED),
    "too deep": (lambda: token(deep=json.loads("[" * 80 + "]" * 80)), Reason.HEADER),
    "bound to a key of another kind": (lambda: token(cnf={"jkt": "x"}), Reason.CLAIMS),
}


@pytest.mark.parametrize(("text", "reason"), REFUSED.values(), ids=REFUSED)
def test_a_token_is_refused(keycloak: FederatedVerifier, server: OtherIssuer, text: Callable[[], str], reason: Reason):
    asked = len(server.asked)
    found = reason_of(keycloak, text())
    # Read by our own verifier where the issuer is unknown, and there by whatever comes first.
    assert found is reason
    assert len(server.asked) == asked, "nothing is fetched while a request waits"


def test_thumbprints_of_certificates_are_passed_over(keycloak: FederatedVerifier):
    assert keycloak.verify(token(header={"x5t": "abc"})).client_id == "reading-room"


def test_a_token_need_not_have_a_name(keycloak: FederatedVerifier):
    assert keycloak.verify(token(jti=...)).token_id == ""


@pytest.mark.parametrize(
    ("changes", "said", "scopes"),
    [
        ({"scope_claim": "scope", "scopes": None}, {"scope": "openid predict models:read"}, "predict models:read"),
        ({"scope_claim": "scope", "scopes": None}, {"scope": ["jobs", "else"]}, "jobs"),
        ({"scope_claim": "scope", "scopes": None}, {"scope": 7}, ""),
        ({"scope_claim": "https://a.example/do", "scopes": None}, {"https://a.example/do": ["jobs"]}, "jobs"),
        ({"scope_claim": "realm_access.roles.x"}, {}, ""),
        ({"scope_claim": "nowhere"}, {}, ""),
        ({}, {"realm_access": {"roles": ["predict", "clients:admin"]}}, ""),
        ({"scope_claim": None, "scopes": None}, {}, " ".join(Scope)),
    ],
)
def test_scopes_are_read_from_where_the_issuer_has_them(
    server: OtherIssuer, changes: dict[str, Any], said: dict[str, Any], scopes: str
):
    found = verifier(trusted(server, **changes)).verify(token(**said))
    assert " ".join(scope for scope in Scope if scope in found.scopes) == scopes


@pytest.fixture
def changing() -> Iterator[tuple[OtherIssuer, RemoteKeys]]:
    """An issuer of its own for the test, and its keys as they are fetched again and again."""
    with other_issuer(EC) as server:
        keys = RemoteKeys(server.jwks_url, ["ES256"], keep_seconds=60, pause_seconds=0.05, refresh_seconds=0.1)
        keys.start()
        yield server, keys
        keys.close()


def test_a_new_key_is_found_and_a_withdrawn_one_forgotten(changing: tuple[OtherIssuer, RemoteKeys]):
    server, keys = changing
    issuer = ForeignIssuer(trusted(server), keys)
    held = issuer.verify(token(EC))
    with pytest.raises(TokenInvalid):
        issuer.verify(token(NEXT))

    server.keys = [NEXT.jwk]

    eventually(lambda: keys.key(NEXT.kid) is not None)
    assert issuer.verify(token(NEXT)).client_id == "reading-room"
    federated = FederatedVerifier(FixedKeys(KEY), [], issuer="sluice", audience="sluice", max_seconds=900)
    federated.foreign = {KEYCLOAK: issuer}
    assert not federated.current(held), "also for a token that was verified before"
    with pytest.raises(TokenInvalid):
        issuer.verify(token(EC))


@pytest.mark.parametrize(
    "broken",
    [
        {"status": 500},
        {"status": 302, "headers": {"location": "/elsewhere"}},
        {"body": b"no JSON"},
        {"body": b'{"keys": []}'},
        {"body": b'{"keys": 1}'},
        {"body": b'{"keys": [1, {"kty": "oct", "k": "AA"}]}'},
        {"body": b'{"keys": [], "keys": []}'},
        {"body": json.dumps({"keys": [EC.jwk]}).encode() + b" " * 300_000},
        {"headers": {"content-encoding": "gzip"}},
    ],
    ids=["500", "redirect", "text", "no keys", "a number", "unusable", "twice", "too long", "compressed"],
)
def test_keys_stay_while_the_issuer_answers_nonsense(broken: dict[str, Any]):
    with other_issuer(EC) as server:
        keys = RemoteKeys(server.jwks_url, ["ES256"], keep_seconds=60)
        keys.refresh()
        for name, value in broken.items():
            setattr(server, name, value)
        with pytest.raises(JwksUnavailable):
            keys.refresh()
        assert keys.key(EC.kid) is not None
        assert server.asked == ["/keys", "/keys"], "no redirect is followed"


def test_keys_that_could_not_be_fetched_again_are_not_good_for_ever():
    with other_issuer(EC) as server:
        keys = RemoteKeys(server.jwks_url, ["ES256"], keep_seconds=1.0)
        keys.refresh()
        assert keys.key(EC.kid) is not None
    eventually(lambda: keys.key(EC.kid) is None)
    with pytest.raises(JwksUnavailable):
        keys.refresh()


def test_made_up_names_of_keys_make_nobody_ask_more_often_than_the_pause():
    with other_issuer(EC) as server:
        keys = RemoteKeys(server.jwks_url, ["ES256"], keep_seconds=60, pause_seconds=30, refresh_seconds=60)
        keys.start()
        # Asked again and again, each time after the thread may have answered.
        for number in range(50):
            assert keys.key(f"made-up-{number}") is None
            time.sleep(0.01)
        keys.close()
        assert len(server.asked) == 1


def test_two_keys_of_one_name_are_both_unknown():
    body = json.dumps({"keys": [EC.jwk, {**NEXT.jwk, "kid": EC.kid}, RSA.jwk]}).encode()
    assert set(read_set(body, ["ES256", "RS256"])) == {RSA.kid}
    assert remote_keys.MOST_KEYS < 1000
    with pytest.raises(JwksUnavailable):
        read_set(json.dumps({"keys": [RSA.jwk] * 1000}).encode(), ["RS256"])


def test_what_does_not_answer_is_unavailable():
    with pytest.raises(JwksUnavailable):
        fetch("http://127.0.0.1:1/keys")


@pytest.mark.parametrize(
    "changes",
    [
        {"jwks_url": "http://id.example/keys"},
        {"jwks_url": "ftp://127.0.0.1/keys"},
        {"jwks_url": "file:///etc/passwd"},
        {"jwks_url": "https://user:password@id.example/keys"},
        {"jwks_url": "https:///keys"},
        {"algorithms": ["HS256"]},
        {"algorithms": ["none"]},
        {"algorithms": ["PS256"]},
        {"algorithms": []},
        {"scopes": {"reader": ["root"]}},
        {"types": []},
        {"max_seconds": 10**6},
        {"verify": False},
    ],
    ids=str,
)
def test_a_setting_that_would_open_a_door_is_refused(server: OtherIssuer, changes: dict[str, Any]):
    with pytest.raises(ValidationError):
        trusted(server, **changes)


def test_the_setting_is_json_from_the_environment_or_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    said = json.dumps([trusted(OtherIssuer("https://id.example")).model_dump(mode="json")])
    secrets = {"client_secret_key": "k" * 32, "master_key": "m" * 43}
    monkeypatch.setenv("SLUICE_TRUSTED_ISSUERS", said)
    assert AuthSettings(**secrets).trusted_issuers[0].issuer == KEYCLOAK
    monkeypatch.delenv("SLUICE_TRUSTED_ISSUERS")
    (tmp_path / "issuers.json").write_text(said)
    monkeypatch.setenv("SLUICE_TRUSTED_ISSUERS_FILE", str(tmp_path / "issuers.json"))
    assert AuthSettings(**secrets).trusted_issuers[0].issuer == KEYCLOAK
    with pytest.raises(ValidationError, match="same name"):
        AuthSettings(issuer=KEYCLOAK, **secrets)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, server: OtherIssuer) -> Iterator[QuietGateway]:
    folder = tmp_path_factory.mktemp("gateway")
    with quiet_gateway(folder, trusted_issuers=(trusted(server),)) as found:
        found.parts.verifier.start()
        yield found
        found.parts.verifier.close()


def test_a_foreign_token_is_the_client_that_it_is_mapped_to_and_no_more(gateway: QuietGateway):
    admin = gateway.headers("admin", [Scope.CLIENTS_ADMIN])
    client_id, _ = gateway.client("reading-room", [Scope.MODELS_READ, Scope.METRICS_READ])
    other_id, _ = gateway.client("other", [Scope.MODELS_READ])
    headers = bearer(token())

    def get(path: str) -> httpx.Response:
        return gateway.http.get(path, headers=headers)

    def put(client_id: str, *subjects: str) -> httpx.Response:
        identities = [{"issuer": KEYCLOAK, "subject": subject} for subject in subjects]
        path = f"/admin/clients/{client_id}/identities"
        return gateway.http.put(path, json={"identities": identities}, headers=admin)

    unmapped = get("/v1/models")
    assert (unmapped.status_code, unmapped.headers["www-authenticate"]) == (
        401, 'Bearer realm="sluice", error="invalid_token"'
    )  # fmt: skip
    assert put(client_id, "reading-room", "reading-room-2").status_code == 200
    assert get("/v1/models").status_code == 200
    assert get("/metrics").json()["code"] == "insufficient_scope", "the client's, but not the token's"
    assert get("/v1/jobs").json()["code"] == "insufficient_scope", "the token's, but not the client's"

    taken = put(other_id, "reading-room")
    assert (taken.status_code, taken.json()["code"]) == (409, "identity_taken")
    shown = gateway.http.get(f"/admin/clients/{client_id}/identities", headers=admin).json()
    assert [one["subject"] for one in shown["identities"]] == ["reading-room", "reading-room-2"]
    said = gateway.http.post("/oauth/introspect", data={"token": token()}, headers=admin).json()
    assert (said["iss"], said["client_id"], said["sub"]) == (KEYCLOAK, client_id, "reading-room")
    assert said["scope"] == "models:read"

    assert put(client_id).status_code == 200
    assert get("/v1/models").status_code == 401, "remembered or not"
    assert put("cli_nobody", "x").status_code == 404
    assert put(other_id, "a b").status_code == 422


def test_a_foreign_token_that_names_one_of_our_ids_is_nobody(gateway: QuietGateway):
    client_id, _ = gateway.client("named", list(Scope))
    answer = gateway.http.get("/v1/models", headers=bearer(token(azp=client_id, sub=client_id)))
    assert answer.status_code == 401


def test_a_deleted_client_takes_its_identities_along(gateway: QuietGateway):
    admin = gateway.headers("admin-2", [Scope.CLIENTS_ADMIN])
    client_id, _ = gateway.client("leaving", [Scope.MODELS_READ])
    body = {"identities": [{"issuer": KEYCLOAK, "subject": "leaving"}]}
    gateway.http.put(f"/admin/clients/{client_id}/identities", json=body, headers=admin).raise_for_status()
    headers = bearer(token(azp="leaving"))
    assert gateway.http.get("/v1/models", headers=headers).status_code == 200
    gateway.http.delete(f"/admin/clients/{client_id}", headers=admin).raise_for_status()
    assert gateway.http.get("/v1/models", headers=headers).status_code == 401
