"""Where the Python client's credentials come from: one order, the same for programs and for commands."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from sluice import AsyncClient, Client, CredentialsInvalid
from sluice.credentials import Asker, chosen
from sluice.failures import CommandFailed
from sluice.logins import keep

ALL = {"SLUICE_URL": "http://given", "SLUICE_CLIENT_ID": "cli_given", "SLUICE_CLIENT_SECRET": "sls_given"}
ASKED = {"url": "SLUICE_URL", "client_id": "SLUICE_CLIENT_ID", "client_secret": "SLUICE_CLIENT_SECRET"}


def credentials(name: str) -> dict[str, str]:
    return {"base_url": f"http://{name}", "client_id": f"cli_{name}", "client_secret": f"sls_{name}"}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a demo and a named file, and a user with two logins."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "configuration"))
    for name in ("demo", "named"):
        (tmp_path / f"{name}.json").write_text(json.dumps(credentials(name)))
    (tmp_path / "sluice-data").mkdir()
    (tmp_path / "demo.json").rename(tmp_path / "sluice-data" / "demo.json")
    keep("default", credentials("login"))
    keep("other", credentials("profile"))
    return tmp_path


CASES: list[tuple[Mapping[str, str], str, str]] = [
    ({**ALL, "SLUICE_CREDENTIALS": "named.json", "SLUICE_PROFILE": "other"}, "http://given", "cli_given"),
    ({"SLUICE_CREDENTIALS": "named.json", "SLUICE_PROFILE": "other"}, "http://named", "cli_named"),
    ({"SLUICE_CREDENTIALS": "named.json", "SLUICE_URL": "http://given"}, "http://given", "cli_named"),
    ({"SLUICE_PROFILE": "other"}, "http://profile", "cli_profile"),
    ({}, "http://login", "cli_login"),
    ({"SLUICE_URL": ""}, "http://login", "cli_login"),
]


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(("environment", "url", "client_id"), CASES, ids=range(len(CASES)))
def test_the_first_that_says_who_asks_decides(environment: Mapping[str, str], url: str, client_id: str):
    for client in (Client, AsyncClient):
        made = client.from_environment(environment=environment)
        assert (made.base_url, made.client_id) == (url, client_id)
    # Commands come to the same.
    identity = chosen(
        Asker(
            **{name: environment.get(variable) or None for name, variable in ASKED.items()},
            credentials=Path(environment["SLUICE_CREDENTIALS"]) if "SLUICE_CREDENTIALS" in environment else None,
            profile=environment.get("SLUICE_PROFILE"),
        )
    )
    found = {} if identity.file is None else json.loads(identity.file.read_text())
    assert (identity.url or found["base_url"], identity.client_id or found["client_id"]) == (url, client_id)


def test_without_a_login_the_demo_is_asked_and_without_one_nobody(place: Path):
    (place / "configuration" / "sluice" / "logins" / "default.json").unlink()
    assert Client.from_environment(environment={}).client_id == "cli_demo"
    (place / "sluice-data" / "demo.json").unlink()
    with pytest.raises(CredentialsInvalid, match="nothing says who asks"):
        Client.from_environment(environment={})


@pytest.mark.usefixtures("place")
def test_a_secret_goes_to_no_other_address_than_its_own():
    with pytest.raises(CredentialsInvalid, match="SLUICE_CLIENT_ID and SLUICE_CLIENT_SECRET missing"):
        Client.from_environment(environment={"SLUICE_URL": "http://elsewhere"})
    with pytest.raises(CommandFailed, match="missing"):
        chosen(Asker(url="http://elsewhere"))


def test_a_login_that_others_can_read_is_refused(place: Path):
    (place / "configuration" / "sluice" / "logins" / "default.json").chmod(0o644)
    with pytest.raises(CredentialsInvalid, match="others can read"):
        Client.from_environment(environment={})
    with pytest.raises(CredentialsInvalid, match="nothing says who asks"):
        Client.from_environment(environment={"SLUICE_PROFILE": "nobody"})


def test_what_a_file_holds_is_not_shown(tmp_path: Path):
    file = tmp_path / "credentials.json"
    file.write_text('{"client_secret": "sls_secret",')
    with pytest.raises(CredentialsInvalid) as error:
        Client.from_file(file)
    assert "sls_secret" not in f"{error.value}{error.value.__cause__}"
    file.write_text(json.dumps(credentials("named")))
    made = Client.from_file(file, base_url="https://name:pass@sluice.example/", client_id="cli_other")
    assert repr(made) == "Client('https://sluice.example', 'cli_other')"
