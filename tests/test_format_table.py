"""The table of formats, runtimes and variants in docs/models.md: each row is uploaded, prepared and asked over HTTP.

A row fails where its answers are others than its own framework's, and where the document says something else than what
was measured; the message is the row as it should stand there.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from auth import clients
from auth.grants import ADMINISTRATION, GrantSpec, set_grants
from model_store.database import transaction
from model_store.variant_policies import NAMES, QUANTISED
from tests.conftest import RedisServer
from tests.models import ROOT
from tests.processes import Cluster, cluster, ready, wait_for
from tests.test_torchscript_uploads import files as files
from tests.test_torchscript_uploads import python as python

FRAMEWORKS = {
    "keras": "Keras",
    "h5": "Keras",
    "onnx": "ONNX Runtime",
    "savedmodel": "TensorFlow",
    "torchscript": "PyTorch",
}
KINDS = ("image", "text", "audio", "tabular", "recurrent", "two-input")
ENDINGS = {"keras": ".keras", "h5": ".h5", "onnx": ".onnx", "savedmodel": ".zip"}
# An adapted vocabulary is not in a .h5 file.
ROWS = [(kind, format) for kind in KINDS for format in ENDINGS if (kind, format) != ("text", "h5")]
SCRIPTS = [
    ("image", "digits", "image:float32[-1,1,-1,-1]"),
    ("two-input", "branching", "left:float32[-1,4],right:float32[-1,2]"),
]
# Seven variants of a model, each converted in a process that imports TensorFlow first.
PREPARED_SECONDS = 240
ANSWERED_SECONDS = 60
HEADING = "## Formats, runtimes and variants as tested"
Inputs = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All models with their own frameworks' answers."""
    folder = tmp_path_factory.mktemp("formats")
    environment = {
        **os.environ,
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "CUDA_VISIBLE_DEVICES": "-1",
        "KERAS_BACKEND": "tensorflow",
    }
    command = [sys.executable, "-m", "tests.format_models", str(folder)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def admin(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    yield from administered(redis_server, tmp_path_factory.mktemp("installation"))


def administered(redis_server: RedisServer, folder: Path) -> Iterator[httpx.Client]:
    """Who may do everything in an installation that takes every format."""
    allowed = {"upload_formats": "keras,h5,onnx,savedmodel,torchscript"}
    with cluster(folder, redis_server.url, f"sqlite:///{folder / 'sluice.db'}") as made:
        made.start_gateway(**allowed)
        made.start_worker()
        made.start("prepare-worker", worker_name="prepares", **allowed)
        wait_for(lambda: ready(made.gateways[0]).get("slots", 0) >= 2, PREPARED_SECONDS)
        yield allowed_everything(made)


def allowed_everything(made: Cluster) -> httpx.Client:
    client = made.caller()
    with transaction(made.sessions) as session:
        [row] = clients.page(session)
        set_grants(session, row.id, [GrantSpec("*", actions=ADMINISTRATION), GrantSpec("*")])
    wait_for(lambda: client.get("/admin/models").status_code == 200, 10)
    return client


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("kind", "format"), ROWS)
def test_a_row_of_the_table_is_what_its_upload_does(admin: httpx.Client, saved: Path, kind: str, format: str):
    path = saved / f"{kind}{ENDINGS[format]}"
    inputs, outputs = known(path)

    version = prepared(admin, f"{kind}-{format}", path, {"format": format})

    compare(predicted(admin, f"{kind}-{format}", inputs), outputs)
    documented(row_of(kind, format, version))


@pytest.mark.debian
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("kind", "name", "inputs"), SCRIPTS)
def test_a_row_of_torchscript_is_what_its_upload_does(
    torch_admin: httpx.Client, files: Path, kind: str, name: str, inputs: str
):
    answers = json.loads((files / f"{name}.json").read_text())

    version = prepared(torch_admin, name, files / f"{name}.pt", {"inputs": inputs})

    given = {key: np.array(rows, np.float32) for key, rows in answers["inputs"].items()}
    compare(predicted(torch_admin, name, given), {"output_0": np.array(answers["output"], np.float32)})
    documented(row_of(kind, "torchscript", version))


@pytest.fixture(scope="module")
def torch_admin(
    redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory, python: Path
) -> Iterator[httpx.Client]:
    # The preparing worker runs where PyTorch is.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "executable", str(python))
        yield from administered(redis_server, tmp_path_factory.mktemp("torch-installation"))


def test_the_table_has_a_row_for_each_upload_that_is_tested():
    wanted = {(kind, f"`{format}`") for kind, format in ROWS} | {(kind, "`torchscript`") for kind, *_ in SCRIPTS}
    assert {tuple(row[:2]) for row in table()} == wanted
    assert len(table()) == len(wanted)


def known(path: Path) -> tuple[Inputs, Inputs]:
    """Inputs and the framework's own outputs, by their names."""
    with np.load(f"{path}.npz") as arrays:
        found = dict(arrays)
    inputs, outputs = (
        {key.partition(".")[2]: array for key, array in found.items() if key.startswith(f"{part}.")}
        for part in ("inputs", "outputs")
    )
    return inputs, outputs


def prepared(admin: httpx.Client, model: str, path: Path, query: dict[str, str]) -> dict[str, Any]:
    """The version, uploaded and AVAILABLE, after all variants were tried."""
    address = f"/admin/models/{model}/versions"
    answer = admin.put(address, params=query, content=path.read_bytes())
    assert answer.status_code == 202, answer.text
    ended(admin, f"{address}/1")
    again = admin.post(f"{address}/1/prepare", json={"variants": list(NAMES)})
    assert again.status_code == 202, again.text
    return ended(admin, f"{address}/1")


def ended(admin: httpx.Client, address: str) -> dict[str, Any]:
    wait_for(lambda: admin.get(address).json()["preparation"]["done"], PREPARED_SECONDS)
    version: dict[str, Any] = admin.get(address).json()
    assert (version["state"], version["report"].get("failed_repeat")) == ("AVAILABLE", None), version
    return version


def predicted(admin: httpx.Client, model: str, inputs: Inputs) -> Inputs:
    """What the gateway answers, by the names of the signature."""
    body = {"inputs": {name: array.tolist() for name, array in inputs.items()}}
    answers = [admin.post(f"/v1/models/{model}:predict", json=body)]
    until = time.monotonic() + ANSWERED_SECONDS
    # A version that TensorFlow serves is loaded by the first call.
    while answers[-1].status_code != 200 and time.monotonic() < until:
        answers.append(admin.post(f"/v1/models/{model}:predict", json=body))
    assert answers[-1].status_code == 200, answers[-1].text
    found = answers[-1].json()["outputs"]
    if isinstance(found, dict):
        return {name: np.array(value) for name, value in found.items()}
    [spec] = admin.get(f"/admin/models/{model}/versions/1").json()["signature"]["outputs"]
    return {spec["name"]: np.array(found)}


def compare(found: Inputs, expected: Inputs) -> None:
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-4, atol=1e-5)


def row_of(kind: str, format: str, version: dict[str, Any]) -> list[str]:
    """What was measured, as the document's table has it."""
    variants = version["report"]["variants"]
    chosen = version["report"]["chosen"]
    made = [row["name"] for row in variants if row["max_abs_difference"] is not None]
    unfaithful = [row["name"] for row in variants if row["name"] in made and not row["accepted"]]
    # Whether a quantised one is accepted depends on the instances that were drawn for the file's digest.
    assert set(unfaithful) <= set(QUANTISED), variants
    exact = [name for name in made if name not in (chosen, *QUANTISED)]
    quantised = [name for name in made if name in QUANTISED]
    unmade = [row["name"] for row in variants if row["name"] not in made]
    lists = (", ".join(f"`{name}`" for name in names) for names in (exact, quantised, unmade))
    return [kind, f"`{format}`", FRAMEWORKS[format], f"`{chosen}`", *lists]


def documented(row: list[str]) -> None:
    assert row in table(), f"it should say: | {' | '.join(row)} |"


def table() -> list[list[str]]:
    """The rows of the document's table, cell by cell."""
    section = (ROOT / "docs" / "models.md").read_text().partition(f"{HEADING}\n")[2].partition("\n## ")[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line.startswith("|")
    ]
    return rows[2:]
