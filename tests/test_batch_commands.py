"""`sluice batch …` against a gateway whose files nobody reads: their ends are written by hand."""

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
from auth.scopes import DEFAULT
from model_store.database import now_ms, transaction
from sluice.cli import app
from sluice.client import Unreachable
from tests.conftest import RedisServer
from tests.hazard import hazard
from tests.live_gateway import LiveGateway, live_gateway
from tests.rights_kit import serve
from workers.tables import Job


@pytest.fixture(scope="module")
def gateway(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGateway]:
    prefix = f"t{secrets.token_hex(4)}"
    with live_gateway(tmp_path_factory.mktemp("gateway"), redis_url=redis_server.url, key_prefix=prefix) as running:
        serve(running.parts, "double")
        yield running


class Shell:
    """The command as a client with files in a folder."""

    def __init__(self, url: str, login: tuple[str, str], folder: Path) -> None:
        self._who = {"SLUICE_URL": url, "SLUICE_CLIENT_ID": login[0], "SLUICE_CLIENT_SECRET": login[1]}
        self.login = login
        self.rows = folder / "rows.jsonl"
        self.rows.write_text("[1, 2]\n")

    def __call__(self, *arguments: str, fails: bool = False, data: bytes = b"", url: str | None = None) -> Result:
        who = self._who | ({} if url is None else {"SLUICE_URL": url})
        ended = CliRunner().invoke(app, arguments, env=who, input=data)
        assert (ended.exit_code != 0) is fails, (ended.output, ended.exception)
        return ended

    def submit(self, *options: str) -> str:
        return self("batch", "run", "double", str(self.rows), "--no-wait", *options).output.strip()


@pytest.fixture
def run(gateway: LiveGateway, tmp_path: Path) -> Shell:
    with transaction(gateway.parts.sessions) as session:
        made, secret = clients.create(session, f"c-{secrets.token_hex(4)}", DEFAULT, gateway.parts.settings.pepper)
        set_grants(session, made.id, [GrantSpec("double")])
    gateway.parts.snapshot.refresh()
    return Shell(gateway.url, (made.id, secret), tmp_path)


def test_a_job_that_failed_says_why_and_leaves_the_answers_that_there_are(
    gateway: LiveGateway, run: Shell, tmp_path: Path
):
    job, output = run.submit(), tmp_path / "answers.jsonl"
    output.write_text("of yesterday\n")
    dead = {"state": "failed", "error_code": "pixels_unsaid", "error_message": "say which", "finished_at": now_ms()}
    with transaction(gateway.parts.sessions) as session:
        session.execute(update(Job).where(Job.id == job).values(**dead))

    ended = run("batch", "attach", "--output", str(output), "--", job, fails=True)

    assert ended.exit_code == 1
    assert ended.stderr.splitlines()[-1] == "failed: pixels_unsaid: say which"
    assert ended.stdout == ""
    assert output.read_text() == "of yesterday\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["answers.jsonl", "rows.jsonl"]


def test_what_cannot_go_well_is_said_before_anything_is_uploaded(run: Shell, tmp_path: Path):
    tensor = tmp_path / "rows.npy"
    tensor.write_bytes(b"")
    beside = tmp_path / "rows.jsonl.answers.jsonl"
    beside.write_text("of yesterday\n")
    asked = ("batch", "run", "double")
    refused = [
        run(*asked, str(run.rows), "--output", str(tmp_path / "missing" / "answers.jsonl"), fails=True),
        run(*asked, str(run.rows), "--output", str(tmp_path), fails=True),
        run(*asked, str(run.rows), fails=True),
        run(*asked, str(tensor), fails=True),
        run(*asked, "-", "--output", str(tmp_path / "answers.jsonl"), fails=True),
        run(*asked, "-", "--format", "csv", fails=True),
        run("batch", "attach", "--output", str(tmp_path / "missing" / "answers.jsonl"), "unknown", fails=True),
    ]
    said = [str(ended.exception) for ended in refused]

    assert said[0] == f"cannot write {tmp_path}/missing/answers.jsonl: there is no folder {tmp_path}/missing"
    assert said[1] == f"cannot write {tmp_path}: it is a folder"
    assert "rows.jsonl.answers.jsonl exists already" in said[2]
    assert "--format" in said[3]
    assert "numpy.savez" in said[3]
    assert "--format" in said[4]
    assert "--output" in said[5]
    assert said[6].startswith("cannot write")
    assert str(run(*asked, str(tmp_path), fails=True).exception) == f"cannot read {tmp_path}: it is a folder"
    assert json.loads(run("jobs", "list", "--json").output) == []


def test_standard_input_is_a_file_as_well_and_submits_take_their_options(run: Shell):
    options = ("--idempotency-key", "order-7", "--deadline", "2099-12-31", "--max-attempts", "2")
    asked = ("batch", "run", "double", "-", "--format", "csv", "--no-wait", *options)
    jobs = {run(*asked, data=b"1,2\n3,4\n").output for _ in range(2)}
    assert len(jobs) == 1
    assert "another request" in str(run(*asked[:-1], "3", data=b"1,2\n3,4\n", fails=True).exception)

    body = b'{"inputs": [[1.0, 2.0]]}'
    asked = ("jobs", "submit", "double", "-", "--priority", "interactive", "--deadline", "60")
    job = run(*asked, "--idempotency-key", "order-8", data=body).output.strip()
    assert json.loads(run("jobs", "show", "--json", "--", job).output)["priority"] == "interactive"
    assert "lies in the past" in str(run(*asked[:-1], "0", data=body, fails=True).exception)
    assert "no grant" in str(run("jobs", "submit", "unknown", "--json", "-", data=body, fails=True).exception)


def test_what_is_no_file_or_has_not_ended_names_the_command_that_waits(run: Shell, tmp_path: Path):
    job = run("jobs", "submit", "double", "-", data=b'{"instances": [[1.0, 2.0]]}').output.strip()
    output = tmp_path / "answer.json"
    output.write_text("of yesterday")

    assert f"sluice jobs wait -- {job}" in str(run("batch", "attach", "--", job, fails=True).exception)
    early = run("jobs", "result", "--output", str(output), "--", job, fails=True)
    assert f"sluice jobs wait -- {job}" in str(early.exception)
    assert output.read_text() == "of yesterday"
    assert run("jobs", "result", "--partial", "--", run.submit()).output == ""
    assert "not both" in str(run("jobs", "delete", "--state", "failed", "--", job, fails=True).exception)
    assert "milliseconds since 1970" in str(run("events", "--since", "x", fails=True).exception)


def test_a_gateway_that_goes_away_is_waited_for_and_then_the_way_back_is_told(
    gateway: LiveGateway, run: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    # given a job that nobody hears of any more
    monkeypatch.setattr("sluice.patience.FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr("sluice.calls.AWAY_SECONDS", 2)
    monkeypatch.setattr("sluice.batch_commands.LOOK_SECONDS", 0)
    job, output = run.submit(), tmp_path / "answers.jsonl"
    for command, more in ((("batch", "attach", "--output", str(output)), ()), (("jobs", "wait"), ("--seconds", "0"))):
        with hazard(gateway, {b"wait=": 1000}) as way:
            # when it is followed
            ended = run(*command, *more, "--", job, fails=True, url=way.url)
            assert way.broken > 1

        # then it is asked for again, and what to do is said
        assert isinstance(ended.exception, Unreachable)
        assert ended.stderr.splitlines()[-1] == f"the job goes on; come back with: sluice {' '.join(command)} -- {job}"
