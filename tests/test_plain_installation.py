"""The command line with a plain installation: the packages that the distribution itself requires, and no extra's."""

from __future__ import annotations

import importlib.metadata
import json
import secrets
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement

from tests.command_line import NO_LOGINS
from tests.deployment import ROOT
from tests.onnx_models import line
from tests.system import System, plain_environment

OWN = ("auth", "gateway", "model_store", "monitoring", "sluice", "workers")
SERVERS = {"sqlalchemy", "celery", "fastapi", "starlette", "pydantic_settings", "redis", "jose", "cryptography"}


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with links to our own packages, and to what `pip install sluice-gateway` brings."""
    folder = tmp_path_factory.mktemp("plain")
    for name in OWN:
        (folder / name).symlink_to(ROOT / name)
    known: set[str] = set()
    wanted = requirements("sluice-gateway")
    while wanted:
        name = wanted.pop()
        if name in known:
            continue
        known.add(name)
        wanted |= requirements(name)
        distribution = importlib.metadata.distribution(name)
        for first in {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}:
            if not (folder / first).exists():
                (folder / first).symlink_to(Path(str(distribution.locate_file(first))))
    return folder


def requirements(name: str) -> set[str]:
    """What a distribution requires here without any extra."""
    found = map(Requirement, importlib.metadata.requires(name) or ())
    return {one.name for one in found if one.marker is None or one.marker.evaluate({"extra": ""})}


def run(packages: Path, *arguments: str, who: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """The command, with these packages and Python's own."""
    environment = {**(who or plain_environment()), "PYTHONPATH": str(packages), "XDG_CONFIG_HOME": NO_LOGINS}
    return subprocess.run(
        [sys.executable, "-P", "-S", "-X", "importtime", "-m", "sluice", *arguments],
        env={**environment, "COLUMNS": "200"},
        stdin=subprocess.DEVNULL,
        cwd=packages,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def imported(ended: subprocess.CompletedProcess[str]) -> set[str]:
    lines = [line for line in ended.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}


def test_no_package_of_the_servers_comes_with_a_plain_installation(packages: Path) -> None:
    assert {"httpx", "numpy", "rich", "typer"} <= {path.name for path in packages.iterdir()}
    assert not SERVERS & {path.name for path in packages.iterdir()}


def test_help_needs_neither_the_http_client_nor_numpy(packages: Path) -> None:
    ended = run(packages, "--help")

    assert ended.returncode == 0, ended.stderr
    assert "sluice COMMAND --help" in ended.stdout
    assert not {"httpx", "numpy"} & imported(ended)


def test_commands_that_talk_to_a_gateway_work(packages: Path, system: System, tmp_path: Path) -> None:
    # given an administrator who may predict as well
    name, file = f"t-{secrets.token_hex(4)}", line(tmp_path / "line.onnx", weights=[1.0, 10.0], bias=100.0)
    np.save(tmp_path / "rows.npy", np.array([[1, 2]], np.float32))
    who = system.environment()
    with system.admin() as admin:
        me = f"/admin/clients/{system.admin_client_id}/grants"
        admin.put(me, {"grants": [*admin.get(me)["grants"], {"model": name}]})

    # when the model is pushed and asked, and things are listed, everything succeeds
    for command in (
        ("models", "push", name, str(file)),
        ("predict", name, str(tmp_path / "rows.npy"), "--json"),
        ("bench", name, "--requests", "2", "--binary", "--json"),
        ("jobs", "list", "--json"),
        ("clients", "list", "--json"),
        ("whoami", "--json"),
    ):
        ended = run(packages, *command, who=who)
        assert ended.returncode == 0, (command, ended.stderr[-2000:])
        if command[0] == "predict":
            assert json.loads(ended.stdout) == {"predictions": [[121.0]]}


@pytest.mark.parametrize(
    ("command", "extra"),
    [
        ("gateway", "gateway"), ("worker", "worker"), ("prepare-worker", "prepare"),
        ("background-worker", "background"), ("up", "gateway,prepare,files,embedded"), ("people list", "gateway"),
        ("migrate", "gateway"),
    ],
)  # fmt: skip
def test_commands_of_the_servers_machine_say_what_is_missing(packages: Path, command: str, extra: str) -> None:
    ended = run(packages, *command.split(), who={**plain_environment(), "SLUICE_DATABASE_URL": "sqlite:////nowhere"})

    assert ended.returncode == 1
    assert f"pip install 'sluice-gateway[{extra}]'" in ended.stderr
    assert "Traceback" not in ended.stderr
