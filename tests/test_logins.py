"""Who asks: what `sluice login` keeps, and which of several credentials a command uses."""

from __future__ import annotations

import json
import secrets
import stat
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from sluice.cli import app
from sluice.credentials import Asker, chosen
from sluice.failures import CommandFailed
from sluice.login_commands import address_to_keep
from sluice.logins import forget, keep, login_of, place_of, profiles
from tests.system import System

KEPT = {"base_url": "http://127.0.0.1:1", "client_id": "cli_kept", "client_secret": "sls_kept"}
ALL_PARTS = {"url": "http://127.0.0.1:2", "client_id": "cli_told", "client_secret": "sls_told"}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty configuration folder, and a working folder without a demo."""
    for name in ("URL", "CLIENT_ID", "CLIENT_SECRET", "CREDENTIALS", "PROFILE"):
        monkeypatch.delenv(f"SLUICE_{name}", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "configuration"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str, text: str = "", environment: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(app, arguments, input=text, env={"COLUMNS": "200", **(environment or {})})


def made(system: System) -> tuple[str, str]:
    """Id and secret of a new client."""
    with system.admin() as admin:
        found = admin.post("/admin/clients", {"name": f"t-{secrets.token_hex(4)}", "grants": [{"model": "nothing"}]})
    return found["id"], found["client_secret"]


def test_a_login_is_checked_kept_for_its_owner_only_used_and_forgotten(system: System, home: Path) -> None:
    # given a client whose secret comes by standard input
    client_id, secret = made(system)
    login = ("login", "--url", system.base_url, "--client-id", client_id, "--secret-stdin")

    # when the secret is wrong, nothing is kept
    refused = run(*login, text="sls_wrong\n")
    assert "nothing is kept" in str(refused.exception)
    assert profiles() == []

    # when it is right, a file that only its owner reads holds it, and no command prints it
    ended = run(*login, text=f"{secret}\n")
    assert ended.exit_code == 0, ended.exception
    place = place_of("default")
    assert place.is_relative_to(home / "configuration")
    assert (stat.S_IMODE(place.stat().st_mode), stat.S_IMODE(place.parent.stat().st_mode)) == (0o600, 0o700)
    assert json.loads(place.read_text()) == {
        "base_url": system.base_url, "client_id": client_id, "client_secret": secret,
    }  # fmt: skip
    said = run("whoami", "--json")
    assert secret not in ended.output + said.output
    assert json.loads(said.output)["client_id"] == client_id
    assert json.loads(said.output)["from"] == "the login default"
    assert "predict" in json.loads(said.output)["scopes"]

    # and afterwards nobody asks
    assert run("logout").exit_code == 0
    assert "sluice login" in str(run("whoami").exception)


def test_a_login_takes_over_a_file_of_credentials_under_a_name(system: System, home: Path) -> None:
    client_id, secret = made(system)
    file = home / "client.json"
    file.write_text(json.dumps({"base_url": system.base_url, "client_id": client_id, "client_secret": secret}))

    assert run("login", "--from", str(file), "--profile", "reading-room").exit_code == 0

    assert profiles() == ["reading-room"]
    assert json.loads(run("whoami", "--profile", "reading-room", "--json").output)["client_id"] == client_id
    by_variable = run("whoami", "--json", environment={"SLUICE_PROFILE": "reading-room"})
    assert json.loads(by_variable.output)["client_id"] == client_id
    assert "sluice login" in str(run("whoami").exception)


def test_without_a_terminal_a_login_asks_nothing(home: Path) -> None:
    assert "--url and --client-id missing" in str(run("login").exception)
    assert "--secret-stdin" in str(run("login", "--url", "http://127.0.0.1:1", "--client-id", "cli_a").exception)
    (home / "half.json").write_text('{"base_url": "http://127.0.0.1:1"}')
    assert "no client_id and no client_secret" in str(run("login", "--from", str(home / "half.json")).exception)


def test_a_login_that_others_can_read_is_not_used() -> None:
    keep("default", KEPT).chmod(0o644)

    with pytest.raises(CommandFailed, match="chmod 600"):
        login_of("default")


@pytest.mark.parametrize("name", ["", "../default", "a/b", ".hidden", "a" * 65, "a\n"])
def test_a_profile_is_named_without_leaving_its_folder(name: str) -> None:
    with pytest.raises(CommandFailed, match="no name of a profile"):
        place_of(name)
    assert not forget("nothing-else")


def test_the_first_that_says_who_asks_decides(home: Path) -> None:
    # given credentials in every place
    login, other, demo = keep("default", KEPT), keep("other", KEPT), Path("sluice-data/demo.json")
    demo.parent.mkdir()
    demo.write_text(json.dumps(KEPT))
    file = home / "file.json"

    # then options of the command come first, whatever variables say
    told = chosen(Asker(**ALL_PARTS, credentials=file, profile="other", typed=frozenset({"credentials"})))
    assert (told.file, told.url) == (file, None)
    told = chosen(Asker(**ALL_PARTS, credentials=file, profile="other", typed=frozenset({"profile", "url"})))
    assert (told.file, told.url, told.client_id) == (other, ALL_PARTS["url"], None)

    # then variables: a whole identity, a file with single parts over its own, a login by name
    assert chosen(Asker(**ALL_PARTS, credentials=file, profile="other")).client_id == "cli_told"
    told = chosen(Asker(url="http://127.0.0.1:2", credentials=file, profile="other"))
    assert (told.file, told.url) == (file, "http://127.0.0.1:2")
    assert chosen(Asker(profile="other")).file == other

    # then the login, then the demo
    assert chosen(Asker()).file == login
    forget("default")
    assert chosen(Asker()).file == demo
    demo.unlink()
    with pytest.raises(CommandFailed, match="SLUICE_CLIENT_SECRET"):
        chosen(Asker())


def test_no_secret_goes_where_only_an_address_was_given(home: Path) -> None:
    keep("default", KEPT)

    with pytest.raises(CommandFailed, match="--client-id and --client-secret missing"):
        chosen(Asker(url="http://127.0.0.1:2", typed=frozenset({"url"})))
    with pytest.raises(CommandFailed, match="give one of them"):
        chosen(Asker(credentials=home, profile="other", typed=frozenset({"credentials", "profile"})))
    with pytest.raises(CommandFailed, match="there is no login nobody"):
        chosen(Asker(profile="nobody"))


def test_an_address_is_kept_and_shown_without_a_password_and_said_to_be_in_clear(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert address_to_keep("http://me:hush@sluice.example/") == "http://sluice.example"
    assert "is not encrypted" in capsys.readouterr().err
    assert address_to_keep("http://me:hush@127.0.0.1:8080") == "http://127.0.0.1:8080"
    assert address_to_keep("https://me:hush@sluice.example") == "https://sluice.example"
    assert capsys.readouterr().err == ""


def test_no_secret_is_in_what_a_traceback_may_show() -> None:
    told = chosen(Asker(**ALL_PARTS))
    assert "sls_told" not in f"{told!r} {Asker(**ALL_PARTS)!r}"


def test_a_login_that_cannot_be_looked_at_is_no_reason_to_ask_as_somebody_else() -> None:
    # given a folder of logins that is a loop: a folder without rights would not stop the user who is root
    folder = place_of("default").parent
    folder.parent.mkdir(parents=True)
    folder.symlink_to(folder)

    with pytest.raises(CommandFailed, match="cannot look at the login"):
        login_of("default")
