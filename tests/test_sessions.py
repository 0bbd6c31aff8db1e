"""Sessions of people: cookies, forged requests, roles, the ends of a session; over real HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from sqlalchemy import select, update

from auth import people
from auth.people_tables import Person, PersonSession
from auth.roles import Role
from auth.scopes import Scope
from model_store.database import transaction
from tests.live_gateway import eventually, refused
from tests.people_kit import PASSWORD, Browser, add_person
from tests.quiet_gateway import QuietGateway, bearer, quiet_gateway

OTHER = "another horse battery"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QuietGateway]:
    with quiet_gateway(tmp_path_factory.mktemp("gateway"), docs_public=False) as made:
        yield made


def end_of_time(gateway: QuietGateway, **columns: int) -> None:
    """Moves all sessions into the past, and makes the gateway look again."""
    with transaction(gateway.parts.sessions) as session:
        session.execute(update(PersonSession).values(**columns))
        people.end_everything(session, session.scalars(select(Person).where(Person.name == "nobody")).one())
    gateway.parts.snapshot.refresh()


def test_whoever_signs_in_gets_a_cookie_that_no_script_and_no_other_site_can_use(gateway: QuietGateway):
    add_person(gateway, "ada")
    with Browser(gateway) as browser:
        answer = browser.try_to_sign_in("ada")
        assert answer.status_code == 201
        assert answer.headers["cache-control"] == "no-store"
        session, device = answer.headers.get_list("set-cookie")
        assert set(session.lower().split("; ")[1:]) == {"httponly", "path=/", "samesite=strict"}
        assert {"httponly", "path=/", "samesite=strict"} <= set(device.lower().split("; "))
        shown = answer.json()
        assert (shown["name"], shown["role"], shown["second_factor_due"]) == ("ada", "admin", False)
        assert browser.http.get("/admin/session").json() == shown
        assert browser.http.get("/admin/clients").status_code == 200
        assert browser.cookie not in answer.text


def test_over_https_the_cookies_are_secure_and_bound_to_the_host_whatever_a_request_claims(tmp_path: Path):
    with quiet_gateway(tmp_path, issuer="https://sluice.example") as gateway:
        add_person(gateway, "ada")
        signed_in = {"name": "ada", "password": PASSWORD}
        answer = gateway.http.post("/admin/session", json=signed_in, headers={"x-forwarded-proto": "http"})
        session, device = answer.headers.get_list("set-cookie")
        assert session.startswith("__Host-sluice-session=")
        assert device.startswith("__Host-sluice-device=")
        for cookie in (session, device):
            assert {"secure", "httponly", "path=/", "samesite=strict"} <= set(cookie.lower().split("; "))
            assert "domain" not in cookie.lower()
        pair = session.partition(";")[0]
        gateway.http.cookies.clear()
        assert gateway.http.get("/admin/session", headers={"cookie": pair}).status_code == 200
        plain = pair.removeprefix("__Host-")
        assert refused(gateway.http.get("/admin/session", headers={"cookie": plain}), 401, "session_invalid")
        elsewhere = {"cookie": pair, "origin": "https://sluice.example", "x-csrf-token": answer.json()["csrf_token"]}
        assert gateway.http.delete("/admin/session", headers=elsewhere).status_code == 204


def test_a_changing_request_needs_the_sessions_own_token(gateway: QuietGateway):
    add_person(gateway, "brian")
    with Browser(gateway) as browser, Browser(gateway) as other:
        browser.enter("brian")
        theirs = other.enter("brian")["csrf_token"]
        for sent in (theirs.encode(), b"", b"0" * 64, b"\xe9"):
            headers = [(b"x-csrf-token", sent)]
            del browser.http.headers["x-csrf-token"]
            answer = browser.http.post("/admin/clients", json={"name": "forged"}, headers=headers)
            browser.http.headers["x-csrf-token"] = "0"
            assert refused(answer, 403, "request_forged")
        assert browser.http.get("/admin/clients").status_code == 200
        assert "forged" not in browser.http.get("/admin/clients").text


@pytest.mark.parametrize(
    "sent",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:1"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
    ids=str,
)
def test_another_sites_page_can_neither_act_in_a_session_nor_sign_somebody_in(
    gateway: QuietGateway, sent: dict[str, str]
):
    if not known(gateway, "clara"):
        add_person(gateway, "clara")
    with Browser(gateway) as browser:
        browser.http.headers.update(sent)
        assert refused(browser.try_to_sign_in("clara"), 403, "request_forged")
        for name in sent:
            del browser.http.headers[name]
        browser.sign_in("clara")
        assert refused(browser.http.post("/admin/clients", json={"name": "x"}, headers=sent), 403, "request_forged")


def known(gateway: QuietGateway, name: str) -> bool:
    return any(person.name == name for person in gateway.parts.snapshot.rights.clients.values())


def test_the_gateways_own_pages_are_let_through(gateway: QuietGateway):
    add_person(gateway, "dora")
    with Browser(gateway) as browser:
        browser.http.headers.update({"origin": str(gateway.http.base_url), "sec-fetch-site": "same-origin"})
        browser.sign_in("dora")
        assert browser.http.delete("/admin/session").status_code == 204


def test_signing_in_never_takes_a_session_that_the_browser_brought(gateway: QuietGateway):
    add_person(gateway, "edgar")
    with Browser(gateway) as browser:
        browser.http.cookies.set("sluice-session", "A" * 43)
        browser.sign_in("edgar")
        first = next(cookie.value for cookie in browser.http.cookies.jar if cookie.value != "A" * 43)
        browser.http.cookies.clear()
        browser.http.cookies.set("sluice-session", str(first))
        browser.sign_in("edgar")
        # The session that this browser had is over; only the new one opens.
        gateway.parts.snapshot.refresh()
        old = gateway.http.get("/admin/session", headers={"cookie": f"sluice-session={first}"})
        assert refused(old, 401, "session_invalid")


def test_whoever_signs_out_is_out_and_others_are_not(gateway: QuietGateway):
    add_person(gateway, "frida")
    with Browser(gateway) as here, Browser(gateway) as there:
        here.enter("frida")
        there.enter("frida")
        stolen = here.cookie
        answer = here.http.delete("/admin/session")
        assert answer.status_code == 204
        assert "max-age=0" in answer.headers["set-cookie"].lower()
        again = gateway.http.get("/admin/session", headers={"cookie": f"sluice-session={stolen}"})
        assert refused(again, 401, "session_invalid")
        assert there.http.get("/admin/session").status_code == 200


def test_people_see_and_end_their_own_sessions_only(gateway: QuietGateway):
    add_person(gateway, "gerd")
    add_person(gateway, "hedy")
    with Browser(gateway) as here, Browser(gateway) as there, Browser(gateway) as other:
        here.http.headers = httpx.Headers([(b"user-agent", b"Browser\x85 of Gerd")])
        here.sign_in("gerd")
        there_id = there.sign_in("gerd")["session_id"]
        other_id = other.enter("hedy")["session_id"]
        shown = here.http.get("/admin/sessions").json()["sessions"]
        assert shown[0]["session_id"] == there_id
        assert shown[1]["program"] == "Browser? of Gerd"
        assert here.cookie not in str(shown)
        assert refused(here.http.delete(f"/admin/sessions/{other_id}"), 404, "session_not_found")
        assert here.http.delete(f"/admin/sessions/{there_id}").status_code == 204
        assert there.http.get("/admin/session").status_code == 401
        assert other.http.get("/admin/session").status_code == 200


def test_a_session_ends_by_rest_and_by_age(gateway: QuietGateway):
    add_person(gateway, "ines")
    if not known(gateway, "nobody"):
        add_person(gateway, "nobody", Role.READER)
    for columns in ({"seen_at": 0}, {"expires_at": 1}):
        with Browser(gateway) as browser:
            browser.enter("ines")
            assert browser.http.get("/admin/session").status_code == 200
            end_of_time(gateway, **columns)
            assert refused(browser.http.get("/admin/session"), 401, "session_invalid")


def test_a_session_that_is_used_is_not_resting(gateway: QuietGateway):
    add_person(gateway, "jane")
    if not known(gateway, "nobody"):
        add_person(gateway, "nobody", Role.READER)
    with Browser(gateway) as browser:
        session_id = browser.enter("jane")["session_id"]
        wanted = select(PersonSession).where(PersonSession.id == session_id)
        with transaction(gateway.parts.sessions, write=False) as session:
            began = session.scalars(wanted).one().seen_at
        end_of_time(gateway, seen_at=began - 100_000)
        assert browser.http.get("/admin/session").status_code == 200
        with transaction(gateway.parts.sessions, write=False) as session:
            assert session.scalars(wanted).one().seen_at >= began


def test_roles_open_what_they_stand_for_and_a_session_no_path_of_programs(gateway: QuietGateway):
    opened = {
        Role.ADMIN: {"/admin/clients", "/admin/models", "/metrics", "/docs"},
        Role.OPERATOR: {"/admin/models", "/metrics", "/docs"},
        Role.AUDITOR: {"/admin/models", "/metrics", "/docs"},
        Role.READER: {"/metrics", "/docs"},
    }
    for role, pages in opened.items():
        add_person(gateway, f"kurt-{role}", role)
        with Browser(gateway) as browser:
            browser.enter(f"kurt-{role}")
            for path in ("/admin/clients", "/admin/models", "/metrics", "/docs"):
                assert browser.http.get(path).status_code == (200 if path in pages else 403), f"{role} {path}"
            for path in ("/v1/models", "/v2/models/m/ready", "/v1/jobs"):
                assert browser.http.get(path).status_code in (401, 404), path
            answer = browser.http.post("/v1/models/m:predict", json={"instances": [[1.0]]})
            assert answer.status_code == 401


def test_with_an_authorization_header_the_cookie_counts_for_nothing(gateway: QuietGateway):
    add_person(gateway, "lena")
    with Browser(gateway) as browser:
        browser.enter("lena")
        weak = gateway.headers("weak", [Scope.PREDICT])
        assert browser.http.get("/admin/clients", headers=weak).status_code == 403
        assert browser.http.get("/admin/clients", headers=bearer("nonsense")).status_code == 401
        assert browser.http.get("/metrics", headers=weak).status_code == 403


def test_two_session_cookies_are_none(gateway: QuietGateway):
    add_person(gateway, "mary")
    with Browser(gateway) as browser:
        browser.enter("mary")
        both = f"sluice-session={browser.cookie}; sluice-session={'B' * 43}"
        assert refused(gateway.http.get("/admin/session", headers={"cookie": both}), 401, "session_invalid")
        assert gateway.http.get("/admin/clients", headers={"cookie": both}).status_code == 401


def test_a_disabled_person_is_refused_within_a_second_by_session_and_token(gateway: QuietGateway):
    person = add_person(gateway, "nora")
    with Browser(gateway) as browser:
        browser.enter("nora")
        tokens = browser.http.post("/admin/session/tokens", json={"password": PASSWORD}).json()
        by_token = bearer(tokens["access_token"])
        assert gateway.http.get("/admin/clients", headers=by_token).status_code == 200
        # As on another gateway: this one's snapshot is not told.
        with transaction(gateway.parts.sessions) as session:
            people.set_disabled(session, people.get(session, person.id), True)
        eventually(lambda: browser.http.get("/admin/clients").status_code == 401)
        eventually(lambda: gateway.http.get("/admin/clients", headers=by_token).status_code == 401)
        assert refused(browser.try_to_sign_in("nora"), 401, "sign_in_failed")
        refreshed = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}
        assert gateway.http.post("/oauth/token", data=refreshed).status_code in (400, 401)


def test_tokens_for_tools_have_the_roles_scopes_and_want_the_password_again(gateway: QuietGateway):
    add_person(gateway, "otto", Role.OPERATOR)
    with Browser(gateway) as browser:
        browser.enter("otto")
        assert refused(browser.http.post("/admin/session/tokens", json={"password": OTHER}), 401, "sign_in_failed")
        answer = browser.http.post("/admin/session/tokens", json={"password": PASSWORD})
        assert answer.status_code == 200
        assert answer.json()["scope"] == "predict explain jobs:admin models:read models:write metrics:read"
        by_token = bearer(answer.json()["access_token"])
        assert gateway.http.get("/admin/models", headers=by_token).status_code == 200
        assert gateway.http.get("/admin/clients", headers=by_token).status_code == 403
        refreshed = {"grant_type": "refresh_token", "refresh_token": answer.json()["refresh_token"]}
        again = gateway.http.post("/oauth/token", data=refreshed)
        assert again.status_code == 200, again.text
        assert again.json()["refresh_token"] != answer.json()["refresh_token"]


def test_a_new_password_ends_every_session_but_the_one_that_asked(gateway: QuietGateway):
    add_person(gateway, "paul")
    with Browser(gateway) as here, Browser(gateway) as there:
        here.enter("paul")
        there.enter("paul")
        body = {"password": OTHER, "new_password": OTHER}
        assert refused(here.http.put("/admin/session/password", json=body), 401, "sign_in_failed")
        body = {"password": PASSWORD, "new_password": "short"}
        assert refused(here.http.put("/admin/session/password", json=body), 422, "password_invalid")
        before = here.cookie
        answer = here.http.put("/admin/session/password", json={"password": PASSWORD, "new_password": OTHER})
        assert answer.status_code == 200
        here.take_token(answer.json())
        assert here.cookie != before
        assert here.http.get("/admin/session").status_code == 200
        assert there.http.get("/admin/session").status_code == 401
        assert refused(there.try_to_sign_in("paul"), 401, "sign_in_failed")
        there.sign_in("paul", OTHER)


def test_a_person_has_a_bounded_number_of_sessions(gateway: QuietGateway):
    from auth import sessions
    from auth.sessions import MOST_OF_ONE_PERSON, Lifetimes

    person = add_person(gateway, "rosa")
    lifetimes = Lifetimes(600, 600)
    with transaction(gateway.parts.sessions) as session:
        for _ in range(MOST_OF_ONE_PERSON + 5):
            sessions.open_session_of(session, person, lifetimes, address="a", program="p")
        assert len(sessions.of_person(session, person.id, lifetimes)) == MOST_OF_ONE_PERSON


def test_a_session_is_kept_as_a_hash_only(gateway: QuietGateway):
    add_person(gateway, "sven")
    with Browser(gateway) as browser:
        browser.enter("sven")
        with transaction(gateway.parts.sessions, write=False) as session:
            rows = session.scalars(select(PersonSession)).all()
        assert rows
        assert all(browser.cookie not in (row.cookie_hash, row.id) for row in rows)


def test_without_rights_nobody_is_let_in_by_session(gateway: QuietGateway):
    assert refused(gateway.http.get("/admin/session"), 401, "session_invalid")
    broken = httpx.get(f"{gateway.http.base_url}/admin/session", headers={"cookie": "sluice-session=" + "x" * 5000})
    assert refused(broken, 401, "session_invalid")
