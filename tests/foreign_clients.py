"""Other people's clients, each run in an environment and a process of its own against an installation that serves."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from auth.limits import EVERYTHING, Bounds, set_limits
from model_store.database import transaction
from model_store.signature import Signature, TensorSpec
from tests.environments import ROOT, install
from tests.processes import Cluster
from tests.queue_kit import doubling_model, serve_model, wait_until
from tests.serving import DESCRIBED, client_id_of, unchanged

MOST_SECONDS = 180
TEXTS = Signature((TensorSpec("x", "string", (None, 1)),), (TensorSpec("y", "string", (None, 1)),))


def visit(folder: str, asked: Mapping[str, object], program: str = "visit.py") -> dict[str, Any]:
    """What the program in a folder of tests found, which is told `asked` by its standard input."""
    here = Path(__file__).resolve().parent / folder
    python = install(here / "requirements.txt", ROOT / "build" / folder.replace("_", "-"))
    done = subprocess.run(
        [python, "-I", here / program],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        timeout=MOST_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def token_of(client: httpx.Client) -> str:
    """The token that a client of the tests has."""
    return str(client.headers["authorization"]).removeprefix("Bearer ")


def serve_texts(serving: Cluster, name: str) -> None:
    """A model that answers with the strings that it is given."""
    assert DESCRIBED["words"][0] == "string"
    path = unchanged(serving.folder / f"{name}.onnx", "words")
    serve_model(serving.sessions, serving.artifacts, path, name, signature=TEXTS)


def serve_spare(serving: Cluster, name: str) -> None:
    """A model that doubles, and that nobody else needs."""
    serve_model(serving.sessions, serving.artifacts, doubling_model(serving.folder / f"{name}.onnx", 2.0), name)


def limit_rate(serving: Cluster, client: httpx.Client) -> None:
    """One request for now, and then none for minutes; waits until the gateway keeps to it."""
    with transaction(serving.sessions) as session:
        bounds = Bounds(requests_per_second=0.001, burst=1)
        set_limits(session, client_id_of(client), {EVERYTHING: bounds})
    body = {"instances": [[1, 2]]}
    wait_until(lambda: client.post("/v1/models/double:predict", json=body).status_code == 429, 20)
