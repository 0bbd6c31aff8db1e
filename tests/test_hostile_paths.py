"""Addresses, methods and headers made to get around a check: each is answered as what it is, and opens nothing."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator

import httpx
import pytest

from auth.scopes import Scope
from tests.quiet_gateway import QuietGateway, quiet_gateway
from tests.transport_kit import connect, head, until_closed

SECRET = "/admin/clients"
SERIES = re.compile(r"^sluice_\w+\{.*?\}", re.MULTILINE)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QuietGateway]:
    with quiet_gateway(tmp_path_factory.mktemp("gateway"), metrics_public=True) as running:
        yield running


@pytest.fixture(scope="module")
def admin(gateway: QuietGateway) -> dict[str, str]:
    return gateway.headers("admin", list(Scope))


@pytest.fixture(scope="module")
def nobody(gateway: QuietGateway) -> dict[str, str]:
    """Somebody with a token that opens nothing."""
    return gateway.headers("nobody", [Scope.PREDICT])


def sent(gateway: QuietGateway, method: str, target: str, headers: dict[str, str]) -> tuple[int, bytes]:
    """Status and all that came, of a request whose target goes out as it stands here."""
    with connect(gateway.http.base_url.port or 0) as stranger:
        stranger.sendall(head(method, target, Connection="close", **headers))
        answer = until_closed(stranger)
    return int(answer.split(b" ", 2)[1]), answer


TRICKS = [
    "//admin/clients",
    "/admin//clients",
    "/./admin/clients",
    "/admin/./clients",
    "/health/live/../../admin/clients",
    "/health/live/%2e%2e/%2e%2e/admin/clients",
    "/admin/clients/",
    "/admin/clients/.",
    "/admin/clients;x",
    "/admin;x/clients",
    "/admin/clients.",
    "/Admin/clients",
    "/ADMIN/CLIENTS",
    "/admin/clients%20",
    "/admin/clients%3f",
    "/%c0%afadmin/clients",
    "/admin\\clients",
    "/v1/../admin/clients",
    "/v1/models/m:predict/../../../admin/clients",
]


@pytest.mark.parametrize("target", TRICKS)
def test_another_spelling_of_a_path_is_no_way_to_it(
    gateway: QuietGateway, admin: dict[str, str], nobody: dict[str, str], target: str
):
    assert gateway.http.get(SECRET, headers=admin).status_code == 200
    for headers in (admin, nobody, {}):
        status, answer = sent(gateway, "GET", target, headers)
        assert status in (400, 401, 403, 404)
        assert b"cli_" not in answer
        assert b"location:" not in answer.lower()


@pytest.mark.parametrize(
    "target", ["/%61dmin/clients", "/admin/%63lients", "/admin/clients?", "/admin/clients?x=/health/live"]
)
def test_the_same_path_spelt_otherwise_asks_for_the_same_rights(
    gateway: QuietGateway, admin: dict[str, str], nobody: dict[str, str], target: str
):
    found = [sent(gateway, "GET", target, headers)[0] for headers in (admin, nobody, {})]
    assert found == [200, 403, 401]


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "TRACE", "PATCH", "PROPFIND", "SEARCH"])
def test_another_method_is_none(gateway: QuietGateway, admin: dict[str, str], method: str):
    status, answer = sent(gateway, method, SECRET, admin)
    assert status in (400, 404, 405)
    assert b"cli_" not in answer
    assert admin["authorization"].encode() not in answer


OVERRIDES = [
    {"X-HTTP-Method-Override": "GET"},
    {"X-HTTP-Method": "GET"},
    {"X-Method-Override": "GET"},
    {"X-Original-URL": "/health/live"},
    {"X-Rewrite-URL": "/health/live"},
    {"X-Forwarded-Prefix": "/health"},
    {"X-Forwarded-User": "admin"},
    {"X-Remote-User": "admin"},
    {"X-Forwarded-For": "127.0.0.1", "X-Real-IP": "127.0.0.1"},
    {"X-Forwarded-Host": "127.0.0.1", "Forwarded": "for=127.0.0.1;host=localhost"},
    {"X-Client-Cert": "admin", "X-SSL-Client-Verify": "SUCCESS", "X-Forwarded-Client-Cert": "Hash=00"},
]


@pytest.mark.parametrize("headers", OVERRIDES, ids=lambda headers: next(iter(headers)))
def test_headers_that_other_servers_obey_are_bytes_here(
    gateway: QuietGateway, nobody: dict[str, str], headers: dict[str, str]
):
    asked = gateway.http.get(SECRET, headers=nobody | headers)
    assert (asked.status_code, asked.json()["code"]) == (403, "insufficient_scope")
    assert gateway.http.get(SECRET, headers=headers).status_code == 401
    assert gateway.http.post("/health/live", headers=headers).status_code == 405


@pytest.mark.parametrize(
    "path", ["/", SECRET, "/oauth/token", "/.well-known/oauth-authorization-server", "/docs", "/v1/models"]
)
def test_the_host_that_a_request_names_is_in_no_answer(gateway: QuietGateway, admin: dict[str, str], path: str):
    answers = [
        gateway.http.get(path, headers=admin | {"host": host, "accept": "text/html"})
        for host in ("127.0.0.1", "evil.example.org")
    ]
    assert answers[0].status_code == answers[1].status_code
    assert "evil" not in answers[1].text + str(answers[1].headers)


def test_what_a_path_says_is_not_repeated_where_it_could_mean_something(gateway: QuietGateway, admin: dict[str, str]):
    for path in ("/v1/models/<script>alert(1)</script>", "/v2/models/<script>", "/admin/models/%22%3E%3Cscript%3E"):
        answer = gateway.http.get(path, headers=admin)
        assert 400 <= answer.status_code < 500
        assert "json" in answer.headers["content-type"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")
        answer.json()


def test_an_answer_to_a_long_path_is_short(gateway: QuietGateway, admin: dict[str, str]):
    for path in ("/v1/models/", "/v2/models/", "/admin/models/", "/v1/jobs/", "/", "/admin/clients/"):
        assert len(gateway.http.get(path + "a" * 20_000, headers=admin).content) < 2000
        assert len(gateway.http.post(path + "a" * 20_000, headers=admin).content) < 2000


@pytest.mark.parametrize(
    "request_id",
    [
        "a" * 65,
        "short",
        "with space",
        "line\x0bend-of-it",
        'quote"quote"',
        "{{7*7}}abc",
        "\xe9\xe9\xe9\xe9\xe9\xe9\xe9\xe9",
    ],
)
def test_a_request_id_that_is_none_is_replaced(gateway: QuietGateway, request_id: str):
    with connect(gateway.http.base_url.port or 0) as stranger:
        line = b"X-Request-Id: " + request_id.encode("latin-1")
        stranger.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + line + b"\r\n\r\n")
        answer = until_closed(stranger)
    assert request_id.encode("latin-1") not in answer


def test_a_path_with_a_line_end_is_no_line_of_its_own_in_the_log(
    gateway: QuietGateway, caplog: pytest.LogCaptureFixture
):
    with caplog.at_level(logging.DEBUG):
        for path in ("/a%0d%0a%7B%22level%22:1%7D", "/v1/models/a%0ab:predict", "/%1b%5b31m"):
            sent(gateway, "POST", path, {})
    assert not any("\n" in record.getMessage() or "\x1b" in record.getMessage() for record in caplog.records)


def test_strangers_add_no_series_to_the_metrics(gateway: QuietGateway, nobody: dict[str, str]):
    def series() -> set[str]:
        return set(SERIES.findall(gateway.http.get("/metrics").text))

    def ask(start: int, count: int) -> None:
        for number in range(start, start + count):
            gateway.http.get(f"/nowhere/{number}", headers={"x-request-id": f"request-{number}"})
            gateway.http.post(f"/v1/models/m{number}:predict", headers=nobody, json={})
            gateway.http.get(f"/v2/models/m{number}", headers=nobody | {"user-agent": f"a{number}"})

    ask(0, 1)
    series()
    before = series()
    ask(1, 100)
    assert series() == before


@pytest.mark.parametrize("separator", ["&", "&a=&", ";"])
def test_a_form_of_100_000_fields_is_refused(gateway: QuietGateway, separator: str):
    form = separator.join(f"f{number}=x" for number in range(100_000))
    headers = {"content-type": "application/x-www-form-urlencoded"}
    refused = gateway.http.post("/oauth/token", content=form, headers=headers)
    assert refused.status_code in (400, 401, 413)
    assert len(refused.content) < 1000
    assert "error" in refused.json()


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "gzip, gzip"])
@pytest.mark.parametrize("path", ["/admin/clients", "/oauth/token", "/v1/models/m:predict"])
def test_a_packed_body_is_never_unpacked(gateway: QuietGateway, admin: dict[str, str], path: str, encoding: str):
    body = b"\x1f\x8b\x08\x00" + bytes(1000)
    headers = admin | {"content-encoding": encoding, "content-type": "application/json"}
    refused = gateway.http.post(
        path, content=body, headers=headers if path != "/oauth/token" else {"content-encoding": encoding}
    )
    if "models" in path:
        # The model's existence comes first: what a caller may not see is not there.
        assert refused.status_code == 404
    else:
        assert refused.status_code == 415
        text = json.dumps(refused.json())
        assert "Content-Encoding" in text


ANSWERS = [
    ("GET", "/health/live", 200),
    ("GET", "/docs", 200),
    ("GET", "/openapi.json", 200),
    ("GET", "/metrics", 200),
    ("GET", "/.well-known/jwks.json", 200),
    ("GET", SECRET, 401),
    ("GET", "/nowhere", 404),
    ("DELETE", "/health/live", 405),
    ("POST", "/v1/models/m:predict", 401),
    ("POST", "/v2/models/m/infer", 401),
    ("POST", "/oauth/token", 400),
]


@pytest.mark.parametrize(("method", "path", "status"), ANSWERS)
def test_every_answer_has_the_headers_that_keep_browsers_from_making_more_of_it(
    gateway: QuietGateway, method: str, path: str, status: int
):
    answer = gateway.http.request(method, path)
    assert answer.status_code == status
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    assert "server" not in answer.headers
    assert "x-powered-by" not in answer.headers
    assert not any(name.startswith("access-control") for name in answer.headers)
    assert (method == "POST" and "/models/" in path) or "cache-control" in answer.headers


def test_what_is_about_a_caller_is_kept_in_no_cache(gateway: QuietGateway, admin: dict[str, str]):
    for path in (SECRET, "/v1/models", "/admin/models", "/v1/jobs", "/nowhere"):
        assert gateway.http.get(path, headers=admin).headers["cache-control"] == "no-store"


def test_pages_of_other_origins_are_told_nothing(gateway: QuietGateway, admin: dict[str, str]):
    headers = {"origin": "https://evil.example.org"}
    asked = gateway.http.get("/v1/models", headers=admin | headers)
    before = gateway.http.options("/v1/models", headers=headers | {"access-control-request-method": "GET"})
    for answer in (asked, before):
        assert not any(name.startswith("access-control") for name in answer.headers)
    assert before.status_code == 405


GOOD = "https://app.example.org"


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QuietGateway]:
    """A gateway that pages of some origins may call."""
    with quiet_gateway(tmp_path_factory.mktemp("opened"), cors_origins=f"{GOOD}, http://localhost:3000") as running:
        yield running


def test_pages_of_named_origins_may_ask_and_read_but_bring_no_cookies(opened: QuietGateway):
    asks = {
        "origin": GOOD,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization",
    }
    before = opened.http.options("/v1/models/m:predict", headers=asks)
    assert before.status_code == 204
    assert before.headers["access-control-allow-origin"] == GOOD
    assert "POST" in before.headers["access-control-allow-methods"]
    assert "authorization" in before.headers["access-control-allow-headers"]
    for answer in (
        opened.http.post("/v1/models/m:predict", headers={"origin": GOOD}),
        opened.http.get("/nowhere", headers={"origin": GOOD}),
    ):
        assert answer.headers["access-control-allow-origin"] == GOOD
        assert answer.headers["vary"] == "origin"
        assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example.org", "https://app.example.org.evil", "http://app.example.org", "null", "*", ""],
)
def test_pages_of_others_may_not(opened: QuietGateway, origin: str):
    headers = {"origin": origin, "access-control-request-method": "GET"}
    for answer in (
        opened.http.options("/v1/models", headers=headers),
        opened.http.get("/v1/models", headers=headers),
    ):
        assert not any(name.startswith("access-control") for name in answer.headers)
        assert answer.headers["vary"] == "origin"


@pytest.mark.parametrize("origin", ["*", "null", "https://a/path", "app.example.org", "https://a, *", "https://u@a"])
def test_an_origin_that_is_none_keeps_a_gateway_from_starting(tmp_path_factory: pytest.TempPathFactory, origin: str):
    with (
        pytest.raises(ValueError, match="is no origin"),
        quiet_gateway(tmp_path_factory.mktemp("x"), cors_origins=origin),
    ):
        pass


def test_a_form_with_a_lone_surrogate_is_a_plain_refusal(gateway: QuietGateway, admin: dict[str, str]):
    for body in (b'{"name": "\\ud800"}', b'{"\\udfff": 1}', b'{"name": "a", "grants": [{"model": "\\ud800"}]}'):
        refused = gateway.http.post(SECRET, content=body, headers=admin | {"content-type": "application/json"})
        assert refused.status_code in (400, 422)
        assert len(refused.content) < 1000


def test_the_pages_about_the_gateway_are_closed_where_a_setting_says_so(tmp_path_factory: pytest.TempPathFactory):
    with quiet_gateway(tmp_path_factory.mktemp("closed"), docs_public=False, metrics_public=False) as closed:
        pages = ("/docs", "/docs/static/docs.js", "/openapi.json", "/metrics")
        known = closed.headers("known", [Scope.MODELS_READ, Scope.METRICS_READ])
        other = closed.headers("other", [Scope.PREDICT])
        assert [closed.http.get(page).status_code for page in pages] == [401] * 4
        assert [closed.http.get(page, headers=other).status_code for page in pages] == [403] * 4
        assert [closed.http.get(page, headers=known).status_code for page in pages] == [200] * 4


def test_http_is_all_that_is_spoken(gateway: QuietGateway):
    for opening in (
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"SSH-2.0-x\r\n",
        b"*1\r\n$4\r\nPING\r\n",
        b"\x00" * 100,
        b"EHLO x\r\n",
    ):
        with connect(gateway.http.base_url.port or 0) as stranger:
            stranger.sendall(opening + b"\r\n\r\n")
            answer = until_closed(stranger)
        assert answer == b"" or answer.startswith(b"HTTP/1.1 400 ")
    assert httpx.get(f"{gateway.http.base_url}/health/live").status_code == 200


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        (SECRET, "GET, POST"),
        ("/v1/jobs/x", "DELETE, GET"),
        ("/health/live", "GET"),
        ("/v1/models/m:predict", "POST"),
    ],
)
def test_a_method_that_an_address_does_not_take_is_told_all_that_it_takes(
    gateway: QuietGateway, admin: dict[str, str], path: str, methods: str
):
    answer = gateway.http.options(path, headers=admin)
    assert (answer.status_code, answer.headers["allow"]) == (405, methods)
