"""Models from a real MLflow server, in an environment of its own: logged there, imported, prepared, asked."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest

from auth import clients
from auth.grants import ADMINISTRATION, GrantSpec, set_grants
from model_store.database import transaction
from sluice.listening_ports import free_port
from tests.conftest import RedisServer
from tests.environments import ROOT, install
from tests.processes import Cluster, cluster, ready, wait_for

HERE = Path(__file__).resolve().parent / "mlflow_server"
START_SECONDS = 120
LOG_SECONDS = 180
PREPARED_SECONDS = 120

# Its packages are fetched, TensorFlow among them, and its server takes 20 s to start.
pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]


@dataclass(frozen=True)
class Registry:
    """The server's address, and what was logged there."""

    url: str
    logged: dict


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    folder, port = tmp_path_factory.mktemp("mlflow"), free_port()
    python = install(HERE / "requirements.txt", ROOT / "build" / "mlflow-server")
    url = f"http://127.0.0.1:{port}"
    environment = {
        "PATH": f"{python.parent}:{os.environ['PATH']}",
        "HOME": str(folder),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "CUDA_VISIBLE_DEVICES": "-1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    places = ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}", "--artifacts-destination", folder / "kept"]
    command = [python.with_name("mlflow"), "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [*command, "--serve-artifacts", *places], stdout=log, stderr=log, env=environment, start_new_session=True
        )
    try:
        wait_for(lambda: server.poll() is not None or healthy(url), START_SECONDS)
        done = subprocess.run(
            [python, "-I", HERE / "log_models.py", url],
            env=environment,
            capture_output=True,
            text=True,
            timeout=LOG_SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        yield Registry(url, json.loads(done.stdout.splitlines()[-1]))
    finally:
        # It starts processes of its own, which are in its group, and keeps nothing that anybody needs.
        os.killpg(server.pid, signal.SIGKILL)
        server.wait(20)


def healthy(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


@pytest.fixture(scope="module")
def running(
    redis_server: RedisServer, registered: Registry, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("imports")
    with cluster(folder, redis_server.url, f"sqlite:///{folder / 'sluice.db'}") as made:
        made.start_gateway(mlflow_url=registered.url)
        made.start_worker()
        made.start("prepare-worker", worker_name="p")
        made.start("background-worker", worker_name="b", mlflow_url=registered.url)
        wait_for(lambda: ready(made.gateways[0]).get("slots", 0) == 2, START_SECONDS)
        yield made


@pytest.fixture(scope="module")
def caller(running: Cluster) -> httpx.Client:
    client = running.caller()
    with transaction(running.sessions) as session:
        [made] = clients.page(session)
        grants = [GrantSpec("*", actions=ADMINISTRATION), *(GrantSpec(name) for name in ("tanh", "twice"))]
        set_grants(session, made.id, grants)
    wait_for(lambda: client.get("/admin/models/tanh/imports").status_code == 200, 10)
    return client


def imported(caller: httpx.Client, model: str, uri: str) -> dict:
    asked = caller.post(f"/admin/models/{model}/imports", json={"uri": uri})
    assert asked.status_code == 202, asked.text
    until = time.monotonic() + PREPARED_SECONDS
    while (found := caller.get(asked.headers["location"]).json())["ended_at"] is None:
        assert time.monotonic() < until, found
        time.sleep(0.2)
    return dict(found)


def served(caller: httpx.Client, model: str, version: int, body: dict) -> dict:
    path = f"/admin/models/{model}/versions/{version}"
    wait_for(lambda: caller.get(path).json()["state"] not in ("START", "LOADING"), PREPARED_SECONDS)
    shown = caller.get(path).json()
    assert shown["state"] == "AVAILABLE", shown["error"]
    answers: list[httpx.Response] = []

    def answered() -> bool:
        answers.append(caller.post(f"/v1/models/{model}:predict", json=body))
        return answers[-1].status_code == 200

    wait_for(answered, 20)
    return {"version": shown, "predictions": answers[-1].json()["predictions"]}


def test_a_keras_model_is_imported_by_its_alias_and_answers_as_it_did_where_it_was_logged(
    caller: httpx.Client, registered: Registry
):
    found = imported(caller, "tanh", "models:/tanh@champion")

    assert (found["state"], found["error"]) == ("succeeded", None)
    assert found["fetched_bytes"] == found["total_bytes"] > 1000
    shown = served(caller, "tanh", found["version"], {"instances": registered.logged["inputs"]})
    np.testing.assert_allclose(shown["predictions"], registered.logged["outputs"], rtol=1e-4, atol=1e-5)
    source = shown["version"]["source"]
    assert (source["kind"], source["uri"]) == ("mlflow", "models:/tanh@champion")
    assert (source["run_id"], source["registered_version"]) == (registered.logged["keras_run"], "1")
    assert shown["version"]["format"] == "mlflow"
    asked = {"inputs": registered.logged["inputs"], "params": {"temperature": 1, "beams": "many", "unknown": 0}}
    refused = caller.post("/models/tanh/invocations", json=asked)
    said = 'Invalid parameters found: {"beams": the value is not of long}'
    assert (refused.status_code, refused.json()) == (400, {"error_code": "BAD_REQUEST", "message": said})
    asked["params"] = {"temperature": 1, "beams": 2, "strict": False, "stop": ["a"], "more": {"b": 2}}
    assert caller.post("/models/tanh/invocations", json=asked).status_code == 200


def test_an_onnx_model_is_imported_by_its_version_and_the_same_again_by_its_run(
    caller: httpx.Client, registered: Registry
):
    first = imported(caller, "twice", "models:/twice/1")
    shown = served(caller, "twice", first["version"], {"instances": [[1.5, 2.0]]})
    assert shown["predictions"] == [[3.0, 4.0]]
    # It was logged with an input example, on which its variants were compared.
    steps = {step["name"]: step["detail"] for step in shown["version"]["report"]["steps"]}
    assert steps["load"].endswith(", 1 of the upload's own example")
    [sample] = caller.get("/admin/models/twice/samples").json()
    assert (sample["kind"], sample["instances"], sample["version"]) == ("inputs", 1, first["version"])

    again = imported(caller, "twice", f"runs:/{registered.logged['onnx_run']}/model")

    # The same bytes are the version that they already are.
    assert (again["state"], again["version"]) == ("succeeded", first["version"])


@pytest.mark.parametrize("uri", ["models:/twice/9", "models:/twice@nobody", "models:/none/1", f"runs:/{'0' * 32}/m"])
def test_what_the_registry_does_not_have_is_not_found(caller: httpx.Client, uri: str):
    found = imported(caller, "other", uri)

    assert (found["state"], found["error"]["code"], found["version"]) == ("failed", "source_not_found", None)
