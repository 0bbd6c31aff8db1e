"""`sluice jobs …` and `sluice dead-letters …` against a running system."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import update
from typer.testing import CliRunner, Result

from auth import clients
from auth.grants import GrantSpec, set_grants
from auth.scopes import Scope
from model_store.database import now_ms, transaction
from sluice.cli import app
from sluice.client import Client, Refused
from tests.processes import PEPPER, Cluster, wait_for
from workers.tables import Job


class Shell:
    """The command as a client that may predict and look after everybody's jobs."""

    def __init__(self, url: str, client_id: str, secret: str) -> None:
        self._who = {"SLUICE_URL": url, "SLUICE_CLIENT_ID": client_id, "SLUICE_CLIENT_SECRET": secret}
        self.client_id = client_id
        self.sluice = Client(url, client_id, secret)

    def __call__(self, *arguments: str, fails: bool = False) -> Result:
        ended = CliRunner().invoke(app, arguments, env={**self._who, "COLUMNS": "200"})
        assert (ended.exit_code != 0) is fails, (ended.output, ended.exception)
        return ended

    def submit(self) -> str:
        return self.sluice.submit("double", [[1.0, 2.0]]).id


@pytest.fixture
def run(serving: Cluster) -> Iterator[Shell]:
    with transaction(serving.sessions) as session:
        scopes = [Scope.PREDICT, Scope.JOBS_ADMIN]
        made, secret = clients.create(session, f"c-{secrets.token_hex(4)}", scopes, PEPPER.encode())
        set_grants(session, made.id, [GrantSpec("double")])
    shell = Shell(serving.gateways[0], made.id, secret)
    wait_for(lambda: permitted(shell), 10)
    yield shell
    shell.sluice.close()


def permitted(shell: Shell) -> bool:
    """Whether the gateway has heard of the client."""
    try:
        shell.sluice.predict("double", [[1.0, 2.0]])
    except Refused:
        return False
    return True


def test_a_job_is_listed_looked_at_awaited_fetched_and_deleted(run: Shell, tmp_path: Path):
    job = run.submit()
    assert json.loads(run("jobs", "wait", job, "--seconds", "30", "--json").output)["predictions"] == [[2.0, 4.0]]
    assert [found["id"] for found in json.loads(run("jobs", "list", "--state", "succeeded", "--json").output)] == [job]
    assert run.client_id in run("jobs", "list", "--all").output
    assert "client" not in run("jobs", "list").output
    assert json.loads(run("jobs", "show", job, "--json").output)["state"] == "succeeded"
    assert run("jobs", "result", job).output == '{"predictions":[[2.0,4.0]]}'
    run("jobs", "result", job, "--output", str(tmp_path / "answer.json"))
    assert (tmp_path / "answer.json").read_text() == '{"predictions":[[2.0,4.0]]}'
    assert "already" in str(run("jobs", "cancel", job, fails=True).exception)
    assert "choose by" in str(run("jobs", "delete", fails=True).exception)
    assert run("jobs", "delete", "--state", "succeeded").output == "1 job is deleted\n"
    assert "no such job" in str(run("jobs", "show", job, fails=True).exception)


def test_dead_letters_are_replayed_and_purged(run: Shell, serving: Cluster):
    one, other = run.submit(), run.submit()
    for job in (one, other):
        run("jobs", "wait", job)
    dead = {"state": "failed", "dead": True, "error_code": "worker_crashed", "finished_at": now_ms()}
    with transaction(serving.sessions) as session:
        session.execute(update(Job).where(Job.id.in_((one, other))).values(**dead))
    chosen = ("--error", "worker_crashed", "--model", "double", "--client", run.client_id)
    assert {found["id"] for found in json.loads(run("dead-letters", "list", *chosen, "--json").output)} == {one, other}
    assert json.loads(run("dead-letters", "show", one, "--json").output)["dead_letter"] is True
    again = run("jobs", "replay", one).output.split()[-1]
    assert json.loads(run("jobs", "wait", again, "--json").output)["replay_of"] == one
    assert "already" in str(run("dead-letters", "replay", one, fails=True).exception)
    assert run("dead-letters", "replay", *chosen).output == "1 is tried again\n"
    assert "--every" in str(run("dead-letters", "purge", fails=True).exception)
    assert run("dead-letters", "purge", one).output == f"{one} is deleted\n"
    assert run("dead-letters", "purge", *chosen).output == "1 is deleted\n"
