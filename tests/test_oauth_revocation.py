"""Revoking and introspecting tokens, on two gateways that share one database and nothing else."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from sqlalchemy import func, select

from auth import clients, revocations
from auth.audit_tables import AuditEntry
from auth.scopes import Scope
from auth.token_tables import RevokedToken
from model_store.database import clock_ms, transaction
from model_store.generation import read_generation
from tests.forgery import decoded
from tests.live_gateway import eventually
from tests.oauth_kit import assertion_claims, assertion_form, elliptic
from tests.quiet_gateway import QuietGateway, bearer, quiet_gateway

Both = tuple[QuietGateway, QuietGateway]
READING = [Scope.MODELS_READ, Scope.PREDICT]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    folder = tmp_path_factory.mktemp("gateways")
    issuer = "https://sluice.example"
    with quiet_gateway(folder, issuer=issuer) as one, quiet_gateway(folder, issuer=issuer) as other:
        yield one, other


@pytest.fixture
def gateway(both: Both) -> QuietGateway:
    return both[0]


@pytest.fixture
def owner(gateway: QuietGateway) -> tuple[str, str]:
    return gateway.client(f"c-{secrets.token_hex(4)}", READING)


def works(gateway: QuietGateway, token: str) -> bool:
    answer = gateway.http.get("/v1/models", headers=bearer(token))
    assert answer.status_code in (200, 401)
    return answer.status_code == 200


def revoke(gateway: QuietGateway, token: str, **options: object) -> httpx.Response:
    return gateway.http.post("/oauth/revoke", data={"token": token}, **options)


def introspect(gateway: QuietGateway, token: str, **options: object) -> dict[str, object]:
    answer = gateway.http.post("/oauth/introspect", data={"token": token}, **options)
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    return dict(answer.json())


def kept(gateway: QuietGateway) -> tuple[int, int]:
    """The generation, and how many entries the audit log has of revocations."""
    with transaction(gateway.parts.sessions, write=False) as session:
        entries = select(func.count()).select_from(AuditEntry).where(AuditEntry.act == "revoke_token")
        return read_generation(session), int(session.scalar(entries) or 0)


def test_a_revoked_token_is_refused_by_every_gateway_and_no_other_token_is(both: Both, owner: tuple[str, str]):
    one, other = both
    token, kept = one.token(*owner), one.token(*owner)
    eventually(lambda: works(other, token))

    answer = revoke(one, token, auth=owner)

    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["cache-control"] == "no-store"
    assert not works(one, token), "at once where it was revoked"
    eventually(lambda: not works(other, token))
    assert works(one, kept)
    assert works(other, kept)


def test_whoever_revokes_what_is_no_token_or_the_same_again_costs_nobody_anything(
    gateway: QuietGateway, owner: tuple[str, str]
):
    token = gateway.token(*owner)
    assert revoke(gateway, token, auth=owner).status_code == 200
    before = kept(gateway)

    for _ in range(3):
        stranger = gateway.http.post("/oauth/revoke", data={"client_id": "sluice-console", "token": "none"})
        assert stranger.status_code == 200
    assert kept(gateway) == before, "no entry for each request of a stranger"

    assert revoke(gateway, token, auth=owner).status_code == 200
    assert kept(gateway)[0] == before[0], "gateways have nothing to read again"


def test_a_revoked_token_in_another_spelling_stays_refused(gateway: QuietGateway, owner: tuple[str, str]):
    token = gateway.token(*owner)
    head, payload, signature = token.split(".")
    spellings = [
        token,
        f"{token}=",
        f"{token}==",
        f"{head}=.{payload}.{signature}",
        f"{token[:-1]}{chr(ord(token[-1]) ^ 1)}",
    ]
    assert revoke(gateway, token, auth=owner).status_code == 200
    for spelling in spellings:
        assert not works(gateway, spelling)
        assert revoke(gateway, spelling, auth=owner).status_code == 200


def test_who_may_not_revoke_a_token_is_answered_alike_and_nothing_happens(
    gateway: QuietGateway, owner: tuple[str, str]
):
    token = gateway.token(*owner)
    stranger = gateway.client(f"s-{secrets.token_hex(4)}", list(Scope))
    answers = [
        revoke(gateway, token, auth=stranger),
        revoke(gateway, "nonsense", auth=stranger),
        revoke(gateway, f"slr_{'x' * 43}", auth=stranger),
        # The console may revoke what it holds for people, and no client's token.
        gateway.http.post("/oauth/revoke", data={"token": token, "client_id": "sluice-console"}),
    ]
    assert {(answer.status_code, answer.content) for answer in answers} == {(200, b"")}
    assert works(gateway, token)


def test_revoking_needs_a_client_that_authenticates(gateway: QuietGateway, owner: tuple[str, str]):
    token = gateway.token(*owner)
    assert revoke(gateway, token).status_code == 401
    assert revoke(gateway, token, auth=(owner[0], "sls_wrong")).json()["error"] == "invalid_client"
    assert revoke(gateway, token, headers=bearer(token)).status_code == 401
    assert gateway.http.get("/oauth/revoke", auth=owner).status_code == 405
    assert gateway.http.post("/oauth/revoke", data={}, auth=owner).json()["error"] == "invalid_request"
    assert works(gateway, token)


def test_a_client_with_a_key_revokes_by_assertion(gateway: QuietGateway, owner: tuple[str, str]):
    signer = elliptic()
    admin = gateway.headers(f"a-{secrets.token_hex(4)}", [Scope.CLIENTS_ADMIN])
    put = gateway.http.put(f"/admin/clients/{owner[0]}/keys", json={"keys": [signer.jwk]}, headers=admin)
    assert put.status_code == 200, put.text
    token = gateway.token(*owner)
    form = assertion_form(signer.token(assertion_claims(owner[0])), token=token)
    assert gateway.http.post("/oauth/revoke", data=form).status_code == 200
    assert not works(gateway, token)


def test_a_client_that_revokes_without_end_loses_all_its_tokens_instead(
    gateway: QuietGateway, owner: tuple[str, str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(revocations, "MOST_OF_ONE_IDENTITY", 2)
    tokens = [gateway.token(*owner) for _ in range(4)]
    for token in tokens[:2]:
        revoke(gateway, token, auth=owner)
    assert works(gateway, tokens[3])

    revoke(gateway, tokens[2], auth=owner)

    assert [works(gateway, token) for token in tokens] == [False] * 4
    with transaction(gateway.parts.sessions, write=False) as session:
        assert session.query(RevokedToken).filter_by(identity_id=owner[0]).count() == 0
    assert works(gateway, gateway.token(*owner))


def test_revocations_of_expired_tokens_are_forgotten_here_at_once_and_in_sql_when_no_job_waits_any_more(
    gateway: QuietGateway, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(revocations, "MOST_OF_ONE_IDENTITY", 1)
    with transaction(gateway.parts.sessions) as session:
        now = clock_ms(session) // 1000
        for token_id, expires_at in {"long ago": now - 100_000, "expired": now - 1000, "good": now + 1000}.items():
            assert revocations.revoke(session, token_id, "cli_1", expires_at), "what has expired does not count"
        assert revocations.revoke(session, "good", "cli_1", now + 1000), "once more is no second one"
        names = ("long ago", "expired", "good")
        assert [revocations.is_revoked(session, name) for name in names] == [False, True, True]
        assert revocations.load_revoked(session).intersection(names) == {"good"}


def test_a_client_learns_what_its_own_token_says(gateway: QuietGateway, owner: tuple[str, str]):
    token = gateway.token(*owner)
    claims = json.loads(decoded(token.split(".")[1]))
    assert introspect(gateway, token, auth=owner) == {
        "active": True, "scope": "predict models:read", "client_id": owner[0], "sub": owner[0],
        "token_type": "Bearer", "exp": claims["exp"], "iat": claims["iat"], "iss": "https://sluice.example",
        "aud": "sluice", "jti": claims["jti"],
    }  # fmt: skip


def test_a_token_that_would_be_refused_says_nothing(gateway: QuietGateway, owner: tuple[str, str]):
    stranger, disabled = (gateway.client(f"{name}-{secrets.token_hex(4)}", READING) for name in "sd")
    revoked, others, of_disabled = gateway.token(*owner), gateway.token(*stranger), gateway.token(*disabled)
    revoke(gateway, revoked, auth=owner)
    with transaction(gateway.parts.sessions) as session:
        clients.set_disabled(session, disabled[0], True)
    gateway.parts.snapshot.refresh()
    expired, _ = gateway.parts.issuer.issue(owner[0], {Scope.PREDICT}, issued_at=1_700_000_000)
    admin = gateway.client(f"a-{secrets.token_hex(4)}", [Scope.CLIENTS_ADMIN])
    for token in (revoked, others, of_disabled, expired, "nonsense", f"slr_{'x' * 43}"):
        assert introspect(gateway, token, auth=owner) == {"active": False}
    for token in (revoked, of_disabled, expired, "nonsense", f"slr_{'x' * 43}"):
        assert introspect(gateway, token, auth=admin) == {"active": False}


def test_an_administrator_may_ask_about_any_token_in_both_ways(gateway: QuietGateway, owner: tuple[str, str]):
    token = gateway.token(*owner)
    admin = gateway.client(f"a-{secrets.token_hex(4)}", [Scope.CLIENTS_ADMIN])
    assert introspect(gateway, token, auth=admin)["active"] is True
    assert introspect(gateway, token, headers=bearer(gateway.token(*admin)))["client_id"] == owner[0]

    refused = gateway.http.post("/oauth/introspect", data={"token": token}, headers=bearer(token))
    assert (refused.status_code, refused.json()["error"]) == (403, "insufficient_scope")
    assert gateway.http.post("/oauth/introspect", data={"token": token}).status_code == 401
    public = gateway.http.post("/oauth/introspect", data={"token": token, "client_id": "sluice-console"})
    assert public.status_code == 401
    assert gateway.http.get("/oauth/introspect", auth=admin).status_code == 405


def test_a_token_says_the_scopes_that_its_client_still_has(gateway: QuietGateway, owner: tuple[str, str]):
    token = gateway.token(*owner)
    with transaction(gateway.parts.sessions) as session:
        clients.get(session, owner[0]).scopes = "predict"
        clients.bump_generation(session)
    gateway.parts.snapshot.refresh()
    assert introspect(gateway, token, auth=owner)["scope"] == "predict"


def test_an_old_secret_works_for_its_time_of_grace(gateway: QuietGateway, owner: tuple[str, str]):
    admin = gateway.headers(f"a-{secrets.token_hex(4)}", [Scope.CLIENTS_ADMIN])
    token = gateway.token(*owner)

    def rotate(**body: object) -> str:
        answer = gateway.http.post(f"/admin/clients/{owner[0]}/rotate", json=body, headers=admin)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["client_secret"])

    second = rotate(grace_seconds=600, keep_tokens=True)
    assert works(gateway, token), "it was asked to stay"
    assert works(gateway, gateway.token(*owner))
    assert works(gateway, gateway.token(owner[0], second))

    with transaction(gateway.parts.sessions) as session:
        clients.get(session, owner[0]).previous_secret_until = clock_ms(session)
    answer = gateway.http.post("/oauth/token", data={"grant_type": "client_credentials"}, auth=owner)
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")

    third = rotate(grace_seconds=600)
    assert not works(gateway, token), "as ever, unless it is asked to stay"
    rotate()
    for secret in (second, third):
        answer = gateway.http.post("/oauth/token", data={"grant_type": "client_credentials"}, auth=(owner[0], secret))
        assert answer.status_code == 401, "without grace all older secrets are gone"
    refused = gateway.http.post(f"/admin/clients/{owner[0]}/rotate", json={"grace_seconds": -1}, headers=admin)
    assert refused.status_code == 422


def test_the_metadata_lists_every_endpoint_and_way(tmp_path: Path):
    with quiet_gateway(tmp_path, issuer="https://sluice.example/") as gateway:
        found = gateway.http.get("/.well-known/oauth-authorization-server").json()
    assert found["revocation_endpoint"] == "https://sluice.example/oauth/revoke"
    assert found["introspection_endpoint"] == "https://sluice.example/oauth/introspect"
    for endpoint in ("token", "revocation", "introspection"):
        assert "private_key_jwt" in found[f"{endpoint}_endpoint_auth_methods_supported"]
        assert "none" not in found[f"{endpoint}_endpoint_auth_signing_alg_values_supported"]
