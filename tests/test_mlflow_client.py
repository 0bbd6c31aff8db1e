"""MLflow's own clients, in an environment of their own and unmodified but for the token, against a started Sluice."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.environments import ROOT, install
from tests.processes import Cluster

HERE = Path(__file__).resolve().parent / "mlflow_server"
ROWS = [[1.0, 2.5], [0.1, -4.0]]

# Its packages are fetched, and take seconds to import.
pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def found(serving: Cluster, caller: httpx.Client, tmp_path_factory: pytest.TempPathFactory) -> dict:
    python = install(HERE / "requirements.txt", ROOT / "build" / "mlflow-server")
    environment = {
        "PATH": f"{python.parent}:{os.environ['PATH']}",
        "HOME": str(tmp_path_factory.mktemp("home")),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_TRACKING_TOKEN": caller.headers["authorization"].removeprefix("Bearer "),
    }
    command = [python, "-I", HERE / "score.py", serving.gateways[0], json.dumps(ROWS)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize(("path", "version"), [("times", 2), ("times/versions/1", 1)])
def test_the_scoring_client_works_with_a_base_url_per_model_and_per_version(
    caller: httpx.Client, found: dict, path: str, version: int
):
    own = caller.post(f"/v1/models/times/versions/{version}:predict", json={"instances": ROWS}).json()["predictions"]

    scored = found["scored"][path]

    assert scored.pop("version").startswith("3.")
    assert scored == dict.fromkeys(("table", "frame", "array", "list", "text"), own)


def test_the_deployment_client_works_with_the_gateways_url_and_its_own_setting_for_the_token(
    caller: httpx.Client, found: dict
):
    assert found["deployed"] == [
        caller.post(f"/v1/models/{path}:predict", json={"instances": ROWS}).json()["predictions"]
        for path in ("times", "times/versions/1")
    ]


def test_the_clients_are_told_what_is_wrong(found: dict):
    assert "error code 400" in found["wrong"]
    assert '"error_code":"BAD_REQUEST"' in found["wrong"].replace(" ", "")
    assert "input 'x' takes float of shape [-1,2]" in found["wrong"]
    assert "error code 404" in found["unknown"]
    assert "RESOURCE_DOES_NOT_EXIST" in found["unknown"]
