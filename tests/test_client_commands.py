"""`sluice clients …`: clients, their grants, secrets and limits."""

from __future__ import annotations

import json
import secrets
from pathlib import Path

from tests.command_line import sluice, succeed
from tests.system import System, plain_environment


def test_an_administrator_reads_what_is_in_others_jobs_only_if_asked_for(system: System) -> None:
    create = ("admin", "create", "--data", str(system.data), "--json")
    scopes = {}
    for name, asked in ((f"t-{secrets.token_hex(4)}", ()), (f"t-{secrets.token_hex(4)}", ("--scope", "jobs:contents"))):
        succeed(*create, name, *asked, environment=plain_environment())
        listed = json.loads(succeed("clients", "list", "--json", environment=system.environment()))
        scopes[asked] = next(client["scopes"] for client in listed if client["name"] == name)

    assert "jobs:admin" in scopes[()]
    assert "jobs:contents" not in scopes[()]
    assert scopes["--scope", "jobs:contents"] == ["jobs:contents"]


def test_a_client_is_granted_rotated_disabled_and_enabled_by_name(system: System) -> None:
    environment, name = system.environment(), f"t-{secrets.token_hex(4)}"
    made = json.loads(succeed("clients", "create", name, "--model", "a", "--json", environment=environment))

    # grants are added to those that it has, or replace them
    more = ("clients", "grant", name, "--model", "b", "--version", "2", "--action", "predict", "--json")
    granted = json.loads(succeed(*more, environment=environment))
    assert [(grant["model"], grant["version"]) for grant in granted] == [("a", None), ("b", 2)]
    granted = json.loads(succeed(*more, "--replace", "--weight", "3", environment=environment))
    assert [(grant["model"], grant["actions"], grant["weight"]) for grant in granted] == [("b", ["predict"], 3.0)]

    # a new secret is another one
    rotated = json.loads(succeed("clients", "rotate", name, "--json", environment=environment))
    assert rotated["client_id"] == made["client_id"]
    assert rotated["client_secret"] != made["client_secret"]

    # and the list says who is disabled
    for verb, disabled in (("disable", True), ("enable", False)):
        succeed("clients", verb, name, environment=environment)
        clients = json.loads(succeed("clients", "list", "--json", environment=environment))
        assert next(client for client in clients if client["name"] == name)["disabled"] is disabled


def test_limits_are_set_shown_and_lifted_one_by_one(system: System) -> None:
    # given a client
    environment, name = system.environment(), f"t-{secrets.token_hex(4)}"
    succeed("clients", "create", name, "--model", "a", environment=environment)
    limits = ("clients", "limits")

    # when limits are set on everything and on a model, and those on everything are replaced
    succeed(*limits, "set", name, "--rate", "5", "--queued", "0", environment=environment)
    succeed(*limits, "set", name, "--model", "a", "--instances", "1000000", environment=environment)
    succeed(*limits, "set", name, "--rate", "2.5", "--burst", "9", "--running", "4", environment=environment)

    # then what was named holds, and nothing else
    found = json.loads(succeed(*limits, "show", name, "--json", environment=environment))
    bounds = [{key: value for key, value in limit.items() if value} for limit in found]
    everything = {"requests_per_second": 2.5, "burst": 9, "running_jobs": 4}
    assert bounds == [everything, {"model": "a", "instances_per_day": 1_000_000}]
    assert "1000000" in succeed(*limits, "show", name, environment=environment)
    assert "name at least one" in sluice(*limits, "set", name, environment=environment).stderr

    # and it can be lifted
    left = json.loads(succeed(*limits, "clear", name, "--model", "a", "--json", environment=environment))
    assert [limit["model"] for limit in left] == [None]
    assert "no limits" in succeed(*limits, "clear", name, environment=environment)


def test_no_file_of_credentials_is_written_over_by_another_clients(system: System, tmp_path: Path) -> None:
    # given a client whose credentials are in a file
    environment, name, file = system.environment(), f"t-{secrets.token_hex(4)}", tmp_path / "client.json"
    made = ("clients", "create", name, "--model", "a", "--out")
    succeed(*made, str(file), environment=environment)
    first = json.loads(file.read_text())

    # when a file is named that holds them, or that cannot be written, no other client is made
    for place in (file, tmp_path / "missing" / "client.json"):
        ended = sluice("clients", "create", f"{name}-2", "--model", "a", "--out", str(place), environment=environment)
        assert (ended.returncode, ended.stdout) == (1, "")
        assert "Traceback" not in ended.stderr
    clients = json.loads(succeed("clients", "list", "--json", environment=environment))
    assert f"{name}-2" not in {client["name"] for client in clients}
    assert json.loads(file.read_text()) == first

    # and its own new secret goes into the same file
    succeed("clients", "rotate", name, "--out", str(file), environment=environment)
    rotated = json.loads(file.read_text())
    assert rotated["client_id"] == first["client_id"]
    assert rotated["client_secret"] != first["client_secret"]


def test_a_grant_for_what_is_not_there_is_given_and_mentioned(system: System) -> None:
    environment, name = system.environment(), f"t-{secrets.token_hex(4)}"

    ended = sluice("clients", "create", name, "--model", f"{name}-typo", environment=environment)

    assert ended.returncode == 0
    assert f"there is no model {name}-typo yet" in ended.stderr
