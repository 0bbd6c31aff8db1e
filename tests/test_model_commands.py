"""`sluice models …`: from a file to a version, and what becomes of it."""

from __future__ import annotations

import json
import secrets
import stat
from pathlib import Path

import httpx

from tests.command_line import sluice, succeed
from tests.onnx_models import line
from tests.system import System, plain_environment


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

    # and the model, once that is confirmed
    assert sluice("models", "delete", name, environment=environment, text="n\n").returncode == 1
    assert succeed("models", "delete", name, "--yes", environment=environment) == f"{name} is deleted\n"
    assert sluice("models", "show", name, environment=environment).returncode == 1
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
