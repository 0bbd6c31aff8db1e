"""The command `sluice` as somebody types it, against a running system."""

from __future__ import annotations

import json
import secrets
import stat
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.onnx_models import line
from tests.system import System, plain_environment

COMMANDS = (
    "up", "gateway", "worker", "prepare-worker", "background-worker", "migrate", "admin create", "people add",
    "people password", "people disable", "people enable", "people list", "people role", "people password-token",
    "people remove-second-factor", "admin setup-token", "models push", "models list", "models show",
    "clients create", "clients list", "clients rotate", "clients disable", "clients enable", "clients grant",
    "models variants show", "models variants set", "models variants clear", "models prepare", "models compare",
    "models settings show", "models settings set", "models describe", "models card", "models evaluate",
    "models import", "models samples list", "models samples put", "models samples delete", "models traffic show",
    "models traffic set", "models traffic clear", "models shadow show", "models shadow set", "models shadow report",
    "models shadow clear", "models canary show", "models canary begin", "models canary promote",
    "models canary rollback", "models canary forget", "models jobs-policy show", "models jobs-policy set",
    "models jobs-policy clear",
    "clients limits show", "clients limits set", "clients limits clear",
    "clients show", "clients delete", "people delete", "models label", "models unlabel", "models retire",
    "models restore", "models rollback", "models policy show", "models policy set", "models gates show",
    "models gates set", "models gates clear", "models delete", "workers list", "events", "batch run", "batch attach",
    "jobs submit", "jobs list", "jobs show", "jobs wait", "jobs watch", "jobs result", "jobs cancel", "jobs delete",
    "jobs replay",
    "dead-letters list", "dead-letters show", "dead-letters replay", "dead-letters purge",
    "receipt verify", "bundle get", "bundle verify",
    "clients delete-jobs", "clients access", "clients keys", "clients identities", "tokens revoke",
    "tokens inspect", "predict",
    "keys list", "keys rotate", "keys withdraw", "keys reseal", "keys new-master", "storage seal", "storage copy",
    "upload-keys new", "webhooks add", "webhooks list", "webhooks disable", "webhooks enable", "webhooks remove",
    "webhooks test",
    "webhooks secret", "webhooks rotate", "webhooks log", "webhooks replay", "webhooks verify",
    "upload-keys add", "upload-keys list", "upload-keys remove",
)  # fmt: skip


def sluice(
    *arguments: str, environment: dict[str, str] | None = None, folder: Path | None = None, text: str = ""
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sluice", *arguments],
        env={**(environment or plain_environment()), "COLUMNS": "200"},
        cwd=folder,
        input=text,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def succeed(*arguments: str, environment: dict[str, str], text: str = "") -> str:
    ended = sluice(*arguments, environment=environment, text=text)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str) -> None:
    ended = sluice(*command.split(), "--help")

    assert ended.returncode == 0
    assert "Example" in ended.stdout


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


def test_the_way_from_a_file_to_a_prediction(system: System, tmp_path: Path) -> None:
    # given an administrator with a model file
    environment, name = system.environment(), f"t-{secrets.token_hex(4)}"
    file = line(tmp_path / "line.onnx", weights=[1.0, 10.0], bias=100.0)

    # when it is pushed, it is the first version and serves
    assert f"{name} version 1 is AVAILABLE" in succeed("models", "push", name, str(file), environment=environment)
    assert f"{name} (latest)" in succeed("models", "list", environment=environment)
    shown = succeed("models", "show", name, environment=environment)
    assert "(any, 2)" in shown
    assert "serves" in shown

    # and a client that was created for it, with its credentials in a file, gets a prediction
    credentials = tmp_path / "client.json"
    succeed("clients", "create", name, "--model", name, "--out", str(credentials), environment=environment)
    assert stat.S_IMODE(credentials.stat().st_mode) == 0o600
    asking = {**plain_environment(), "SLUICE_CREDENTIALS": str(credentials)}
    answer = succeed("predict", name, "--json", "-", environment=asking, text='{"instances": [[1, 2]]}')
    assert json.loads(answer) == {"predictions": [[121.0]]}


def test_the_same_file_again_is_the_version_that_it_is(system: System, tmp_path: Path) -> None:
    environment, name = system.environment(), f"t-{secrets.token_hex(4)}"
    file = line(tmp_path / "line.onnx", weights=[1.0], bias=0.0)

    pushed = [
        json.loads(succeed("models", "push", name, str(file), "--no-wait", "--json", environment=environment))
        for _ in range(2)
    ]

    assert [version["version"] for version in pushed] == [1, 1]


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


def test_who_asks_for_a_model_without_a_grant_is_told_both_reasons(system: System) -> None:
    ended = sluice("predict", "nosuch", "--json", "-", environment=system.environment(), text='{"instances": [1]}')

    assert ended.returncode == 1
    assert "Servable not found" in ended.stderr
    assert "sluice clients grant CLIENT --model nosuch" in ended.stderr


def test_what_is_no_model_file_is_refused_with_the_way_out(system: System, tmp_path: Path) -> None:
    text = tmp_path / "model.keras"
    text.write_text("no model")

    refused = [sluice("models", "push", "m", str(path), environment=system.environment()) for path in (text, tmp_path)]

    assert [ended.returncode for ended in refused] == [1, 1]
    assert "--format" in refused[0].stderr
    assert 'model.save("model.keras")' in refused[1].stderr


def test_a_model_without_versions_is_said_to_have_none(system: System, tmp_path: Path) -> None:
    # given a model whose only version was retired and deleted
    environment, name = system.environment(), f"t-{secrets.token_hex(4)}"
    file = line(tmp_path / "line.onnx", weights=[2.0], bias=0.5)
    succeed("models", "push", name, str(file), environment=environment)
    with system.admin() as admin:
        admin.post(f"/admin/models/{name}/versions/1/retire")
    assert "END (retired)" in succeed("models", "show", name, environment=environment)
    secret = (system.admin_client_id, system.admin_client_secret)
    token = httpx.post(f"{system.base_url}/oauth/token", data={"grant_type": "client_credentials"}, auth=secret).json()
    bearer = {"Authorization": f"Bearer {token['access_token']}"}
    assert httpx.delete(f"{system.base_url}/admin/models/{name}/versions/1", headers=bearer).status_code == 204

    # then the commands say so
    ended = sluice("models", "show", name, environment=environment)
    assert ended.stderr.startswith(f"Error: {name} has no versions")
    assert "no versions" in succeed("models", "list", environment=environment)


def test_a_split_is_shown_with_what_left_it_and_cleared_with_what_that_means(system: System, tmp_path: Path):
    # given two versions, over which traffic is split
    environment, name = system.environment(), f"t-{secrets.token_hex(4)}"
    for weight in (1.0, 2.0):
        file = line(tmp_path / "line.onnx", weights=[weight], bias=0.0)
        succeed("models", "push", name, str(file), environment=environment)
    succeed("models", "traffic", "set", name, "1=90", "2=10", environment=environment)
    wrong = sluice("models", "traffic", "set", name, "1:90", environment=environment)
    assert "write it as 1=90" in wrong.stderr

    # when one of them is retired, what was set for it is still shown, and restoring it says that it counts again
    succeed("models", "retire", name, "1", environment=environment)
    shown = succeed("models", "traffic", "show", name, environment=environment)
    assert "END (retired)" in shown
    assert "90" in shown
    restored = succeed("models", "restore", name, "1", environment=environment)
    assert "serves again, and gets 90 % of the traffic by the bare name again" in restored

    # then the command that ends the split says what the name means
    cleared = succeed("models", "traffic", "clear", name, environment=environment)
    assert cleared.strip() == f"{name} means version 2 again (it was split: version 1 90 %, version 2 10 %)"


def test_what_cannot_be_done_is_answered_with_what_can(system: System, tmp_path: Path) -> None:
    environment, name, file = system.environment(), f"t-{secrets.token_hex(4)}", tmp_path / "line.onnx"
    line(file, weights=[1.0], bias=0.0)
    succeed("models", "push", name, str(file), environment=environment)
    for arguments, said in (
        (("models", "show", "nosuch"), "`sluice models list` shows what there is"),
        (("models", "push", "a b", str(file)), "not a model's name"),
        (("models", "evaluate", name, "1"), f"`sluice models samples put {name} labelled FILE.npz`"),
        (("models", "settings", "set", name, "--tag", "team"), "write it as team=TEXT"),
        (("models", "settings", "set", name, "--remove-tag", "team"), "there is no tag team"),
    ):
        ended = sluice(*arguments, environment=environment)
        assert (ended.returncode, said in ended.stderr) == (1, True), ended.stderr

    # and what a command writes over, it says
    get = ("bundle", "get", name, "1", "-o", str(tmp_path / "line.zip"))
    assert "in place of" not in succeed(*get, environment=environment)
    again = succeed(*get, environment=environment)
    assert f"has {name} version 1 as onnx" in again
    assert "in place of the file that was there" in again


def test_a_person_is_added_with_a_password_from_standard_input(system: System) -> None:
    name = f"t-{secrets.token_hex(4)}"
    add = ("people", "add", name, "--data", str(system.data))

    assert sluice(*add, text="correct horse battery\n").returncode == 0
    again = sluice(*add, text="correct horse battery\n")

    assert again.returncode == 1
    assert f"there is somebody named {name} already" in again.stderr


def test_a_persons_new_password_and_a_persons_end_count_at_once(system: System) -> None:
    name, data = f"t-{secrets.token_hex(4)}", ("--data", str(system.data))

    def status(password: str) -> int:
        return httpx.get(f"{system.base_url}/metrics", auth=(name, password)).status_code

    def people(verb: str, text: str = "") -> int:
        return sluice("people", verb, name, *data, text=text).returncode

    assert people("add", "correct horse battery\n") == 0
    assert status("correct horse battery") == 200
    assert people("password", "another horse battery\n") == 0
    assert (status("correct horse battery"), status("another horse battery")) == (401, 200)
    assert people("disable") == 0
    assert status("another horse battery") == 401
    assert people("enable") == 0
    assert status("another horse battery") == 200


def test_a_version_is_labelled_retired_and_deleted_and_so_is_its_client(system: System, tmp_path: Path) -> None:
    # given a client that may upload and see nothing
    environment, name = system.environment(), f"t-{secrets.token_hex(4)}"
    credentials, file = tmp_path / "client.json", line(tmp_path / "line.onnx", weights=[1.0], bias=3.0)
    made = ("clients", "create", name, "--scope", "models:write", "--model", name, "--action", "upload")
    succeed(*made, "--out", str(credentials), environment=environment)
    uploading = {**plain_environment(), "SLUICE_CREDENTIALS": str(credentials)}

    # then it is told that its file is there, and what it may not do
    assert "uploaded as version 1" in succeed("models", "push", name, str(file), environment=uploading)
    assert "--action upload" in sluice("models", "push", f"{name}-2", str(file), environment=uploading).stderr
    assert sluice("clients", "access", name, "--model", name, environment=environment).returncode == 1

    # and an administrator ends both
    succeed("models", "push", name, str(file), environment=environment)
    for verb in (("label", name, "a", "1"), ("unlabel", name, "a"), ("retire", name, "1"), ("delete", name, "1")):
        succeed("models", *verb, environment=environment)
    assert "upload" in succeed("clients", "show", name, environment=environment)
    assert sluice("clients", "delete-jobs", name, environment=environment, text="n\n").returncode == 1
    assert succeed("clients", "delete-jobs", name, "--yes", environment=environment) == "0 jobs are deleted\n"
    succeed("clients", "delete", name, environment=environment)
    assert sluice("clients", "show", name, environment=environment).returncode == 1
    assert json.loads(succeed("workers", "list", "--json", environment=environment))


def test_an_upload_key_is_removed_by_its_name(system: System, tmp_path: Path) -> None:
    environment, name = system.environment(), f"t-{secrets.token_hex(4)}"
    public = succeed("upload-keys", "new", str(tmp_path / "key.pem"), environment=environment).strip()
    succeed("upload-keys", "add", name, public, environment=environment)
    succeed("upload-keys", "remove", name, environment=environment)
    assert name not in succeed("upload-keys", "list", environment=environment)


def test_an_address_that_is_given_counts_instead_of_the_files(tmp_path: Path) -> None:
    file = tmp_path / "client.json"
    file.write_text('{"base_url": "http://127.0.0.1:1", "client_id": "a", "client_secret": "b"}')

    ended = sluice("models", "list", "--credentials", str(file), "--url", "http://127.0.0.1:2")

    assert "127.0.0.1:2 cannot be reached" in ended.stderr
    assert ended.returncode == 75


def test_whoever_does_not_say_who_asks_is_told_how(tmp_path: Path) -> None:
    ended = sluice("models", "list", folder=tmp_path)

    assert ended.returncode == 1
    assert "--credentials" in ended.stderr
    assert "SLUICE_CLIENT_SECRET" in ended.stderr


def test_missing_settings_are_named_without_values(tmp_path: Path) -> None:
    environment = {**plain_environment(), "SLUICE_CLIENT_SECRET_KEY": "short-secret"}

    ended = sluice("gateway", environment=environment, folder=tmp_path)

    assert ended.returncode == 1
    assert "SLUICE_CLIENT_SECRET_KEY" in ended.stderr
    assert "short-secret" not in ended.stderr


def test_an_administrator_whose_secret_cannot_be_written_down_is_not_made(tmp_path: Path) -> None:
    environment = {
        **plain_environment(),
        "SLUICE_CLIENT_SECRET_KEY": "k" * 32,
        "SLUICE_MASTER_KEY": "m" * 43,
        "SLUICE_DATABASE_URL": f"sqlite:///{tmp_path}/sluice.db",
    }
    succeed("migrate", environment=environment)

    ended = sluice("admin", "create", "root", "--out", f"{tmp_path}/missing/admin.json", environment=environment)

    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith("Error: ")
    assert "sls_" not in ended.stderr
    succeed("admin", "create", "root", "--out", f"{tmp_path}/admin.json", environment=environment)


def test_an_error_of_the_gateway_is_one_line_and_exit_code_one(system: System) -> None:
    ended = sluice("models", "show", "nothing", environment=system.environment())

    assert ended.returncode == 1
    assert ended.stderr.startswith("Error: ")
    assert "Traceback" not in ended.stderr
