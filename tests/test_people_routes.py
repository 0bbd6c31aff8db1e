"""Administration of people: the first administrator, invitations, roles, and the last administrator who stays."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import update

from auth import one_time_tokens, people
from auth.one_time_tokens import Purpose
from auth.people_errors import LastAdministrator, OneTimeTokenInvalid
from auth.people_tables import OneTimeToken
from auth.roles import Role
from auth.scopes import Scope
from model_store.database import transaction
from tests.live_gateway import refused
from tests.people_kit import PASSWORD, Browser, add_person, hashed
from tests.quiet_gateway import QuietGateway, quiet_gateway

OTHER = "another horse battery"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QuietGateway]:
    with quiet_gateway(tmp_path_factory.mktemp("gateway")) as made:
        yield made


@pytest.fixture(scope="module")
def admin(gateway: QuietGateway) -> Iterator[Browser]:
    add_person(gateway, "root")
    with Browser(gateway) as browser:
        browser.enter("root")
        yield browser


def setup_token(gateway: QuietGateway) -> str:
    with transaction(gateway.parts.sessions) as session:
        return one_time_tokens.issue(session, Purpose.SETUP)[0]


def test_the_first_administrator_is_made_once_with_a_token_of_the_server_machine(tmp_path: Path):
    with quiet_gateway(tmp_path) as gateway, Browser(gateway) as browser:

        def set_up(token: str, name: str = "ada", password: str = PASSWORD) -> tuple[int, str]:
            answer = browser.http.post("/admin/setup", json={"token": token, "name": name, "password": password})
            return answer.status_code, answer.json().get("code", "")

        for nobody in ("admin", "root", "sluice", "administrator"):
            assert refused(browser.try_to_sign_in(nobody, nobody), 401, "sign_in_failed")
        assert set_up("slo_" + "A" * 43) == (403, "one_time_token_invalid")
        replaced, token = setup_token(gateway), setup_token(gateway)
        assert set_up(replaced) == (403, "one_time_token_invalid")
        assert set_up(token, password="short") == (422, "password_invalid")
        assert set_up(token, name="a b") == (422, "name_invalid")
        assert set_up(token) == (201, "")
        assert set_up(token, name="eve") == (403, "one_time_token_invalid")
        assert set_up(setup_token(gateway), name="eve") == (409, "administrator_exists")
        assert browser.sign_in("ada")["role"] == "admin"
        assert browser.http.get("/admin/people").json()["people"][0]["name"] == "ada"


def test_wrong_tokens_are_slowed_down_before_any_password_is_hashed(tmp_path: Path):
    with quiet_gateway(tmp_path) as gateway:
        body = {"token": "slo_wrong", "name": "ada", "password": PASSWORD}
        answers = [gateway.http.post("/admin/setup", json=body).status_code for _ in range(11)]
        assert answers == [403] * 10 + [429]


def test_a_token_expires_and_is_good_for_its_purpose_only(gateway: QuietGateway):
    with transaction(gateway.parts.sessions) as session:
        person = people.create(session, "tokens", hashed())
        token, _ = one_time_tokens.issue(session, Purpose.PASSWORD, person.id)
        with pytest.raises(OneTimeTokenInvalid):
            one_time_tokens.spend(session, token, Purpose.SETUP)
        assert one_time_tokens.look_up(session, token, Purpose.PASSWORD) == person.id
        session.execute(update(OneTimeToken).values(expires_at=1))
        with pytest.raises(OneTimeTokenInvalid):
            one_time_tokens.spend(session, token, Purpose.PASSWORD)


def test_whoever_is_invited_chooses_a_password_that_no_administrator_knows(gateway: QuietGateway, admin: Browser):
    made = admin.http.post("/admin/people", json={"name": "bella", "role": "auditor"})
    assert made.status_code == 201
    assert made.headers["cache-control"] == "no-store"
    assert not made.json()["has_password"]
    token = made.json()["password_token"]["token"]
    with Browser(gateway) as browser:
        for password in ("", PASSWORD):
            assert refused(browser.try_to_sign_in("bella", password), 401, "sign_in_failed")
        chosen = browser.http.post("/admin/password", json={"token": token, "password": PASSWORD})
        assert chosen.status_code == 204
        again = browser.http.post("/admin/password", json={"token": token, "password": OTHER})
        assert refused(again, 403, "one_time_token_invalid")
        assert browser.sign_in("bella")["role"] == "auditor"
        assert admin.http.get(made.headers["location"]).json()["has_password"]


def test_a_new_password_by_token_ends_the_sessions_before(gateway: QuietGateway, admin: Browser):
    person = add_person(gateway, "chris", Role.OPERATOR)
    with Browser(gateway) as browser:
        browser.enter("chris")
        token = admin.http.post(f"/admin/people/{person.id}/password-token").json()["token"]
        assert browser.http.get("/admin/session").status_code == 200, "the password so far stays good until then"
        browser.http.post("/admin/password", json={"token": token, "password": OTHER})
        assert browser.http.get("/admin/session").status_code == 401
        browser.sign_in("chris", OTHER)


def test_a_change_of_role_counts_at_once_and_ends_sessions(gateway: QuietGateway, admin: Browser):
    person = add_person(gateway, "doris", Role.READER)
    with Browser(gateway) as browser:
        browser.enter("doris")
        answer = admin.http.put(f"/admin/people/{person.id}", json={"role": "operator"})
        assert (answer.status_code, answer.json()["role"]) == (200, "operator")
        assert browser.http.get("/admin/session").status_code == 401
        browser.sign_in("doris")
        assert browser.http.get("/admin/models").status_code == 200
        assert refused(admin.http.put(f"/admin/people/{person.id}", json={"scopes": []}), 422, "request_invalid")
        assert refused(admin.http.put(f"/admin/people/{person.id}", json={"role": "god"}), 422, "request_invalid")


def test_an_administrator_sees_and_ends_the_sessions_of_others(gateway: QuietGateway, admin: Browser):
    person = add_person(gateway, "emil", Role.READER)
    with Browser(gateway) as browser:
        session_id = browser.enter("emil")["session_id"]
        shown = admin.http.get(f"/admin/people/{person.id}/sessions").json()["sessions"]
        assert [row["session_id"] for row in shown] == [session_id]
        assert admin.http.delete(f"/admin/people/{person.id}/sessions").status_code == 204
        assert browser.http.get("/admin/session").status_code == 401


def test_the_last_administrator_who_can_sign_in_stays(gateway: QuietGateway, admin: Browser):
    root = admin.http.get("/admin/session").json()["person_id"]
    # Neither somebody who is disabled nor somebody without a password counts.
    disabled = add_person(gateway, "gone")
    admin.http.put(f"/admin/people/{disabled.id}", json={"disabled": True})
    admin.http.post("/admin/people", json={"name": "invited", "role": "admin"})
    for change in ({"disabled": True}, {"role": "reader"}):
        assert refused(admin.http.put(f"/admin/people/{root}", json=change), 409, "last_administrator")
    assert refused(admin.http.delete(f"/admin/people/{root}"), 409, "last_administrator")
    with transaction(gateway.parts.sessions) as session, pytest.raises(LastAdministrator):
        people.set_disabled(session, people.get(session, root), True)
    assert admin.http.get("/admin/session").status_code == 200


def test_a_deleted_person_is_gone_and_the_name_is_free(gateway: QuietGateway, admin: Browser):
    person = add_person(gateway, "fred", Role.READER)
    with Browser(gateway) as browser:
        browser.enter("fred")
        assert admin.http.delete(f"/admin/people/{person.id}").status_code == 204
        assert browser.http.get("/admin/session").status_code == 401
        assert refused(admin.http.get(f"/admin/people/{person.id}"), 404, "person_not_found")
        assert add_person(gateway, "fred", Role.READER).id != person.id


def test_people_are_listed_in_pages_without_their_secrets(gateway: QuietGateway, admin: Browser):
    for number in range(3):
        add_person(gateway, f"list-{number}", Role.READER)
    seen: list[str] = []
    token: str | None = ""
    for _ in itertools.count():
        page = admin.http.get("/admin/people", params={"limit": 2, **({"page_token": token} if token else {})}).json()
        seen += [person["name"] for person in page["people"]]
        assert "argon2" not in str(page)
        token = page["next_page_token"]
        if token is None:
            break
    assert seen == sorted(seen)
    assert {"root", "list-0", "list-1", "list-2"} <= set(seen)


def test_only_administrators_administer_people(gateway: QuietGateway, admin: Browser):
    person = add_person(gateway, "gwen", Role.OPERATOR)
    with Browser(gateway) as browser:
        browser.enter("gwen")
        asked = [
            browser.http.get("/admin/people"),
            browser.http.post("/admin/people", json={"name": "x", "role": "admin"}),
            browser.http.put(f"/admin/people/{person.id}", json={"role": "admin"}),
            browser.http.post(f"/admin/people/{person.id}/password-token"),
            browser.http.get(f"/admin/people/{person.id}/sessions"),
        ]
        assert all(refused(answer, 403, "insufficient_scope") for answer in asked)
    machine = gateway.headers("machine", [Scope.CLIENTS_ADMIN])
    assert gateway.http.get("/admin/people", headers=machine).status_code == 200
    for unknown in ("usr_nobody", "usr_%C3%A9", "usr_" + "x" * 300):
        assert refused(admin.http.get(f"/admin/people/{unknown}"), 404, "person_not_found")
