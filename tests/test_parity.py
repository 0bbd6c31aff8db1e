"""From an uploaded file to predictions through the queue that equal Keras's own, over HTTP alone; and bad files."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest

from auth.scopes import Scope
from model_store.signature import Tensor, Tensors
from sluice.client import Client
from sluice.preparation import version_path
from tests.models import NAMES, ModelFile
from tests.processes import Cluster, wait_for
from tests.serving import client_id_of
from tests.system import System

PREPARATION_SECONDS = 150


@pytest.fixture(scope="module")
def admin(system: System) -> Iterator[Client]:
    with system.admin() as client:
        yield client


def uploaded(admin: Client, model: ModelFile) -> str:
    """The name under which a model was uploaded and granted to the administrator's client, prepared or being so."""
    name = f"parity-{model.name}"
    if all(known["name"] != name for known in admin.get("/admin/models")["models"]):
        assert admin.upload(name, model.path)["version"] == 1
    own = next(client["id"] for client in admin.get("/admin/clients")["clients"] if client["name"] == "tests")
    grants = admin.get(f"/admin/clients/{own}/grants")["grants"]
    if all(grant["model"] != name for grant in grants):
        admin.put(f"/admin/clients/{own}/grants", {"grants": [*grants, {"model": name}]})
    return name


@pytest.fixture(scope="module")
def bad_files(admin: Client, model_files: dict[str, ModelFile], tmp_path_factory: pytest.TempPathFactory) -> None:
    """Uploaded as `bad-…`."""
    folder = tmp_path_factory.mktemp("bad")
    (folder / "no_model.keras").write_bytes(b"PK\x03\x04 and nothing that an archive has")
    for name in ("dense", "dense_h5"):
        model = model_files[name].path
        data = model.read_bytes()
        (folder / f"truncated{name.removeprefix('dense')}{model.suffix}").write_bytes(data[: len(data) * 2 // 3])
    for file in folder.iterdir():
        admin.upload(f"bad-{file.stem}", file)


def prepared(admin: Client, model: str) -> dict[str, Any]:
    """Version 1 as administrators see it, once its preparation has ended."""
    until = time.monotonic() + PREPARATION_SECONDS
    while (version := admin.get(version_path(model, 1)))["state"] not in ("AVAILABLE", "END"):
        assert time.monotonic() < until, version["preparation"]
        time.sleep(0.2)
    return dict(version)


def as_json(tensor: Tensor) -> list[object]:
    """Nested lists of what JSON can say; strings as text."""
    found: list[object] = json.loads(json.dumps(tensor.tolist(), default=bytes.decode))
    return found


def rows(inputs: Tensors) -> list[object]:
    """Bare values for a model with one input, objects for others."""
    columns = {name: as_json(tensor) for name, tensor in inputs.items()}
    if len(columns) == 1:
        return next(iter(columns.values()))
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def assert_equal(predictions: list[Any], expected: Tensors) -> None:
    for name, wanted in expected.items():
        found = np.array([row[name] for row in predictions] if len(expected) > 1 else predictions)
        assert found.shape == wanted.shape
        assert np.all(np.abs(found - wanted) <= 1e-5 + 1e-4 * np.abs(wanted)), name


# The others are prepared in tests/test_preparation.py too.
QUICK = ("dense", "text")


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.long) for name in NAMES]
)
def test_an_uploaded_model_predicts_as_keras_does(admin: Client, model_files: dict[str, ModelFile], name: str):
    model = model_files[name]
    path = f"/v1/models/{uploaded(admin, model)}"
    version = prepared(admin, f"parity-{name}")
    assert (version["state"], version["error"]) == ("AVAILABLE", None)
    body = {"instances": rows(model.inputs)}
    assert_equal(admin.post(f"{path}:predict", body)["predictions"], model.outputs)

    one_by_one = [admin.post(f"{path}:predict", {"instances": [row]})["predictions"][0] for row in body["instances"]]
    assert_equal(one_by_one, model.outputs)

    columns = {key: as_json(tensor) for key, tensor in model.inputs.items()}
    outputs = admin.post(f"{path}:predict", {"inputs": columns})["outputs"]
    named = outputs if len(model.outputs) > 1 else dict.fromkeys(model.outputs, outputs)
    for key, expected in model.outputs.items():
        assert_equal(named[key], {key: expected})

    job = admin.get(f"/v1/jobs/{admin.post(f'{path}:submit', body)['id']}", wait=60)
    assert (job["state"], job["error"]) == ("succeeded", None)
    assert_equal(job["predictions"], model.outputs)


def test_a_model_that_onnx_cannot_express_is_served_by_tensorflow_and_its_report_says_why(
    admin: Client, model_files: dict[str, ModelFile]
):
    for name in QUICK:
        version = prepared(admin, uploaded(admin, model_files[name]))
        (chosen,) = [variant for variant in version["variants"] if variant["chosen"]]
        assert chosen["runtime"] == ("tensorflow" if name == "text" else "onnx")
        assert version["report"]["chosen"] == chosen["name"]
    refused = {variant["name"]: variant["reason"] for variant in version["report"]["variants"]}
    assert "StringSplit" in refused["onnx"]
    assert refused["onnx"] in version["report"]["reason"]


@pytest.mark.usefixtures("bad_files")
@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("no_model", "zip_structure", "the file is no zip archive, or it is truncated"),
        ("truncated", "zip_structure", "the file is no zip archive, or it is truncated"),
        ("truncated_h5", "h5_structure", "not an HDF5 file, or truncated"),
    ],
)
def test_a_bad_file_ends_with_a_code_and_the_place(admin: Client, name: str, code: str, message: str):
    version = prepared(admin, f"bad-{name}")
    assert version["state"] == "END"
    assert version["error"]["code"] == code
    assert message in version["error"]["message"]
    last = version["report"]["steps"][-1]
    assert (last["name"], last["outcome"], last["detail"]) == ("inspect", "refused", version["error"]["message"])


def test_a_model_whose_load_is_ended_by_its_limits_says_so_and_others_serve(
    serving: Cluster, model_files: dict[str, ModelFile]
):
    caller = serving.caller("double", scopes=frozenset(Scope))
    # A second is less than it takes to import Keras.
    serving.start("prepare-worker", preparation_seconds=1.0)
    with model_files["dense"].path.open("rb") as file:
        uploaded = caller.put("/admin/models/endless/versions", content=file)
    assert uploaded.status_code == 202
    place = uploaded.headers["location"]
    wait_for(lambda: caller.get(place).json()["state"] == "END", PREPARATION_SECONDS)
    version = caller.get(place).json()
    assert version["error"] == {"code": "runner_timeout", "message": "the model took too long and was stopped"}
    # On a slow machine, what comes before it takes a second already.
    assert version["report"]["steps"][-1]["name"] in ("rebuild", "load")
    assert caller.post("/v1/models/endless:predict", json={"instances": [[1, 2]]}).status_code == 404
    assert caller.post("/v1/models/double:predict", json={"instances": [[1, 2]]}).status_code == 200
    with httpx.Client(base_url=caller.base_url, headers=serving.caller().headers) as granted:
        grant_all(caller, granted, "endless")
        status = granted.get("/v1/models/endless").json()
        assert (status["ready"], status["model_version_status"][0]["state"]) == (False, "END")
        assert status["model_version_status"][0]["status"] == {
            "error_code": "DEADLINE_EXCEEDED",
            "error_message": "runner_timeout: the model took too long and was stopped",
        }
        refused = granted.post("/v1/models/endless:predict", json={"instances": [[1, 2]]})
        assert (refused.status_code, refused.json()) == (
            404,
            {"error": "Servable not found for request: Latest(endless)"},
        )


def grant_all(admin: httpx.Client, client: httpx.Client, model: str) -> None:
    grants = {"grants": [{"model": model}]}
    assert admin.put(f"/admin/clients/{client_id_of(client)}/grants", json=grants).status_code == 200
