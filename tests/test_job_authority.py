"""By what a job was let in: that grant and that token are asked for again when it comes up."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from sqlalchemy import select, update

from auth import clients, revocations
from auth.grants import GrantSpec, set_grants
from auth.scopes import Scope
from auth.standing import Standing
from auth.token_tables import RevokedToken
from model_store import registry
from model_store.database import clock_ms, transaction
from tests.conftest import RedisServer
from tests.live_gateway import LiveGateway, live_gateway
from tests.rights_kit import serve
from workers import jobs
from workers.tables import Job

BODY = {"instances": [[1.0, 2.0]]}


class Team:
    """A client with a token, and what became of its jobs."""

    def __init__(self, gateway: LiveGateway, name: str, *grants: GrantSpec) -> None:
        self.gateway = gateway
        with transaction(gateway.parts.sessions) as session:
            scopes, pepper = [Scope.PREDICT, Scope.JOBS], gateway.parts.settings.pepper
            made, self.secret = clients.create(session, name, scopes, pepper)
            set_grants(session, made.id, grants)
            self.id = made.id
        gateway.parts.snapshot.refresh()
        self.token = self.new_token()

    def new_token(self) -> str:
        form = {"grant_type": "client_credentials"}
        answer = httpx.post(f"{self.gateway.url}/oauth/token", data=form, auth=(self.id, self.secret))
        return str(answer.raise_for_status().json()["access_token"])

    def submit(self, path: str) -> str:
        headers = {"authorization": f"Bearer {self.token}"}
        answer = httpx.post(f"{self.gateway.url}/v1/models/{path}:submit", json=BODY, headers=headers)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def claim(self, job_id: str, model: str, version: int) -> str:
        """`running`, or why the job was canceled."""
        with transaction(self.gateway.parts.sessions) as session:
            number = session.scalars(select(Job.number).where(Job.id == job_id)).one()
            jobs.claim(session, [number], (model, version), "default:w", Standing())
        with transaction(self.gateway.parts.sessions, write=False) as session:
            job = session.scalars(select(Job).where(Job.id == job_id)).one()
            return job.error_code or job.state


@pytest.fixture(scope="module")
def gateway(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGateway]:
    folder: Path = tmp_path_factory.mktemp("authority")
    with live_gateway(folder, redis_url=redis_server.url, key_prefix="authority") as made:
        serve(made.parts, "digit", 2)
        yield made


def point(gateway: LiveGateway, version: int) -> None:
    with transaction(gateway.parts.sessions) as session:
        registry.set_label(session, "digit", "stable", version)
    gateway.parts.snapshot.refresh()


def test_a_job_let_in_by_a_label_runs_on_its_version_wherever_the_label_points_later(gateway: LiveGateway):
    point(gateway, 1)
    team = Team(gateway, "labelled", GrantSpec("digit", label="stable"))
    job = team.submit("digit/labels/stable")
    point(gateway, 2)
    assert team.claim(job, "digit", 1) == "running"


def test_without_the_grant_that_let_it_in_it_does_not_run(gateway: LiveGateway):
    point(gateway, 1)
    team = Team(gateway, "withdrawn", GrantSpec("digit", label="stable"), GrantSpec("digit", version=2))
    job = team.submit("digit/labels/stable")
    with transaction(gateway.parts.sessions) as session:
        set_grants(session, team.id, [GrantSpec("digit", version=2)])
    assert team.claim(job, "digit", 1) == "grant_withdrawn"


def test_another_grant_that_covers_it_is_as_good(gateway: LiveGateway):
    point(gateway, 1)
    team = Team(gateway, "another", GrantSpec("digit", label="stable"))
    job = team.submit("digit/labels/stable")
    with transaction(gateway.parts.sessions) as session:
        set_grants(session, team.id, [GrantSpec("dig*")])
    assert team.claim(job, "digit", 1) == "running"


def test_a_job_of_a_revoked_token_does_not_run(gateway: LiveGateway):
    team = Team(gateway, "revoked", GrantSpec("digit"))
    stays, goes = team.submit("digit/versions/1"), team.token
    team.token = team.new_token()
    other = team.submit("digit/versions/1")
    httpx.post(f"{gateway.url}/oauth/revoke", data={"token": goes}, auth=(team.id, team.secret)).raise_for_status()
    assert team.claim(stays, "digit", 1) == "token_revoked"
    assert team.claim(other, "digit", 1) == "running"


def test_a_job_does_not_run_either_that_waited_until_its_revoked_token_had_expired(gateway: LiveGateway):
    team = Team(gateway, "waited", GrantSpec("digit"))
    job = team.submit("digit/versions/1")
    form, own = {"token": team.token}, (team.id, team.secret)
    httpx.post(f"{gateway.url}/oauth/revoke", data=form, auth=own).raise_for_status()
    with transaction(gateway.parts.sessions) as session:
        session.execute(update(RevokedToken).values(expires_at=clock_ms(session) - 3_600_000))
        # Which forgets those that are old enough.
        revocations.revoke(session, "another", team.id, clock_ms(session) // 1000)
    assert team.claim(job, "digit", 1) == "token_revoked"


def test_jobs_from_before_a_rotated_secret_do_not_run_but_where_its_tokens_were_kept(gateway: LiveGateway):
    pepper = gateway.parts.settings.pepper
    for keep, ended in ((False, "token_revoked"), (True, "running")):
        team = Team(gateway, f"rotated-{keep}", GrantSpec("digit"))
        job = team.submit("digit/versions/1")
        with transaction(gateway.parts.sessions) as session:
            clients.rotate_secret(session, team.id, pepper, keep_tokens=keep)
        assert team.claim(job, "digit", 1) == ended


@pytest.mark.parametrize("verb", ["predict", "submit"])
def test_a_body_that_comes_after_its_client_was_disabled_is_refused(gateway: LiveGateway, verb: str):
    team = Team(gateway, f"slow-{verb}", GrantSpec("digit"))
    body, address = json.dumps(BODY).encode(), urlsplit(gateway.url)
    head = f"POST /v1/models/digit:{verb} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {team.token}\r\n"
    with socket.create_connection((address.hostname, address.port), timeout=20) as connection:
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body[:-1])
        # Answered after what was sent before: the gateway waits for the last byte by then.
        httpx.get(f"{gateway.url}/health/live").raise_for_status()
        with transaction(gateway.parts.sessions) as session:
            clients.set_disabled(session, team.id, True)
        gateway.parts.snapshot.refresh()
        connection.sendall(body[-1:])
        assert connection.recv(65_536).startswith(b"HTTP/1.1 401 ")
