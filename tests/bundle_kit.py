"""What tests of bundles share: a version with golden samples, and a bundle taken apart and put together again."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from model_store import golden
from model_store.artifacts import Artifacts
from model_store.database import Sessions, transaction
from model_store.tables import Version
from tests.queue_kit import doubling_model, serve_model
from tests.quiet_gateway import QuietGateway
from workers.environment import here

ROWS = np.array([[1.0, 2.0], [-3.0, 4.0]], np.float32)
REPORT = {"variants": [{"name": "onnx", "accepted": True, "max_abs_difference": 0.0}], "chosen": "onnx"}


def serve_doubled(sessions: Sessions, artifacts: Artifacts, folder: Path, model: str = "double") -> int:
    """A version with y = 2 * x as preparation leaves it: variant onnx, golden samples, environment, report."""
    number = serve_model(sessions, artifacts, doubling_model(folder / f"{model}.onnx"), model, report=REPORT)
    samples = folder / f"{model}.npz"
    samples.write_bytes(golden.pack({"x": ROWS}, {"y": ROWS * np.float32(2)}))
    with transaction(sessions) as session:
        version = session.get_one(Version, (model, number))
        version.golden = artifacts.add_file(samples).digest
        version.environment = replace(here(), absolute=1e-6).to_json()
    return number


def members(bundle: bytes) -> dict[str, bytes]:
    """The files of a zip by name."""
    with zipfile.ZipFile(io.BytesIO(bundle)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(files: Mapping[str, bytes]) -> bytes:
    """A zip of files."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return target.getvalue()


def keys_of(gateway: QuietGateway) -> bytes:
    """The set of keys that it publishes."""
    return gateway.http.get("/.well-known/bundle-keys.json").content
