"""The package `openai` as a client, in an environment of its own: what it knows of batches works here."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.conftest import RedisServer
from tests.environments import ROOT, install
from tests.processes import Cluster, cluster

HERE = Path(__file__).resolve().parent / "openai_client"
MOST_SECONDS = 120


@pytest.fixture
def batching(redis_server: RedisServer, tmp_path: Path) -> Iterator[Cluster]:
    with cluster(tmp_path, redis_server.url, f"sqlite:///{tmp_path / 'sluice.db'}") as made:
        made.start_worker()
        made.start("background-worker", worker_name="b")
        made.start_gateway()
        made.wait_for_slots(2)
        yield made


@pytest.mark.long  # its packages are fetched
def test_the_package_openai_makes_a_batch_and_understands_its_answers(batching: Cluster):
    python = install(HERE / "requirements.txt", ROOT / "build" / "openai-client")
    caller: httpx.Client = batching.caller("double")
    token = caller.headers["authorization"].removeprefix("Bearer ")
    command = [python, "-I", HERE / "visit.py", batching.gateways[0], token]
    done = subprocess.run(command, capture_output=True, text=True, timeout=MOST_SECONDS, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout) == {
        "status": "completed",
        "counts": {"total": 21, "completed": 20, "failed": 1},
        "metadata": {"who": "openai"},
        "predictions": [[2.0 * number, 2.0] for number in range(20)],
        "failed": ["row 20"],
        "purposes": ["batch", "batch_output"],
        "deleted": True,
        "refused": {
            "no file": ["NotFoundError", "file_not_found"],
            "no batch": ["NotFoundError", "batch_not_found"],
            "no token": ["AuthenticationError", "invalid_token"],
            "no endpoint": ["BadRequestError", "invalid_endpoint"],
        },
        "batches": 4,
        "inputs": 3,
    }
