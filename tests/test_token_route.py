"""The token endpoint and the published metadata, through the whole application."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from jose import jwk, jws

from auth import clients
from auth.scopes import Scope
from model_store.database import transaction
from monitoring.metrics import TOKENS_ISSUED
from tests.quiet_gateway import QuietGateway, bearer, quiet_gateway

FORM = {"grant_type": "client_credentials"}
NO_STORE = "no-store"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QuietGateway]:
    with quiet_gateway(tmp_path_factory.mktemp("gateway")) as found:
        yield found


@pytest.fixture(scope="module")
def credentials(gateway: QuietGateway) -> tuple[str, str]:
    return gateway.client("reading-room", [Scope.PREDICT, Scope.JOBS, Scope.MODELS_READ])


def post(gateway: QuietGateway, data: object = None, **options: object) -> httpx.Response:
    return gateway.http.post("/oauth/token", data=FORM if data is None else data, **options)


def basic(text: str | bytes) -> dict[str, str]:
    raw = text.encode() if isinstance(text, str) else text
    return {"authorization": "Basic " + base64.b64encode(raw).decode()}


def assert_refused(answer: httpx.Response, status: int, error: str) -> None:
    assert (answer.status_code, answer.json()["error"]) == (status, error), answer.text
    assert set(answer.json()) <= {"error", "error_description"}
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == NO_STORE
    if status == 401:
        assert answer.headers["www-authenticate"].startswith("Basic ")


def test_basic_credentials_give_a_token(gateway: QuietGateway, credentials: tuple[str, str]):
    issued = TOKENS_ISSUED._value.get()
    answer = post(gateway, auth=credentials)
    assert answer.status_code == 200
    document = answer.json()
    assert set(document) == {"access_token", "token_type", "expires_in", "scope"}, "above all no refresh token"
    assert (document["token_type"], document["expires_in"]) == ("Bearer", 900)
    assert document["scope"] == "predict jobs models:read"
    assert answer.headers["cache-control"] == NO_STORE
    assert answer.headers["pragma"] == "no-cache"
    assert TOKENS_ISSUED._value.get() == issued + 1


def test_credentials_in_the_form_give_a_token(gateway: QuietGateway, credentials: tuple[str, str]):
    answer = post(gateway, {**FORM, "client_id": credentials[0], "client_secret": credentials[1]})
    assert answer.status_code == 200


def test_the_token_opens_what_its_scopes_allow(gateway: QuietGateway, credentials: tuple[str, str]):
    token = gateway.token(*credentials)
    assert gateway.http.get("/v1/models", headers=bearer(token)).json() == {"models": []}
    refused = gateway.http.get("/admin/clients", headers=bearer(token))
    assert refused.status_code == 403
    assert refused.json()["code"] == "insufficient_scope"
    assert refused.headers["www-authenticate"].endswith('scope="clients:admin"')


def test_credentials_are_form_encoded_before_they_are_joined(gateway: QuietGateway, credentials: tuple[str, str]):
    client_id, secret = ("".join(f"%{byte:02x}" for byte in part.encode()) for part in credentials)
    assert post(gateway, headers=basic(f"{client_id}:{secret}")).status_code == 200


def test_the_client_id_may_stand_in_the_form_as_well(gateway: QuietGateway, credentials: tuple[str, str]):
    assert post(gateway, {**FORM, "client_id": credentials[0]}, auth=credentials).status_code == 200
    assert_refused(post(gateway, {**FORM, "client_id": "cli_other"}, auth=credentials), 400, "invalid_request")


@pytest.mark.parametrize("grant_type", ["password", "authorization_code", "implicit", "CLIENT_CREDENTIALS"])
def test_another_grant_type_is_refused(gateway: QuietGateway, credentials: tuple[str, str], grant_type: str):
    assert_refused(post(gateway, {"grant_type": grant_type}, auth=credentials), 400, "unsupported_grant_type")


@pytest.mark.parametrize("form", [{}, {"grant_type": ""}, {"scope": "predict"}])
def test_a_missing_grant_type_is_refused(gateway: QuietGateway, credentials: tuple[str, str], form: dict[str, str]):
    assert_refused(post(gateway, form, auth=credentials), 400, "invalid_request")


def test_every_wrong_credential_gets_the_same_answer(gateway: QuietGateway):
    client_id, secret = gateway.client("sameness")
    disabled = gateway.client("disabled")
    with transaction(gateway.parts.sessions) as session:
        clients.set_disabled(session, disabled[0], True)
    answers = [
        post(gateway, auth=(client_id, "sls_wrong")),
        post(gateway, auth=("cli_unknown", secret)),
        post(gateway, auth=disabled),
        post(gateway, {**FORM, "client_id": client_id, "client_secret": "wrong"}),
        post(gateway),
    ]
    for answer in answers:
        assert_refused(answer, 401, "invalid_client")
    assert len({answer.text for answer in answers}) == 1


@pytest.mark.parametrize(
    "header",
    [
        "Basic",
        "Basic !!!",
        "Basic YWJj",  # no colon
        "Basic " + base64.b64encode(b"\xff\xfe:\xff").decode(),
        "Basic " + base64.b64encode(b"cli_%ff:secret").decode(),
        "Basic " + base64.b64encode(b"cli_\0:secret").decode(),
        "Basic " + base64.b64encode(b"a" * 9000 + b":b").decode(),
        "Bearer abc",
        "Digest abc",
        "",
    ],
)
def test_a_header_that_is_no_proper_basic_is_refused(gateway: QuietGateway, header: str):
    assert_refused(post(gateway, headers={"authorization": header}), 401, "invalid_client")


def test_both_ways_of_authenticating_at_once_are_refused(gateway: QuietGateway, credentials: tuple[str, str]):
    form = {**FORM, "client_id": credentials[0], "client_secret": credentials[1]}
    assert_refused(post(gateway, form, auth=credentials), 400, "invalid_request")


def test_two_authorization_headers_are_refused(gateway: QuietGateway, credentials: tuple[str, str]):
    header = ("authorization", basic(":".join(credentials))["authorization"])
    assert_refused(post(gateway, headers=[header, header]), 400, "invalid_request")


@pytest.mark.parametrize("repeated", ["grant_type", "scope", "client_id", "client_secret", "unknown"])
def test_a_repeated_parameter_is_refused(gateway: QuietGateway, credentials: tuple[str, str], repeated: str):
    body = f"grant_type=client_credentials&{repeated}=a&{repeated}=a"
    answer = gateway.http.post(
        "/oauth/token", content=body, headers={"content-type": "application/x-www-form-urlencoded"}, auth=credentials
    )
    assert_refused(answer, 400, "invalid_request")


def test_an_unknown_parameter_is_passed_over(gateway: QuietGateway, credentials: tuple[str, str]):
    assert post(gateway, {**FORM, "resource": "https://a.example"}, auth=credentials).status_code == 200


@pytest.mark.parametrize("query", ["client_id=a&client_secret=b", "grant_type=client_credentials", "a"])
def test_parameters_in_the_query_are_refused(gateway: QuietGateway, credentials: tuple[str, str], query: str):
    answer = gateway.http.post(f"/oauth/token?{query}", data=FORM, auth=credentials)
    assert_refused(answer, 400, "invalid_request")


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", b'{"grant_type":"client_credentials"}'),
        ("text/plain", b"grant_type=client_credentials"),
        ("multipart/form-data; boundary=x", b"--x--"),
        ("", b"grant_type=client_credentials"),
        ("application/x-www-form-urlencoded", b"grant_type=\xff"),
        ("application/x-www-form-urlencoded", b"grant_type=%ff"),
        ("application/x-www-form-urlencoded", b"grant_type=client_credentials&" + b"a=b&" * 100_000),
        ("application/x-www-form-urlencoded", b"&".join(b"a%d=b" % number for number in range(100))),
        ("application/x-www-form-urlencoded", b"client_secret=" + b"s" * 1_000_000),
    ],
)
def test_a_body_that_is_no_small_form_is_refused(
    gateway: QuietGateway, credentials: tuple[str, str], content_type: str, body: bytes
):
    headers = {"content-type": content_type} if content_type else {}
    answer = gateway.http.post("/oauth/token", content=body, headers=headers, auth=credentials)
    assert_refused(answer, 400, "invalid_request")


def test_a_long_body_without_an_announced_length_is_refused(gateway: QuietGateway, credentials: tuple[str, str]):
    headers = {"content-type": "application/x-www-form-urlencoded"}
    chunks = (b"a=b&" * 1000 for _ in range(50))
    answer = gateway.http.post("/oauth/token", content=chunks, headers=headers, auth=credentials)
    assert_refused(answer, 400, "invalid_request")


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_only_post_is_answered(gateway: QuietGateway, credentials: tuple[str, str], method: str):
    answer = gateway.http.request(method, "/oauth/token", auth=credentials)
    assert answer.status_code == 405
    assert "error" in answer.json()


def test_a_narrower_scope_is_granted_and_named(gateway: QuietGateway, credentials: tuple[str, str]):
    answer = post(gateway, {**FORM, "scope": "jobs predict jobs"}, auth=credentials).json()
    assert answer["scope"] == "predict jobs"
    narrow = gateway.token(*credentials, scope="jobs")
    assert gateway.http.get("/v1/models", headers=bearer(narrow)).status_code == 403


@pytest.mark.parametrize(
    "scope", ["clients:admin", "predict clients:admin", "root", "Predict", "predict\tjobs", " ", 'a"b', "ä"]
)
def test_a_scope_that_the_client_lacks_or_nobody_knows_is_refused(
    gateway: QuietGateway, credentials: tuple[str, str], scope: str
):
    assert_refused(post(gateway, {**FORM, "scope": scope}, auth=credentials), 400, "invalid_scope")


def test_an_empty_scope_counts_as_none(gateway: QuietGateway, credentials: tuple[str, str]):
    assert post(gateway, {**FORM, "scope": ""}, auth=credentials).json()["scope"] == "predict jobs models:read"


def test_guessing_is_slowed_down_and_the_good_client_is_not(gateway: QuietGateway):
    client_id, secret = gateway.client("guessed")
    for _ in range(10):
        assert_refused(post(gateway, auth=(client_id, "sls_guess")), 401, "invalid_client")
    for _ in range(20):
        answer = post(gateway, auth=(client_id, "sls_guess"))
        assert_refused(answer, 429, "too_many_failures")
        assert 0 < int(answer.headers["retry-after"]) <= 60
    assert post(gateway, auth=(client_id, secret)).status_code == 200
    assert_refused(post(gateway, auth=("cli_other", "sls_guess")), 401, "invalid_client")


def test_a_new_client_a_new_secret_and_an_old_one(gateway: QuietGateway):
    client_id, old = gateway.client("rotating")
    token = gateway.token(client_id, old)
    assert gateway.http.get("/v1/models", headers=bearer(token)).status_code == 200

    with transaction(gateway.parts.sessions) as session:
        new = clients.rotate_secret(session, client_id, gateway.parts.settings.pepper)
    gateway.parts.snapshot.refresh()

    assert_refused(post(gateway, auth=(client_id, old)), 401, "invalid_client")
    assert gateway.http.get("/v1/models", headers=bearer(token)).status_code == 401
    fresh = gateway.token(client_id, new)
    assert gateway.http.get("/v1/models", headers=bearer(fresh)).status_code == 200


def test_the_published_keys_verify_our_tokens(gateway: QuietGateway, credentials: tuple[str, str]):
    answer = gateway.http.get("/.well-known/jwks.json", headers={"host": "evil.example"})
    assert answer.headers["cache-control"] == "public, max-age=300"
    (published,) = answer.json()["keys"]
    assert not {"d", "p", "q", "dp", "dq", "qi", "k"} & set(published)
    jws.verify(gateway.token(*credentials), jwk.construct(published, "ES256"), algorithms=["ES256"])


def test_the_metadata_names_the_issuer_and_not_the_host(tmp_path: Path):
    with quiet_gateway(tmp_path, issuer="https://sluice.example/") as gateway:
        answers = [
            gateway.http.get(
                "/.well-known/oauth-authorization-server", headers={"host": host, "x-forwarded-host": host}
            )
            for host in ("a.example", "b.example")
        ]
    assert (
        answers[0].json()
        == answers[1].json()
        == {
            "issuer": "https://sluice.example/",
            "token_endpoint": "https://sluice.example/oauth/token",
            "revocation_endpoint": "https://sluice.example/oauth/revoke",
            "introspection_endpoint": "https://sluice.example/oauth/introspect",
            "jwks_uri": "https://sluice.example/.well-known/jwks.json",
            "scopes_supported": [str(scope) for scope in Scope],
            "response_types_supported": [],
            "grant_types_supported": ["client_credentials", "refresh_token"],
            "tls_client_certificate_bound_access_tokens": False,
            **{
                f"{endpoint}_endpoint_auth_{what}": values
                for endpoint in ("token", "revocation", "introspection")
                for what, values in (
                    ("methods_supported", ["client_secret_basic", "client_secret_post", "private_key_jwt"]),
                    ("signing_alg_values_supported", ["ES256", "RS256", "RS384", "RS512"]),
                )
            },
        }
    )


def test_metadata_without_a_public_address_is_relative(gateway: QuietGateway):
    document = gateway.http.get("/.well-known/oauth-authorization-server").json()
    assert (document["issuer"], document["token_endpoint"]) == ("sluice", "/oauth/token")
