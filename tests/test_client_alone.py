"""The client without the server: installed from the tree without extras, into an environment of its own."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.client_kit import login
from tests.environments import ROOT
from tests.processes import Cluster
from tests.system import plain_environment

# What only a server needs, and what is too large for a client. Typer brings pydantic, which the client never imports.
OF_SERVERS = {
    "alembic", "celery", "cryptography", "fastapi", "grpcio", "h5py", "keras", "kombu", "libpass", "numba", "onnx",
    "onnxruntime", "orjson", "pandas", "pillow", "prometheus-client", "protobuf", "psycopg", "pyarrow",
    "pydantic-settings", "pysimdjson", "python-jose", "redis", "scipy", "sqlalchemy", "starlette", "tensorflow",
    "tensorflow-cpu", "torch", "uvicorn",
}  # fmt: skip
BUILT = ("auth", "gateway", "model_store", "monitoring", "sluice", "workers")
VISIT = """
import asyncio, json, sys
from importlib.metadata import distributions

import numpy as np
from sluice import AsyncClient, Client

login = sys.argv[1:4]
row = np.array([[1.0, 2.0]])
with Client(*login) as sluice:
    found = {
        "array": sluice.predict("double", row).tolist(),
        "lists": sluice.predict("double", [[1.0, 2.0]]).tolist(),
        "job": sluice.submit("double", row).result(60).tolist(),
        "map": [one.tolist() for one in sluice.map("double", row, progress=True)],
    }

async def ask():
    async with AsyncClient(*login) as sluice:
        return (await sluice.predict("double", row)).tolist()

found["asyncio"] = asyncio.run(ask())
found["packages"] = sorted(one.metadata["Name"].lower() for one in distributions())
found["imported"] = sorted({name.partition(".")[0] for name in sys.modules})
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an environment in which the package is installed as `pip install sluice-gateway` does."""
    folder = tmp_path_factory.mktemp("alone")
    source, made = folder / "source", folder / "environment"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in BUILT:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    uv = Path(sys.executable).with_name("uv")
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, made], check=True)
    subprocess.run([uv, "pip", "install", "--quiet", "--python", made / "bin" / "python", source], check=True)
    return made


@pytest.mark.long  # its packages are fetched
def test_the_client_alone_predicts_and_has_no_package_of_the_server(serving: Cluster, environment: Path):
    command = [environment / "bin" / "python", "-I", "-c", VISIT, *login(serving, "double")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=plain_environment())
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    for kind in ("array", "lists", "job", "map", "asyncio"):
        assert found[kind] == [[2, 4]], kind
    assert set(found["packages"]) & OF_SERVERS == set()
    assert {"httpx", "numpy", "rich", "typer", "sluice-gateway"} <= set(found["packages"])
    assert set(found["imported"]) & {*BUILT, "pydantic"} == {"sluice"}


@pytest.mark.long  # as above
def test_its_command_predicts_as_well(serving: Cluster, environment: Path, tmp_path: Path):
    url, client_id, secret = login(serving, "double")
    (tmp_path / "request.json").write_text('{"instances": [[1.0, 2.0]]}')
    asking = {"SLUICE_URL": url, "SLUICE_CLIENT_ID": client_id, "SLUICE_CLIENT_SECRET": secret}
    command = [environment / "bin" / "sluice", "predict", "double", tmp_path / "request.json", "--json"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, env={**plain_environment(), **asking}
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout)["predictions"] == [[2.0, 4.0]]
