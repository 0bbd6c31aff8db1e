"""Honest models, all of which must pass: the gate, the canonical archive, loading, and a dry run in a runner."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hostile.corpus import EVERYTHING
from tests.models import ROOT
from tests.shop import Shop
from workers.preparation import proof, structure
from workers.preparation.keras_uploads import KerasArchive, KerasH5, KerasUpload
from workers.runner.process import Runner
from workers.settings import WorkerSettings

GROUPS = ("layers", "shapes", "configs", "applications") if EVERYTHING else ("few",)
KINDS: dict[str, type[KerasUpload]] = {".keras": KerasArchive, ".h5": KerasH5}
# A runner keeps what TensorFlow traced for each model: after so many, a fresh one.
MODELS_OF_A_RUNNER = 40
# What was set out to be shown.
LEAST = 200


def made(folder: Path, group: str) -> list[Path]:
    """The group's models, saved by Keras in a process of their own."""
    folder.mkdir()
    environment = {
        **os.environ,
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "CUDA_VISIBLE_DEVICES": "-1",
        "KERAS_BACKEND": "tensorflow",
    }
    command = [sys.executable, "-m", "tests.honest", str(folder), group]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) >= LEAST  # in all groups together
    return sorted(folder.iterdir())


class Runners:
    """Runners one after the other."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._runner = Runner(settings)
        self._used = 0

    def next(self) -> Runner:
        self._used += 1
        if self._used % MODELS_OF_A_RUNNER == 0 or not self._runner.alive:
            self.close()
            self._runner = Runner(self._settings)
        return self._runner

    def close(self) -> None:
        self._runner.close()


@pytest.fixture
def runners(shop: Shop) -> Iterator[Runners]:
    opened = Runners(shop.settings)
    yield opened
    opened.close()


def refusal(path: Path, runner: Runner, folder: Path, settings: WorkerSettings) -> str | None:
    """Why a saved model is refused; None where it passes."""
    upload = KINDS[path.suffix](path, runner, folder, settings)
    try:
        upload.inspect()
        upload.rebuild()
        proof.reference(upload, upload.load(runner), seed=1)
    except Exception as error:  # noqa: BLE001 - every reason is told, of all models at once
        return f"{type(error).__name__}: {error}"
    return None


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("group", GROUPS)
def test_honest_models_pass(group: str, shop: Shop, runners: Runners, tmp_path: Path):
    refused: dict[str, str] = {}
    for path in made(tmp_path / "models", group):
        if path.suffix == ".json":
            structure.inspect(json.loads(path.read_bytes()))
            continue
        folder = tmp_path / f"of-{path.name}"
        folder.mkdir()
        if reason := refusal(path, runners.next(), folder, shop.settings):
            refused[path.name] = reason
    assert refused == {}
