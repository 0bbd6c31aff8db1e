"""People try models: with what a page sends for somebody who is signed in, and under what their role stands for."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select, text

from auth import clients, people, refresh_tokens, revocations
from auth.audit_tables import AuditEntry
from auth.roles import Role, scopes_of
from auth.scopes import Scope
from auth.sessions import MOST_OF_ONE_PERSON, TOKEN_SECONDS
from auth.standing import Standing
from model_store.database import transaction
from tests.conftest import RedisServer
from tests.live_gateway import LiveGateway, eventually, live_gateway, refused
from tests.people_kit import PASSWORD, Browser, add_person, hashed
from tests.processes import Cluster
from tests.quiet_gateway import QuietGateway, bearer, quiet_gateway
from tests.rights_kit import serve, token
from tests.test_model_interfaces import examples
from workers import jobs
from workers.tables import Job

PAGE_TOKEN = "/admin/session/page-token"
BODY = {"instances": [[1.0, 2.0]]}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QuietGateway]:
    with quiet_gateway(tmp_path_factory.mktemp("gateway")) as running:
        serve(running.parts, "line")
        yield running


@pytest.fixture(scope="module")
def queueing(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGateway]:
    """A gateway whose jobs nobody runs."""
    folder = tmp_path_factory.mktemp("queueing")
    with live_gateway(folder, redis_url=redis_server.url, key_prefix="people-jobs") as made:
        serve(made.parts, "line")
        yield made


def page_token(browser: Browser) -> dict[str, str]:
    """The header that the page sends with what it asks of models."""
    answer = browser.http.post(PAGE_TOKEN)
    assert answer.status_code == 200, answer.text
    return bearer(answer.json()["access_token"])


def test_a_person_who_is_signed_in_chooses_a_model_and_sends_its_examples(serving: Cluster):
    # given an operator with a session, and what the page asks before anything is tried
    with transaction(serving.sessions) as session:
        people.create(session, "peter", hashed(), Role.OPERATOR)
    with httpx.Client(base_url=serving.gateways[0], timeout=60) as http:
        body = {"name": "peter", "password": PASSWORD}
        eventually(lambda: http.post("/admin/session", json=body).is_success and http.get("/admin/session").is_success)
        unforged = {"x-csrf-token": http.get("/admin/session").json()["csrf_token"]}

        # when the session asks for a token without its own mark, or from another site's page, it gets none
        assert refused(http.post(PAGE_TOKEN), 403, "request_forged")
        elsewhere = {**unforged, "origin": "https://elsewhere.example", "sec-fetch-site": "cross-site"}
        assert refused(http.post(PAGE_TOKEN, headers=elsewhere), 403, "request_forged")

        # when it asks as the page does, the token reads the model's description and sends every example in it
        given = http.post(PAGE_TOKEN, headers=unforged)
        assert given.headers["cache-control"] == "no-store"
        assert given.json()["scope"] == "predict explain models:read"
        assert given.json()["expires_in"] == TOKEN_SECONDS
        by_token = bearer(given.json()["access_token"])
        assert "times" in http.get("/v1/models", headers=by_token).json()["models"]
        described: dict[str, Any] = http.get("/v1/models/times/openapi.json", headers=by_token).json()
        asked = examples(described)
        assert {"/v1/models/times:predict", "/v1/models/times:explain", "/v2/models/times/infer"} <= asked.keys()
        for address, example in asked.items():
            done = http.post(address, json=example, headers=by_token)
            assert done.status_code == (202 if address.endswith(":submit") else 200), (address, done.text)
            dry = http.post(address, json=example, headers=by_token, params={"validate_only": "true"})
            assert (dry.status_code, dry.json()["valid"]) == (200, True)
        job = http.post("/v1/models/times:submit", json=BODY, headers=by_token).json()["id"]
        eventually(lambda: http.get(f"/v1/jobs/{job}/result", headers=by_token).status_code == 200)
        result = http.get(f"/v1/jobs/{job}/result", headers=by_token)
        assert result.json()["predictions"] == [[3.0, 6.0]]

        # then the cookie alone still predicts nothing, with its mark or without
        for headers in ({}, unforged):
            assert http.post("/v1/models/times:predict", json=BODY, headers=headers).status_code == 401
        # and a model that does not exist is answered as for clients
        assert http.post("/v1/models/nosuch:predict", json=BODY, headers=by_token).status_code == 404


@pytest.mark.parametrize("role", [Role.AUDITOR, Role.READER])
def test_who_only_looks_gets_no_token_and_predicts_with_none(gateway: QuietGateway, role: Role):
    person = add_person(gateway, f"looks-{role}", role)
    with Browser(gateway) as browser:
        browser.enter(f"looks-{role}")
        assert refused(browser.http.post(PAGE_TOKEN), 403, "insufficient_scope")
    # Whatever a token says: what counts is what the role stands for now.
    own = token(gateway.parts, person.id, {Scope.PREDICT, Scope.METRICS_READ})
    answer = gateway.http.post("/v1/models/line:predict", json=BODY, headers=own)
    assert answer.status_code == 403
    assert 'error="insufficient_scope"' in answer.headers["www-authenticate"]


def test_a_page_s_token_is_for_models_alone_and_every_one_is_written_down(gateway: QuietGateway):
    person = add_person(gateway, "iris", Role.ADMIN)
    with Browser(gateway) as browser:
        browser.enter("iris")
        by_token = page_token(browser)
    for path in ("/admin/clients", "/admin/audit", "/metrics", "/admin/session", "/v1/webhooks"):
        assert gateway.http.get(path, headers=by_token).status_code in (401, 403), path
    assert gateway.http.get("/v1/models", headers=by_token).json()["models"] == ["line"]
    with transaction(gateway.parts.sessions, write=False) as session:
        found = session.scalars(select(AuditEntry.identity).where(AuditEntry.act == "issue_page_token")).all()
    assert person.id in found


def test_the_end_of_a_session_is_the_end_of_its_tokens(gateway: QuietGateway):
    add_person(gateway, "jonas", Role.OPERATOR)
    with Browser(gateway) as here, Browser(gateway) as there:
        here.enter("jonas")
        other_id = there.enter("jonas")["session_id"]
        first, second, elsewhere = page_token(here), page_token(here), page_token(there)

        def works(header: dict[str, str]) -> bool:
            return gateway.http.get("/v1/models", headers=header).status_code == 200

        # Signing out at one place ends what was given there, and nothing elsewhere.
        assert works(first)
        assert here.http.delete("/admin/session").status_code == 204
        assert not works(first)
        assert not works(second)
        assert works(elsewhere)
        # Ended from a list, and by signing in anew in the same browser.
        here.enter("jonas")
        third = page_token(here)
        assert here.http.delete(f"/admin/sessions/{other_id}").status_code == 204
        assert not works(elsewhere)
        assert here.try_to_sign_in("jonas").status_code == 201
        assert not works(third)
        # And one token alone can be taken back.
        fourth, fifth = page_token(here), page_token(here)
        form = {"client_id": "sluice-console", "token": fourth["authorization"].removeprefix("Bearer ")}
        assert gateway.http.post("/oauth/revoke", data=form).status_code == 200
        assert not works(fourth)
        assert works(fifth)


def test_whoever_has_too_many_sessions_loses_the_tokens_of_the_oldest(gateway: QuietGateway):
    add_person(gateway, "karla", Role.OPERATOR)
    with Browser(gateway) as oldest, Browser(gateway) as newer:
        oldest.enter("karla")
        by_token = page_token(oldest)
        for _ in range(MOST_OF_ONE_PERSON):
            newer.enter("karla")
        gateway.parts.snapshot.refresh()
        assert gateway.http.get("/v1/models", headers=by_token).status_code == 401


def test_who_ends_more_sessions_than_are_remembered_loses_all_tokens(
    gateway: QuietGateway, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(revocations, "MOST_OF_ONE_IDENTITY", 1)
    add_person(gateway, "lotte", Role.OPERATOR)
    with Browser(gateway) as one, Browser(gateway) as other, Browser(gateway) as kept:
        for browser in (one, other, kept):
            browser.enter("lotte")
        tokens = [page_token(browser) for browser in (one, other, kept)]
        assert one.http.delete("/admin/session").status_code == 204
        assert gateway.http.get("/v1/models", headers=tokens[2]).status_code == 200
        assert other.http.delete("/admin/session").status_code == 204
        assert [gateway.http.get("/v1/models", headers=token).status_code for token in tokens] == [401, 401, 401]


def test_who_takes_back_more_tokens_than_are_remembered_loses_all(
    gateway: QuietGateway, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(revocations, "MOST_OF_ONE_IDENTITY", 1)
    add_person(gateway, "quirin", Role.OPERATOR)
    with Browser(gateway) as browser:
        browser.enter("quirin")
        tokens = [page_token(browser) for _ in range(3)]
    for number, left in enumerate([[401, 200, 200], [401, 401, 401]]):
        form = {"client_id": "sluice-console", "token": tokens[number]["authorization"].removeprefix("Bearer ")}
        assert gateway.http.post("/oauth/revoke", data=form).status_code == 200
        assert [gateway.http.get("/v1/models", headers=token).status_code for token in tokens] == left


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_token_asked_for_while_everything_of_a_person_ends_ends_with_it(database_url: str, tmp_path: Path):
    with (
        quiet_gateway(tmp_path, database_url=database_url) as running,
        Browser(running) as browser,
        ThreadPoolExecutor(1) as threads,
    ):
        person = add_person(running, "rosa", Role.OPERATOR)
        browser.enter("rosa")
        # A new password at another gateway: its moment is taken, its transaction not at its end.
        with transaction(running.parts.sessions) as session:
            people.set_password(session, people.get(session, person.id), "other")
            asked = threads.submit(browser.http.post, PAGE_TOKEN)
            eventually(lambda: asked.done() or waits_for_a_lock(running))
        assert refused(asked.result(), 401, "session_invalid")


def waits_for_a_lock(running: QuietGateway) -> bool:
    # In a transaction of its own each time: of all of one, PostgreSQL shows the moment of the first look.
    with transaction(running.parts.sessions) as session:
        here = text("SELECT wait_event_type FROM pg_stat_activity WHERE datname = current_database()")
        return "Lock" in session.scalars(here).all()


def test_a_second_factor_that_is_due_comes_before_any_token(tmp_path: Path):
    with quiet_gateway(tmp_path, second_factor="everybody") as strict, Browser(strict) as browser:
        add_person(strict, "mona", Role.OPERATOR)
        browser.enter("mona")
        assert refused(browser.http.post(PAGE_TOKEN), 403, "second_factor_required")
        given = {"name": "mona", "password": PASSWORD}
        assert refused(strict.http.post("/admin/tokens", json=given), 403, "second_factor_required")


def test_a_person_has_bounds_that_a_program_would_meet(queueing: LiveGateway):
    by_token = tokens_of(queueing, "nils")
    dry = {"validate_only": "true"}
    with httpx.Client(base_url=queueing.url, headers=by_token, timeout=30) as http:
        for _ in range(2000):
            answer = http.post("/v1/models/line:predict", json=BODY, params=dry)
            if answer.status_code == 429:
                break
            assert answer.status_code == 200, answer.text
        assert answer.status_code == 429
        assert int(answer.headers["retry-after"]) >= 1


def test_nobody_signs_a_person_s_webhook(queueing: LiveGateway):
    by_token = tokens_of(queueing, "otis")
    with httpx.Client(base_url=queueing.url, headers=by_token, timeout=30) as http:
        asked = {"sluice-webhook": "https://receiver.example/end"}
        answer = http.post("/v1/models/line:submit", json=BODY, headers=asked)
        assert answer.status_code == 422
        assert "webhooks are for clients" in answer.text


LOST = {
    "disabled": (lambda session, person: people.set_disabled(session, person, True), "client_disabled"),
    "demoted": (lambda session, person: people.set_role(session, person, Role.AUDITOR), "grant_withdrawn"),
    "deleted": (people.delete, "client_deleted"),
    "password": (lambda session, person: people.set_password(session, person, "other"), "token_revoked"),
    "signed out": (None, "token_revoked"),
    "nothing": (lambda _session, _person: None, "running"),
}


@pytest.mark.parametrize("lost", LOST)
def test_a_job_of_a_person_runs_only_while_they_may(queueing: LiveGateway, lost: str):
    # given a job that waits, of a sign-in; or of a page, whose session a new password ends by its moment alone
    name = f"job-{lost.replace(' ', '-')}"
    by_token = tokens_of(queueing, name, "ses_of-a-page" if lost == "password" else None)
    submitted = httpx.post(f"{queueing.url}/v1/models/line:submit", json=BODY, headers=by_token)
    assert submitted.status_code == 202, submitted.text

    # when something is taken from the person
    take_away, code = LOST[lost]
    if take_away is None:
        form = {"client_id": "sluice-console", "token": by_token["authorization"].removeprefix("Bearer ")}
        assert httpx.post(f"{queueing.url}/oauth/revoke", data=form).status_code == 200
    else:
        with transaction(queueing.parts.sessions) as session:
            take_away(session, people.named(session, name))

    # then a worker that claims the job is told so
    with transaction(queueing.parts.sessions) as session:
        number = session.scalars(select(Job.number).where(Job.id == submitted.json()["id"])).one()
        jobs.claim(session, [number], ("line", 1), "default:w", Standing())
    with transaction(queueing.parts.sessions, write=False) as session:
        job = session.scalars(select(Job).where(Job.number == number)).one()
        assert (job.error_code or job.state) == code


def tokens_of(gateway: LiveGateway, name: str, family: str | None = None) -> dict[str, str]:
    """The Authorization header of a new operator, as of somebody who signed in from a command line."""
    with transaction(gateway.parts.sessions) as session:
        person = people.create(session, name, role=Role.OPERATOR)
        family = family or refresh_tokens.issue(session, person.id, scopes_of(Role.OPERATOR)).family
        issued_at = clients.issue_moment(session, person.tokens_not_before)
    gateway.parts.snapshot.refresh()
    scopes = scopes_of(Role.OPERATOR)
    return bearer(gateway.parts.issuer.issue(person.id, scopes, issued_at=issued_at, family=family)[0])
