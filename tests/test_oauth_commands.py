"""The commands about tokens, keys and identities as somebody types them, and the same from Python."""

from __future__ import annotations

import json
import secrets
from pathlib import Path

import httpx
import pytest

from sluice.client import Client, Refused
from tests.command_line import sluice, succeed
from tests.oauth_kit import elliptic
from tests.quiet_gateway import bearer
from tests.system import System, plain_environment


def test_a_client_asks_about_its_own_token_and_takes_it_back(system: System, tmp_path: Path) -> None:
    environment, name = system.environment(), f"t-{secrets.token_hex(4)}"
    credentials = tmp_path / "client.json"
    succeed("clients", "create", name, "--model", "a", "--out", str(credentials), environment=environment)
    asking = {**plain_environment(), "SLUICE_CREDENTIALS": str(credentials)}
    known = json.loads(credentials.read_text())
    token = httpx.post(
        f"{system.base_url}/oauth/token",
        data={"grant_type": "client_credentials"},
        auth=(known["client_id"], known["client_secret"]),
    ).json()["access_token"]

    said = json.loads(succeed("tokens", "inspect", "--json", environment=asking, text=f"{token}\n"))
    assert (said["active"], said["client_id"]) == (True, known["client_id"])
    (tmp_path / "token.txt").write_text(token)
    succeed("tokens", "revoke", "--file", str(tmp_path / "token.txt"), environment=asking)
    assert httpx.get(f"{system.base_url}/v1/models", headers=bearer(token)).status_code == 401
    assert "False" in succeed("tokens", "inspect", "--file", str(tmp_path / "token.txt"), environment=asking)
    ended = sluice("tokens", "revoke", environment=asking, text="  \n")
    assert (ended.returncode, "no token" in ended.stderr) == (1, True)


def test_keys_and_identities_of_a_client_are_set_and_shown_and_its_old_secret_stays_for_a_while(
    system: System, tmp_path: Path
) -> None:
    environment, name = system.environment(), f"t-{secrets.token_hex(4)}"
    made = json.loads(succeed("clients", "create", name, "--model", "a", "--json", environment=environment))
    signer, file = elliptic("laptop"), tmp_path / "key.json"
    file.write_text(json.dumps(signer.jwk))

    shown = json.loads(succeed("clients", "keys", name, "--set", str(file), "--json", environment=environment))
    assert [key["kid"] for key in shown["keys"]] == ["laptop"]
    assert "ES256" in succeed("clients", "keys", name, environment=environment)
    file.write_text(json.dumps({"keys": [{**signer.jwk, "d": "AA"}]}))
    ended = sluice("clients", "keys", name, "--set", str(file), environment=environment)
    assert (ended.returncode, "private members" in ended.stderr) == (1, True)

    called = ("--issuer", "https://id.example", "--subject", name)
    assert name in succeed("clients", "identities", name, *called, environment=environment)
    emptied = succeed("clients", "identities", name, "--replace", "--json", environment=environment)
    assert json.loads(emptied) == {"identities": []}

    succeed("clients", "rotate", name, "--grace-seconds", "60", "--json", environment=environment)
    with Client(system.base_url, made["client_id"], made["client_secret"]) as old:
        assert old.get("/v1/models")["models"] == []


def test_a_token_is_revoked_from_python(system: System) -> None:
    with system.admin() as admin:
        made = admin.post("/admin/clients", {"name": f"t-{secrets.token_hex(4)}"})
        with Client(system.base_url, made["id"], made["client_secret"]) as client:
            client.get("/v1/models")
            token = client.token()
            assert client.introspect(token)["active"] is True
            client.revoke(token)
            assert client.introspect(token) == {"active": False}
        with Client(system.base_url, made["id"], "sls_wrong") as stranger, pytest.raises(Refused) as refused:
            stranger.revoke(token)
    assert (refused.value.status, refused.value.code) == (401, "invalid_client")
