"""`sluice keys` on the machine that has the database, and secrets that a key service's command prints."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from pydantic import ValidationError

from auth.settings import AuthSettings
from model_store.sealing import SealingKeys
from sluice.moments import read_moment
from tests.command_line import sluice, started, succeed
from tests.processes import wait_for
from tests.system import plain_environment


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    made = {
        **plain_environment(),
        "SLUICE_CLIENT_SECRET_KEY": "k" * 32,
        "SLUICE_MASTER_KEY": "m" * 43,
        "SLUICE_DATABASE_URL": f"sqlite:///{tmp_path}/sluice.db",
    }
    succeed("migrate", environment=made)
    return made


def states(environment: dict[str, str]) -> list[str]:
    lines = succeed("keys", "list", environment=environment).splitlines()
    return [state for line in lines for state in ("published", "signing", "retiring", "ended") if state in line]


def test_keys_are_rotated_withdrawn_and_sealed_again(environment: dict[str, str]):
    first = succeed("keys", "rotate", "--compromised", environment=environment).split()[0]
    # It signs as soon as every gateway has heard of it.
    wait_for(lambda: states(environment) == ["signing"], 20)
    second = succeed("keys", "rotate", environment=environment).split()[0]
    assert states(environment) == ["published", "retiring"]
    succeed("keys", "withdraw", second, environment=environment)
    assert states(environment) == ["ended", "signing"]
    refused = sluice("keys", "withdraw", first, environment=environment)
    assert (refused.returncode, "only key" in refused.stderr) == (1, True)

    new = succeed("keys", "new-master", environment=environment).strip()
    both = {**environment, "SLUICE_MASTER_KEY": f"{new} {'m' * 43}"}
    assert "2 signing keys, 0 second factors and 0 webhook secrets" in succeed("keys", "reseal", environment=both)
    assert "0 signing keys" in succeed("keys", "reseal", environment={**environment, "SLUICE_MASTER_KEY": new})


def test_the_list_says_which_keys_this_master_key_made(environment: dict[str, str]):
    succeed("keys", "rotate", environment=environment)
    other = {**environment, "SLUICE_MASTER_KEY": "o" * 43}
    assert "this one" in succeed("keys", "list", environment=environment)
    assert "another" in succeed("keys", "list", environment=other)
    assert "--master-key-lost" in sluice("keys", "rotate", environment=other).stderr
    succeed("keys", "rotate", "--master-key-lost", environment=other)


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("sqlite:///none.db", "no database at none.db"),
        ("sqlite:///empty.db", "sluice migrate"),
        ("mysql://a/b", "neither"),
    ],
)
def test_a_wrong_database_is_told_in_a_sentence(environment: dict[str, str], tmp_path: Path, address: str, says: str):
    (tmp_path / "empty.db").touch()
    ended = sluice("keys", "list", environment={**environment, "SLUICE_DATABASE_URL": address}, folder=tmp_path)
    assert (ended.returncode, says in ended.stderr, "Traceback" in ended.stderr) == (1, True, False)


def test_settings_that_are_wrong_together_are_told_in_a_sentence(environment: dict[str, str]):
    ended = started("gateway", environment={**environment, "SLUICE_TLS_CERTIFICATE": "/none.pem"})
    assert (ended.returncode, "belong together" in ended.stderr, "Traceback" in ended.stderr) == (1, True, False)


def test_moments_are_taken_with_a_zone_and_as_utc_without_one():
    texts = ("2026-11-01T00:00:00Z", "2026-11-01T01:00:00+01:00", "2026-11-01T00:00:00", "2026-11-01")
    assert {read_moment(text).isoformat() for text in texts} == {"2026-11-01T00:00:00+00:00"}


def script(folder: Path, text: str) -> str:
    path = folder / "key service"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return f"'{path}' unwrap"


def test_a_secret_may_be_what_a_command_prints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SLUICE_CLIENT_SECRET_KEY", "k" * 32)
    monkeypatch.setenv("SLUICE_MASTER_KEY_COMMAND", script(tmp_path, f"echo \"$1\" >&2; echo '{'m' * 43}'"))
    assert AuthSettings().master_keys.current_id == SealingKeys.parse("m" * 43).current_id


def test_a_command_that_fails_says_so_and_not_what_it_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SLUICE_CLIENT_SECRET_KEY", "k" * 32)
    monkeypatch.setenv("SLUICE_MASTER_KEY_COMMAND", script(tmp_path, "echo half-a-secret; exit 3"))
    with pytest.raises(OSError, match="SLUICE_MASTER_KEY_COMMAND failed") as failed:
        AuthSettings()
    assert "half-a-secret" not in str(failed.value)
    assert str(tmp_path) not in str(failed.value)


def test_only_secrets_come_from_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SLUICE_CLIENT_SECRET_KEY", "k" * 32)
    monkeypatch.setenv("SLUICE_MASTER_KEY", "m" * 43)
    marker = tmp_path / "ran"
    monkeypatch.setenv("SLUICE_ISSUER_COMMAND", script(tmp_path, f"touch '{marker}'; echo issuer"))
    assert AuthSettings().issuer == "sluice"
    assert not marker.exists()


@pytest.mark.parametrize("key", ["short", "m" * 42])
def test_a_master_key_must_be_long(monkeypatch: pytest.MonkeyPatch, key: str):
    monkeypatch.delenv("SLUICE_MASTER_KEY", raising=False)
    with pytest.raises(ValidationError, match="master_key"):
        AuthSettings(client_secret_key="k" * 32, master_key=key)
    assert "SLUICE_MASTER_KEY" not in os.environ
