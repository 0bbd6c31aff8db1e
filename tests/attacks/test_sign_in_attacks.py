"""A97 to A100: attacks on how people sign in, on their sessions, and on how the first administrator is made."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from auth import one_time_tokens, people
from auth.one_time_tokens import Purpose
from auth.passwords import Passwords
from auth.roles import Role
from auth.scopes import Scope
from model_store.database import transaction
from tests.attacks.target import Target, target
from tests.live_gateway import refused
from tests.people_kit import PASSWORD, Browser, CountingPasswords, add_person
from tests.quiet_gateway import bearer

ADA, OTHER = "ada", "another horse battery"


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with target(tmp_path_factory.mktemp("attacked")) as made:
        add_person(made.gateway, ADA)
        gone = add_person(made.gateway, "gone")
        with transaction(made.parts.sessions) as session:
            people.set_disabled(session, people.get(session, gone.id), True)
            people.create(session, "invited")
        made.parts.snapshot.refresh()
        yield made


@pytest.fixture
def browser(attacked: Target) -> Iterator[Browser]:
    with Browser(attacked.gateway) as made:
        yield made


def test_a97_nobody_learns_who_there_is(attacked: Target, browser: Browser, monkeypatch: pytest.MonkeyPatch):
    counting = CountingPasswords()
    monkeypatch.setattr(attacked.parts.people.sign_in, "_passwords", counting)
    wrong = [
        (ADA, "a wrong password"),
        ("nobody", PASSWORD),
        ("gone", PASSWORD),
        ("invited", ""),
        ("ADA", PASSWORD),
        ("ada\0", PASSWORD),
        (ADA, "\0" * 12),
    ]
    answers = []
    for name, password in wrong:
        counting.verified = 0
        with attacked.unchanged(), attacked.asked() as statements:
            answer = browser.try_to_sign_in(name, password)
        headers = [(key, value) for key, value in answer.headers.items() if key not in ("date", "x-request-id")]
        answers.append((answer.status_code, headers, answer.content, counting.verified, len(statements)))
    assert len({str(answer) for answer in answers}) == 1, "the same answer, after as much work"
    assert (answers[0][0], answers[0][3]) == (401, 1)
    assert "set-cookie" not in dict(answers[0][1])
    browser.sign_in(ADA)


def test_a97_a_token_for_a_password_is_no_way_to_ask_either(attacked: Target, browser: Browser):
    answers = [
        browser.http.post("/admin/password", json={"token": token, "password": PASSWORD})
        for token in ("slo_" + "A" * 43, "", "usr_", "\ud800".encode("utf-8", "surrogatepass").decode("latin-1"))
    ]
    assert {(answer.status_code, answer.text) for answer in answers} == {(403, answers[0].text)}
    attacked.parts.failures.forget("127.0.0.1", f"token for {Purpose.PASSWORD}")


def test_a98_a_session_that_an_attacker_prepared_is_not_the_one_that_is_opened(attacked: Target, browser: Browser):
    prepared = "A" * 43
    browser.http.cookies.set("sluice-session", prepared, domain="127.0.0.1", path="/")
    browser.sign_in(ADA)
    first = browser.cookie
    assert first != prepared
    with httpx.Client(base_url=attacked.gateway.http.base_url) as attacker:
        for cookie in (prepared, first[:-1], first + "A", f"{first}; sluice-session={prepared}"):
            asked = attacker.get("/admin/session", headers={"cookie": f"sluice-session={cookie}"})
            assert refused(asked, 401, "session_invalid")
        browser.sign_in(ADA)
        old = attacker.get("/admin/session", headers={"cookie": f"sluice-session={first}"})
        assert refused(old, 401, "session_invalid"), "the session before has ended"


def test_a98_the_cookie_is_for_this_host_and_for_no_script(tmp_path: Path):
    with target(tmp_path, issuer="https://sluice.example") as on:
        add_person(on.gateway, ADA)
        signed_in = {"name": ADA, "password": PASSWORD}
        claims = {"x-forwarded-proto": "http", "x-forwarded-host": "evil.example", "host": "evil.example"}
        answer = on.gateway.http.post("/admin/session", json=signed_in, headers=claims)
        assert answer.status_code == 201
        for cookie in answer.headers.get_list("set-cookie"):
            assert cookie.startswith("__Host-")
            assert {"secure", "httponly", "path=/", "samesite=strict"} <= set(cookie.lower().split("; "))
            assert "domain" not in cookie.lower()


FORGED = [
    ("without the session's token", {"x-csrf-token": ""}),
    ("with another token", {"x-csrf-token": "0" * 64}),
    ("from another site", {"origin": "https://evil.example"}),
    ("from nowhere", {"origin": "null"}),
    ("from another port", {"origin": "http://127.0.0.1:1"}),
    ("as a browser says", {"sec-fetch-site": "cross-site"}),
    ("from a neighbour", {"sec-fetch-site": "same-site"}),
]


@pytest.mark.parametrize(("what", "headers"), FORGED, ids=[f"A98 {what}" for what, _ in FORGED])
def test_another_site_cannot_act_in_a_session(attacked: Target, browser: Browser, what: str, headers: dict[str, str]):
    browser.enter(ADA)
    acts = [
        ("POST", "/admin/clients", {"name": "forged"}),
        ("POST", "/admin/people", {"name": "forged", "role": "admin"}),
        ("POST", "/admin/keys/rotate", {"compromised": True}),
        ("DELETE", "/admin/session", None),
        ("PUT", "/admin/session/password", {"password": PASSWORD, "new_password": OTHER}),
        ("POST", "/admin/session/tokens", {"password": PASSWORD}),
    ]
    for method, path, body in acts:
        with attacked.unchanged():
            answer = browser.http.request(method, path, json=body, headers=headers)
        assert refused(answer, 403, "request_forged"), (what, path)


def test_a98_a_form_of_another_site_is_not_read_as_json(attacked: Target, browser: Browser):
    browser.enter(ADA)
    body = b'{"name": "forged", "role": "admin"}'
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        with attacked.unchanged():
            answer = browser.http.post("/admin/people", content=body, headers={"content-type": kind})
        assert answer.status_code in (415, 422)


def test_a98_a_session_and_a_token_are_never_taken_for_each_other(attacked: Target, browser: Browser):
    browser.enter(ADA)
    cookie = browser.cookie
    with httpx.Client(base_url=attacked.gateway.http.base_url) as attacker:
        assert attacker.get("/admin/clients", headers=bearer(cookie)).status_code == 401
        token_as_cookie = {"cookie": f"sluice-session={attacked.token}"}
        assert attacker.get("/admin/clients", headers=token_as_cookie).status_code == 401
    # A header is sent on purpose: a good session beside it neither mends nor strengthens it.
    weak = attacked.gateway.headers("weak", [Scope.PREDICT])
    assert browser.http.get("/admin/clients", headers=weak).status_code == 403
    assert browser.http.get("/admin/clients", headers=bearer("a.b.c")).status_code == 401
    # Predictions and what programs do are for tokens.
    assert browser.http.get("/v1/models").status_code == 401
    assert browser.http.post("/v1/models/m:predict", json={"instances": [1]}).status_code == 401
    # And what only a person may do is for sessions.
    for path in ("/admin/session", "/admin/sessions"):
        assert attacked.gateway.http.get(path, headers=bearer(attacked.token)).status_code == 401


def test_a98_a_role_does_not_rise(attacked: Target, browser: Browser):
    add_person(attacked.gateway, "operator", Role.OPERATOR)
    victim = add_person(attacked.gateway, "victim", Role.READER)
    shown = browser.enter("operator")
    acts = [
        ("PUT", f"/admin/people/{shown['person_id']}", {"role": "admin"}),
        ("POST", "/admin/people", {"name": "second", "role": "admin"}),
        ("POST", f"/admin/people/{victim.id}/password-token", None),
        ("DELETE", f"/admin/people/{victim.id}/second-factor", None),
        ("DELETE", f"/admin/people/{victim.id}/sessions", None),
        ("GET", "/admin/clients", None),
        ("GET", "/admin/audit", None),
        ("POST", "/admin/upload-keys", {}),
    ]
    for method, path, body in acts:
        with attacked.unchanged():
            answer = browser.http.request(method, path, json=body)
        assert refused(answer, 403, "insufficient_scope"), path


def test_a98_with_a_cookie_alone_nobody_guesses_the_code_that_confirms_a_second_factor(
    attacked: Target, browser: Browser
):
    add_person(attacked.gateway, "careless")
    browser.enter("careless")
    assert browser.http.post("/admin/session/second-factor", json={"password": PASSWORD}).status_code == 200
    with attacked.unchanged():
        codes = [f"{number:06}" for number in range(12)]
        answers = [browser.http.put("/admin/session/second-factor", json={"code": code}) for code in codes]
    assert [answer.status_code for answer in answers] == [422] * 10 + [429] * 2
    assert refused(answers[-1], 429, "too_many_failures")


LONG = "correct horse battery staple " * 3


def test_a99_every_character_of_a_long_password_counts(attacked: Target, browser: Browser):
    assert len(LONG) > 72
    long = LONG[:72] + "one end"
    with transaction(attacked.parts.sessions) as session:
        people.create(session, "long", Passwords().hash(long), Role.READER)
    attacked.parts.snapshot.refresh()
    for password in (LONG[:72] + "two end", LONG[:72], long + "\0", long + "x", long[:-1]):
        with attacked.unchanged():
            assert refused(browser.try_to_sign_in("long", password), 401, "sign_in_failed")
    assert browser.try_to_sign_in("long", long).status_code == 201


def test_a100_there_is_nobody_before_somebody_is_made_and_then_it_is_over(tmp_path: Path):
    with target(tmp_path) as on, Browser(on.gateway) as browser:
        for name in ("admin", "root", "sluice"):
            for password in (name, "", "changeme"):
                assert refused(browser.try_to_sign_in(name, password), 401, "sign_in_failed")
        with transaction(on.parts.sessions) as session:
            token, _ = one_time_tokens.issue(session, Purpose.SETUP)

        def set_up(token: str, name: str) -> httpx.Response:
            return browser.http.post("/admin/setup", json={"token": token, "name": name, "password": PASSWORD})

        with on.unchanged():
            assert refused(set_up("slo_" + "A" * 43, "eve"), 403, "one_time_token_invalid")
            assert refused(set_up("", "eve"), 403, "one_time_token_invalid")
            by_password = browser.http.post("/admin/password", json={"token": token, "password": PASSWORD})
            assert refused(by_password, 403, "one_time_token_invalid"), "a token is for one purpose"
        # Of two who have it, one is let in.
        with ThreadPoolExecutor(4) as threads:
            answers = list(threads.map(lambda number: set_up(token, f"ada-{number}").status_code, range(4)))
        assert sorted(answers) == [201, 403, 403, 403]
        with on.unchanged():
            assert refused(set_up(token, "eve"), 403, "one_time_token_invalid")
        with transaction(on.parts.sessions) as session:
            again, _ = one_time_tokens.issue(session, Purpose.SETUP)
        with on.unchanged():
            assert refused(set_up(again, "eve"), 409, "administrator_exists")
