"""Bundles on devices: an environment with numpy and one runtime, with nothing of Sluice and nothing of Keras."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model_store.signature import Tensor
from sluice.client import Client
from tests.bundle_kit import members
from tests.environments import ROOT, install
from tests.models import ModelFile
from tests.system import System

MODEL = "camera"
VARIANTS = ("onnx", "onnx-int8", "savedmodel", "litert", "litert-int8")
PREPARED_SECONDS = 150


@dataclass(frozen=True, slots=True)
class Exported:
    """A model's file, what the gateway answers, and where bundles come from."""

    model: ModelFile
    answered: Tensor
    sluice: Client


@pytest.fixture(scope="module")
def exported(system: System, model_files: dict[str, ModelFile]) -> Iterator[Exported]:
    """A convolutional network, prepared with every variant that a device may want."""
    model = model_files["conv"]
    with system.admin() as admin:
        admin.upload(MODEL, model.path)
        prepared(admin)
        admin.put(f"/admin/models/{MODEL}/variant-policy", {"variants": list(VARIANTS)})
        admin.post(f"/admin/models/{MODEL}/versions/1/prepare")
        offered = {variant["name"] for variant in prepared(admin)["variants"]}
        assert offered == set(VARIANTS)
        user = admin.post("/admin/clients", {"name": "devices", "grants": [{"model": MODEL}]})
        with Client(system.base_url, user["id"], user["client_secret"]) as caller:
            answered = caller.predict(MODEL, model.inputs["photo"])
        yield Exported(model, answered, admin)


def prepared(admin: Client) -> dict[str, Any]:
    """The version's document once its preparation is done."""
    until = time.monotonic() + PREPARED_SECONDS
    while not (found := admin.get(f"/admin/models/{MODEL}/versions/1"))["preparation"]["done"]:
        assert time.monotonic() < until, found
        time.sleep(0.5)
    assert found["state"] == "AVAILABLE", found
    document: dict[str, Any] = found
    return document


def python_of(variant: str) -> Path:
    """An interpreter with numpy and the variant's runtime; for TensorFlow, which takes a gigabyte, our own."""
    if variant == "savedmodel":
        return Path(sys.executable)
    runtime = variant.partition("-")[0]
    return install(ROOT / "tests" / "edge" / f"{runtime}.txt", ROOT / "build" / f"edge-{runtime}")


@pytest.mark.long  # packages are fetched, and each variant is made and proved
@pytest.mark.timeout(400)
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_device_answers_as_the_gateway_does(exported: Exported, tmp_path: Path, variant: str):
    path = f"/admin/models/{MODEL}/versions/1/bundle?variant={variant}"
    for name, data in members(b"".join(exported.sluice.download(path))).items():
        (tmp_path / name).write_bytes(data)
    np.savez(tmp_path / "inputs.npz", **exported.model.inputs)

    command = [python_of(variant), "predict.py", "inputs.npz", "outputs.npz"]
    device = {"PATH": "/usr/bin:/bin"}
    ended = subprocess.run(command, cwd=tmp_path, env=device, capture_output=True, text=True, timeout=120, check=False)

    assert ended.returncode == 0, ended.stderr[-2000:]
    with np.load(tmp_path / "outputs.npz") as outputs:
        [(name, found)] = outputs.items()
    assert np.allclose(np.array(json.loads(ended.stdout.splitlines()[-1])[name], np.float32), found)
    if variant.endswith("int8"):
        assert np.mean(found.argmax(-1) == exported.answered.argmax(-1)) >= 0.75
    else:
        assert np.all(np.abs(found - exported.answered) <= 2e-5 + 2e-4 * np.abs(exported.answered))
