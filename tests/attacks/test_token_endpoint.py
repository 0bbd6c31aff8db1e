"""A79 to A96: the endpoints of tokens, whose errors are those of RFC 6749, and what they publish."""

from __future__ import annotations

import base64
import hmac
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

import pytest

from auth.scopes import Scope
from tests.attacks.target import Answer, Target, target
from tests.forgery import assembled, decoded
from tests.oauth_kit import ISSUER, Signer, assertion_claims, assertion_form, elliptic

FORM = "application/x-www-form-urlencoded"
GRANT = "grant_type=client_credentials"
BASIC = "Basic {basic}"
OWN, OTHERS = elliptic("own"), elliptic("others")


@dataclass(frozen=True, slots=True)
class Case:
    """A request to the token endpoint; `{id}`, `{secret}` and `{basic}` stand for good credentials."""

    id: str
    what: str
    status: int
    error: str
    body: str | bytes = GRANT
    authorization: str | None = BASIC
    method: str = "POST"
    path: str = "/oauth/token"
    content_type: str = FORM


def basic(pair: str | bytes) -> str:
    return "Basic " + base64.b64encode(pair.encode() if isinstance(pair, str) else pair).decode()


def invalid(id: str, what: str, body: str | bytes, **more: Any) -> Case:  # noqa: ANN401 - fields of a case
    return Case(id, what, 400, "invalid_request", body, **more)


def wrong(id: str, what: str, authorization: str | None, body: str | bytes = GRANT) -> Case:
    return Case(id, what, 401, "invalid_client", body, authorization)


def scope(id: str, what: str, value: str) -> Case:
    return Case(id, what, 400, "invalid_scope", f"{GRANT}&scope={quote(value)}")


CASES = [
    *(
        Case("A79", kind, 400, "unsupported_grant_type", f"grant_type={quote(kind)}&username=a&password=b")
        for kind in ("password", "authorization_code", "implicit", "Client_Credentials", "urn:x")
    ),
    invalid("A79", "missing", "scope=predict"),
    invalid("A79", "empty", "grant_type="),
    wrong("A80", "a wrong secret", basic("cli_nobody:sls_wrong")),
    wrong("A80", "the secret of nobody in the form", None, f"{GRANT}&client_id=cli_x&client_secret=x"),
    wrong("A80", "no credentials", None),
    invalid("A82", "both ways", GRANT + "&client_id={id}&client_secret={secret}"),
    invalid("A82", "a wrong one beside the good one", GRANT + "&client_id={id}&client_secret=x"),
    invalid("A82", "an assertion beside a secret", GRANT + "&client_assertion=a.b.c&client_assertion_type=x"),
    invalid("A82", "another id beside the good one", GRANT + "&client_id=cli_other"),
    *(
        invalid("A83", f"{name} twice", f"{GRANT}&{name}=predict&{name}=predict")
        for name in ("grant_type", "scope", "client_id", "client_secret", "resource")
    ),
    invalid("A83", "twice, spelt otherwise", f"{GRANT}&grant%5Ftype=client_credentials"),
    Case("A84", "GET", 405, "method_not_allowed", b"", method="GET"),
    Case("A84", "GET with credentials", 405, "method_not_allowed", b"", method="GET", path="/oauth/token?" + GRANT),
    invalid("A84", "JSON", '{{"grant_type": "client_credentials"}}', content_type="application/json"),
    invalid("A84", "in the query", GRANT, path="/oauth/token?client_id={id}&client_secret={secret}"),
    scope("A85", "one that it lacks", "clients:admin"),
    scope("A85", "one that it lacks, beside one that it has", "predict clients:admin"),
    scope("A85", "one that nobody knows", "root"),
    scope("A86", "in capitals", "Predict"),
    scope("A86", "a tab between", "predict\tjobs"),
    scope("A86", "a quote", 'predict" jobs'),
    scope("A86", "a space only", " "),
    wrong("A87", "no base64", "Basic !!!"),
    wrong("A87", "no colon", basic("abc")),
    wrong("A87", "not UTF-8", basic(b"\xff\xfe:\xff")),
    wrong("A87", "not UTF-8 when decoded", basic("cli_%ff:secret")),
    wrong("A87", "nothing", "Basic"),
    wrong("A87", "the id with a colon behind", basic("{id}:")),
    wrong("A88", "NUL in the id", basic("cli_a\0:x")),
    wrong("A88", "NUL in the secret", basic("cli_a:\0")),
    wrong("A88", "NUL in the form", None, f"{GRANT}&client_id=cli_%00&client_secret=%00"),
    wrong("A88", "a letter in two forms", basic("cli_a:sls_\u00e9")),
    wrong("A88", "and decomposed", basic("cli_a:sls_e\u0301")),
    wrong("A88", "full-width digits", basic("cli_\uff11:x")),
    invalid("A88", "a secret of a megabyte", f"{GRANT}&client_secret=" + "s" * 1_000_000, authorization=None),
    invalid("A95", "100,000 fields", f"{GRANT}&" + "a=b&" * 100_000),
    invalid("A95", "100 fields", "&".join([GRANT, *(f"a{number}=b" for number in range(100))])),
    invalid("A95", "escapes that are not UTF-8", f"{GRANT}&a=" + "%ff" * 5000),
]  # fmt: skip


@dataclass
class Attacked:
    """A gateway, and on it a client whose credentials are good."""

    target: Target
    id: str = ""
    secret: str = ""
    signed_in: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.id, self.secret = self.target.gateway.client("good", [Scope.PREDICT, Scope.MODELS_READ])
        self.other_id, self.other_secret = self.target.gateway.client("other", [Scope.PREDICT])
        self.signed_in = {"authorization": f"Bearer {self.target.token}"}
        for client_id, signer in ((self.id, OWN), (self.other_id, OTHERS)):
            self.call("PUT", f"/admin/clients/{client_id}/keys", {"keys": [signer.jwk]})

    def call(self, method: str, path: str, body: object) -> None:
        answer = self.target.gateway.http.request(method, path, json=body, headers=self.signed_in)
        assert answer.status_code == 200, answer.text

    def filled(self, text: str | None) -> bytes | None:
        if text is None:
            return None
        pair = base64.b64encode(f"{self.id}:{self.secret}".encode()).decode()
        return text.format(id=self.id, secret=self.secret, basic=pair).encode()

    def post(self, path: str, form: Mapping[str, str], *, by: tuple[str, str] | None = None) -> Answer:
        """A proper form; `by` is who sends it, with HTTP Basic."""
        sent = [(b"Content-Type", FORM.encode())]
        sent += [] if by is None else [(b"Authorization", basic(":".join(by)).encode())]
        return self.target.send("POST", path, sent, urlencode(form).encode())

    @property
    def good(self) -> tuple[str, str]:
        return self.id, self.secret

    @property
    def other(self) -> tuple[str, str]:
        return self.other_id, self.other_secret

    def forgive(self) -> None:
        """What an attack before failed at is not held against the next."""
        for name in (self.id, self.other_id, "", "cli_x", "cli_a", "cli_nobody"):
            self.target.parts.failures.forget("127.0.0.1", name)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attacked]:
    with target(tmp_path_factory.mktemp("attacked"), issuer=ISSUER) as made:
        yield Attacked(made)


@pytest.fixture
def attacked(whole: Attacked) -> Attacked:
    whole.forgive()
    return whole


def refused(answer: Answer, status: int, error: str) -> None:
    """RFC 6749, section 5.2."""
    document = answer.json()
    assert (answer.status, document["error"]) == (status, error), answer.body
    assert set(document) <= {"error", "error_description"}
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.id} {case.what}")
def test_a_request_that_is_not_as_it_should_be_gets_no_token(attacked: Attacked, case: Case):
    body = case.body if isinstance(case.body, bytes) else attacked.filled(case.body) or b""
    sent = [(b"Content-Type", case.content_type.encode())]
    authorization = attacked.filled(case.authorization)
    sent += [] if authorization is None else [(b"Authorization", authorization)]
    path = (attacked.filled(case.path) or b"").decode()
    with attacked.target.unchanged():
        answer = attacked.target.send(case.method, path, sent, body)
    refused(answer, case.status, case.error)
    assert attacked.secret not in answer.body.decode()
    if case.status == 401:
        assert answer.challenge == 'Basic realm="sluice", charset="UTF-8"'


def test_a80_the_credentials_of_the_cases_above_are_good(attacked: Attacked):
    assert attacked.post("/oauth/token", {"grant_type": "client_credentials"}, by=attacked.good).status == 200


def test_a81_an_unknown_client_is_answered_as_a_wrong_secret_is_after_the_same_work(
    attacked: Attacked, monkeypatch: pytest.MonkeyPatch
):
    hashed: list[bytes] = []
    compared: list[object] = []
    new, compare = hmac.new, hmac.compare_digest

    def counting_new(key: bytes, *arguments: Any) -> hmac.HMAC:  # noqa: ANN401 - as the original
        hashed.append(key)
        return new(key, *arguments)

    def counting_compare(one: Any, other: Any) -> bool:  # noqa: ANN401 - as the original
        compared.append(one)
        return compare(one, other)

    monkeypatch.setattr(hmac, "new", counting_new)
    monkeypatch.setattr(hmac, "compare_digest", counting_compare)
    seen = []
    for who in ((attacked.id, "sls_wrong"), ("cli_nobody", attacked.secret), ("nobody'--", "x")):
        hashed.clear()
        compared.clear()
        with attacked.target.asked() as statements:
            answer = attacked.post("/oauth/token", {"grant_type": "client_credentials"}, by=who)
        headers = {name: value for name, value in answer.headers.items() if name not in ("date", "x-request-id")}
        keyed = hashed.count(attacked.target.parts.settings.pepper)
        seen.append((answer.status, headers, answer.body, keyed, len(compared), statements))
    assert seen[0] == seen[1] == seen[2]
    assert (seen[0][0], seen[0][3]) == (401, 1)


def test_a86_scopes_are_a_set_and_what_is_granted_is_named(attacked: Attacked):
    for asked in ("models:read predict", "predict models:read predict"):
        form = {"grant_type": "client_credentials", "scope": asked}
        assert attacked.post("/oauth/token", form, by=attacked.good).json()["scope"] == "predict models:read"
    narrow = {"grant_type": "client_credentials", "scope": "predict"}
    assert attacked.post("/oauth/token", narrow, by=attacked.good).json()["scope"] == "predict"


def test_a87_credentials_are_form_encoded_before_they_are_joined(attacked: Attacked):
    written = ("".join(f"%{byte:02x}" for byte in part.encode()) for part in attacked.good)
    who = ":".join(written).split(":")
    assert attacked.post("/oauth/token", {"grant_type": "client_credentials"}, by=(who[0], who[1])).status == 200


def test_a89_guessing_is_slowed_down_and_the_good_client_is_not(attacked: Attacked):
    form = {"grant_type": "client_credentials"}
    answers = [attacked.post("/oauth/token", form, by=(attacked.id, f"sls_{number}")) for number in range(30)]
    assert [answer.status for answer in answers] == [401] * 10 + [429] * 20
    refused(answers[-1], 429, "too_many_failures")
    assert 0 < int(answers[-1].headers["retry-after"]) <= 60
    assert attacked.post("/oauth/token", form, by=attacked.good).status == 200
    assert attacked.post("/oauth/token", form, by=attacked.other).status == 200


def test_a90_an_answer_is_for_nobody_else_and_no_two_are_the_same(attacked: Attacked):
    answer = attacked.post("/oauth/token", {"grant_type": "client_credentials"}, by=attacked.good)
    document = answer.json()
    assert set(document) == {"access_token", "token_type", "expires_in", "scope"}
    assert (answer.headers["cache-control"], answer.headers["pragma"]) == ("no-store", "no-cache")
    claims = claims_of(document["access_token"])
    assert document["expires_in"] == claims["exp"] - claims["iat"] == 900
    issuer, named = attacked.target.parts.issuer, set()
    for _ in range(10_000):
        named.add(claims_of(issuer.issue(attacked.id, {Scope.PREDICT})[0])["jti"])
    assert len(named) == 10_000
    assert min(map(len, named)) >= 22, "128 bits"


def claims_of(token: str) -> dict[str, Any]:
    return dict(json.loads(decoded(token.split(".")[1])))


def unsigned(claims: dict[str, Any]) -> str:
    header = json.dumps({"alg": "none"}).encode()
    return assembled(header, json.dumps(claims).encode(), lambda _: b"").rstrip(".") + "."


def by_hmac(on: Attacked) -> str:
    header = json.dumps({"alg": "HS256", "kid": OWN.kid}).encode()
    claims = json.dumps(assertion_claims(on.id)).encode()
    return assembled(header, claims, lambda message: hmac.digest(json.dumps(OWN.jwk).encode(), message, "sha256"))


def said(signer: Signer = OWN, header: dict[str, Any] | None = None, **claims: object) -> Callable[[Attacked], str]:
    return lambda on: signer.token(assertion_claims(on.id, **claims), header)


ASSERTIONS: list[tuple[str, str, Callable[[Attacked], str]]] = [
    ("A91", "aud of somebody else", said(aud="https://other.example")),
    ("A91", "aud of access tokens", said(aud="sluice")),
    ("A91", "no aud", said(aud=...)),
    ("A91", "more than five minutes", lambda on: said(iat=int(time.time()), exp=int(time.time()) + 301)(on)),
    ("A91", "more than five minutes without iat", lambda on: said(iat=..., exp=int(time.time()) + 900)(on)),
    ("A91", "no exp", said(exp=...)),
    ("A91", "no jti", said(jti=...)),
    ("A91", "expired", said(iat=1_700_000_000, exp=1_700_000_060)),
    ("A91", "alg none", lambda on: unsigned(assertion_claims(on.id))),
    ("A91", "signed with the public key", by_hmac),
    ("A91", "another client's key", said(OTHERS)),
    ("A91", "another client's key under our name", said(OTHERS, {"kid": "own"})),
    ("A91", "about somebody else", lambda on: OWN.token(assertion_claims(on.id, sub=on.other_id, iss=on.other_id))),
    ("A91", "issued by somebody else", lambda on: OWN.token(assertion_claims(on.id, iss=on.other_id))),
    ("A91", "a key of its own", said(header={"jwk": OWN.jwk})),
    ("A91", "an access token", lambda on: on.target.signed(claims=on.target.claims(aud=ISSUER, sub=on.id, iss=on.id))),
    ("A91", "crit", said(header={"crit": ["exp"]})),
]


@pytest.mark.parametrize(("id", "what", "forge"), ASSERTIONS, ids=[f"{id} {what}" for id, what, _ in ASSERTIONS])
def test_an_assertion_that_is_not_as_it_should_be_gets_no_token(
    attacked: Attacked, id: str, what: str, forge: Callable[[Attacked], str]
):
    form = assertion_form(forge(attacked), grant_type="client_credentials")
    with attacked.target.unchanged():
        answer = attacked.post("/oauth/token", form)
    refused(answer, 401, "invalid_client")
    assert "jwt" not in answer.body.decode().lower(), (id, what)


def test_a91_an_assertion_is_good_once(attacked: Attacked):
    form = assertion_form(OWN.token(assertion_claims(attacked.id)), grant_type="client_credentials")
    assert attacked.post("/oauth/token", form).status == 200
    with attacked.target.unchanged():
        for path in ("/oauth/token", "/oauth/revoke", "/oauth/introspect"):
            refused(attacked.post(path, {**form, "token": "x"}), 401, "invalid_client")


def test_a92_only_whose_token_it_is_revokes_it_and_nobody_learns_more(attacked: Attacked):
    token = attacked.target.gateway.token(*attacked.good)
    with attacked.target.unchanged():
        refused(attacked.post("/oauth/revoke", {"token": token}), 401, "invalid_client")
        refused(attacked.post("/oauth/revoke", {}, by=attacked.other), 400, "invalid_request")
        sent = [(b"Authorization", basic(":".join(attacked.good)).encode())]
        assert attacked.target.send("GET", f"/oauth/revoke?token={token}", sent).status == 405
        answers = [
            attacked.post("/oauth/revoke", {"token": text}, by=attacked.other)
            for text in (token, "unknown", "slr_" + "x" * 43, attacked.target.token, token[:-4])
        ]
        answers.append(attacked.post("/oauth/revoke", {"token": token, "client_id": "sluice-console"}))
    assert {(answer.status, answer.body) for answer in answers} == {(200, b"")}
    answer = attacked.target.gateway.http.get("/v1/models", headers={"authorization": f"Bearer {token}"})
    assert answer.status_code == 200


def test_a93_a_client_learns_nothing_of_tokens_that_are_not_its_own_or_not_good(attacked: Attacked):
    issuer = attacked.target.parts.issuer
    own = attacked.target.gateway.token(*attacked.good)
    expired, _ = issuer.issue(attacked.id, {Scope.PREDICT}, issued_at=1_700_000_000)
    with attacked.target.unchanged():
        refused(attacked.post("/oauth/introspect", {"token": own}), 401, "invalid_client")
        answers = [
            attacked.post("/oauth/introspect", {"token": token}, by=attacked.good)
            for token in (attacked.target.token, expired, "unknown", own + "=", "slr_" + "x" * 43)
        ]
        assert attacked.post("/oauth/introspect", {"token": own}, by=attacked.good).json()["active"] is True
    assert {(answer.status, answer.body) for answer in answers} == {(200, b'{"active":false}')}


def test_a94_what_is_published_is_public_and_follows_no_request(attacked: Attacked):
    sent = [
        [(b"Host", b"evil.example")],
        [(b"X-Forwarded-Host", b"evil.example"), (b"X-Forwarded-Proto", b"http")],
        [(b"Forwarded", b"host=evil.example;proto=http")],
    ]
    for path in ("/.well-known/jwks.json", "/.well-known/oauth-authorization-server"):
        answers = [attacked.target.send("GET", path)]
        for headers in sent:
            lines = b"".join(name + b": " + value + b"\r\n" for name, value in headers)
            host = b"" if headers[0][0] == b"Host" else b"Host: localhost\r\n"
            request = b"GET " + path.encode() + b" HTTP/1.1\r\nConnection: close\r\n" + host + lines + b"\r\n"
            answers.append(attacked.target.send_raw(request))
        assert len({answer.body for answer in answers}) == 1
        assert {answer.headers["cache-control"] for answer in answers} == {"public, max-age=300"}
        assert b"evil" not in answers[0].body
    assert answers[0].json()["issuer"] == ISSUER
    keys = attacked.target.send("GET", "/.well-known/jwks.json").json()["keys"]
    assert keys
    for key in keys:
        assert set(key) <= {"kty", "crv", "x", "y", "kid", "use", "alg", "key_ops"}
        assert (key["use"], key["alg"]) == ("sig", "ES256")


def test_a96_a_clock_that_is_set_back_makes_no_expired_token_good(attacked: Attacked):
    on = attacked.target
    clock = on.parts.snapshot.clock
    now = int(clock.now())
    expired = on.signed(claims=on.claims(iat=now - 640, nbf=now - 640, exp=now - 40))
    assert on.list_clients(f"Bearer {expired}".encode()).status == 401
    # As the database says when it is asked, twice a second.
    clock.observe(clock.now() - 3600)
    for _ in range(2):
        assert on.list_clients(f"Bearer {expired}".encode()).status == 401
    assert on.list_clients(f"Bearer {on.token}".encode()).status == 200
    assert clock.now() >= now
