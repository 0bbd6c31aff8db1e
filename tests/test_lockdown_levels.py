"""Levels of lock-down: what is detected where something is missing, and what is refused then."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.shop import Shop
from tests.shop import shop as shop  # a fixture
from workers.runner.lockdown import Level, Lockdown
from workers.runner.process import Runner
from workers.settings import WorkerSettings

# What a worker finds when it starts, then what becomes of an upload's runner and of a version that TensorFlow serves.
WORKER = """
import json, logging, sys
from pathlib import Path
from model_store.signature import Signature
from monitoring.metrics import exposition
from workers.errors import RunnerFailed
from workers.runner import detection
from workers.runner.process import Runner
from workers.runtimes.tensorflow import RunnerPredictor
from workers.settings import WorkerSettings

logging.basicConfig(level=logging.INFO)
settings = WorkerSettings(scratch_dir=Path(sys.argv[1]), runner_lockdown=sys.argv[2])
found = {"level": str(detection.announce(settings, "worker"))}
found["metric"] = next(line for line in exposition().decode().splitlines() if line.startswith("sluice_runner_lock"))
with Runner(settings) as runner:
    try:
        runner.call("trial_start_onnx", {}, {}, timeout_seconds=60)
    except RunnerFailed as error:
        found["upload"] = [error.status, error.code, error.message]
    found["alive"] = runner.alive
if "upload" in found:
    try:
        RunnerPredictor(lambda: Path(__file__), Signature((), ()), 1, settings)
    except RunnerFailed as error:
        found["served"] = [error.status, error.code, error.message]
print(json.dumps(found))
"""


def worker_without(missing: str, demanded: str, folder: Path) -> tuple[dict[str, Any], str]:
    """What a worker finds where calls are missing, and what it logs."""
    script = folder / "worker.py"
    script.write_text(WORKER)
    command = [sys.executable, "-m", "tests.without_calls", missing]
    done = subprocess.run(
        [*command, sys.executable, str(script), str(folder / "scratch"), demanded],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found, done.stderr


@pytest.mark.parametrize(
    ("missing", "level", "told"),
    [("unshare", "partial", "namespaces"), ("landlock", "none", "landlock"), ("unshare,seccomp", "none", "seccomp")],
)
def test_a_worker_whose_runners_get_less_than_is_demanded_loads_nothing(
    tmp_path: Path, missing: str, level: str, told: str
):
    demanded = "strict" if level == "partial" else "partial"

    found, logged = worker_without(missing, demanded, tmp_path)

    assert found["level"] == level
    labels = f'demanded="{demanded}",process="worker"'
    number = f"{float(Level[level.upper()])}"
    assert found["metric"] in (
        f"sluice_runner_lockdown_level{{{labels}}} {number}",
        f'sluice_runner_lockdown_level{{process="worker",demanded="{demanded}"}} {number}',
    )
    assert "ERROR" in logged
    assert "no upload is loaded here" in logged
    for part in ("upload", "served"):
        status, code, message = found[part]
        assert (status, code) == (503, "lockdown_unavailable")
        assert f"{told} (Function not implemented)" in message
        assert f"{demanded} is demanded" in message
        assert "docs/operations.md" in message
    assert not found["alive"]


@pytest.mark.parametrize(("missing", "demanded"), [("unshare", "partial"), ("unshare,landlock,seccomp", "none")])
def test_a_worker_goes_on_with_what_is_demanded(tmp_path: Path, missing: str, demanded: str):
    found, logged = worker_without(missing, demanded, tmp_path)

    assert found["level"] == demanded
    assert "ERROR" not in logged
    assert "upload" not in found
    assert found["alive"]


def test_an_upload_below_the_level_ends_with_what_is_missing_and_says_what_to_do(shop: Shop, tmp_path: Path):
    path = tmp_path / "x.keras"
    path.write_bytes(b"not even looked at")
    name = shop.upload(path)
    command = [sys.executable, "-m", "tests.without_calls", "landlock", sys.executable, "-m", "tests.preparing"]
    settings = {
        "SLUICE_DATABASE_URL": shop.settings.database_url.get_secret_value(),
        "SLUICE_STORE_DIR": str(shop.settings.store_dir),
        "SLUICE_SCRATCH_DIR": str(shop.settings.scratch_dir),
    }

    subprocess.run([*command, name, "1"], check=True, env={**os.environ, **settings})

    ended = shop.look(name)
    assert (ended.state, ended.error_code) == ("END", "lockdown_unavailable")
    assert "landlock (Function not implemented)" in (ended.error_message or "")
    assert ended.report["lockdown"] is None


def test_the_report_tells_of_the_runner_that_read_the_upload(shop: Shop, tmp_path: Path):
    path = tmp_path / "x.keras"
    path.write_bytes(b"no archive")

    ended = shop.prepare(path)

    assert ended.error_code != "lockdown_unavailable"
    assert ended.report["lockdown"]["level"] in ("strict", "partial")


@pytest.mark.parametrize(
    "found",
    [
        None,
        [],
        {},
        {"user": True},
        {"user": 1},
        {"user": 1, "missing": [{"wall": "roof"}]},
        {"user": 1, "missing": [1]},
    ],
)
def test_a_runner_that_does_not_tell_of_its_lock_down_is_not_believed(found: object):
    with pytest.raises(ValueError, match=r"described|unknown"):
        Lockdown.from_json(found)


def test_a_lock_down_passes_through_its_frame():
    lockdown = Lockdown(7, {"namespaces": "Operation not permitted"})
    assert Lockdown.from_json(json.loads(json.dumps(lockdown.to_json()))) == lockdown
    assert str(lockdown) == "partial, without namespaces (Operation not permitted)"
    assert [Lockdown(7, dict.fromkeys(walls, "")).level for walls in ([], ["user"], ["capabilities"])] == [2, 2, 0]


# Becomes another user, and says what that one may do with a runner's folder and with a file of its worker's.
BECOME = """
import json, os, sys
from pathlib import Path
from workers.runner.identity import Identity
from workers.runner.scratch import Scratch

folders = Scratch(Path(sys.argv[1]))
secret = Path(sys.argv[1]) / "secret"
secret.touch(0o600)
chosen = Identity.unused()
try:
    Identity.unused().take(folders.folder, [secret])
except PermissionError:
    kept = [os.geteuid(), os.stat(folders.work).st_uid, os.stat(folders.folder).st_mode & 0o777]
chosen.take(folders.folder, [])
(folders.work / "own").write_text("x")
print(json.dumps({
    "is_chosen": os.getresuid() == (chosen.user,) * 3 and os.getresgid() == (chosen.group,) * 3,
    "groups": os.getgroups(),
    "reads": os.access(secret, os.R_OK),
    "lists": os.access(folders.folder, os.R_OK),
    "kept": kept,
}))
"""


def test_a_runner_has_a_user_of_its_own_where_its_worker_is_root(tmp_path: Path):
    if os.geteuid() != 0:
        with Runner(WorkerSettings(scratch_dir=tmp_path)) as runner:
            assert runner.lockdown.user == os.geteuid()
            assert "user" not in runner.lockdown.missing
        return
    for folder in (tmp_path, *tmp_path.parents):  # pytest keeps others out, and so may whoever made the room for it
        mode = folder.stat().st_mode
        if not mode & 0o001:
            folder.chmod(mode | 0o011)

    done = subprocess.check_output([sys.executable, "-c", BECOME, str(tmp_path)])

    assert json.loads(done) == {"is_chosen": True, "groups": [], "reads": False, "lists": False, "kept": [0, 0, 0o700]}
