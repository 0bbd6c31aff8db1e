"""The installation that is measured: models prepared and clients made once, through the product, and kept between runs.

Each experiment gets a copy of it, so that none finds what another has left.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks import models, system
from benchmarks.machine import ROOT
from benchmarks.making import make_models
from benchmarks.system import STOP_SECONDS, Options, System
from sluice.client import Client
from sluice.data_folder import DataFolder, write_private
from sluice.preparation import follow

TRAINING_SECONDS = 300.0
CROWD = 100
# What a copy leaves behind: it gets its own, or does without.
LEFT = shutil.ignore_patterns("logs", "metrics", "scratch", "redis", "lock", "models")
# Where one of these changes, models have to be prepared again.
SOURCES = (
    "workers/preparation/**/*.py",
    "workers/runtimes/*.py",
    "model_store/*.py",
    "auth/tables.py",
    "alembic/versions/*.py",
    "sluice/demo_training.py",
    "benchmarks/models.py",
    "benchmarks/installation.py",
)


@dataclass(frozen=True, slots=True)
class Installation:
    """A data folder with both models AVAILABLE, and the clients that may use them, by name."""

    root: Path

    @property
    def clients_file(self) -> Path:
        return self.root / "clients.json"

    @property
    def trained(self) -> Path:
        """Where the files of the models are, and what the training found."""
        return self.root / "models"

    @contextlib.contextmanager
    def copy(self, name: str, options: Options) -> Iterator[System]:
        """Redis and the database of a fresh copy; it is removed afterwards, but for its logs."""
        root = self.root.with_name(f"{self.root.name}-{name}")
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(self.root, root, ignore=LEFT, copy_function=_copy_or_link)
        try:
            with system.running(DataFolder.at(root), options) as started:
                yield started
        finally:
            for entry in root.iterdir():
                if entry.name != "logs":
                    shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def made(root: Path, *, small: bool, say: Callable[[str], None]) -> Installation:
    """The installation in this folder, made now unless an earlier run did; raises BenchmarkFailed, SluiceFailed."""
    installation = Installation(root.resolve())
    mark, now = installation.root / "made-by", _fingerprint()
    if mark.exists() and mark.read_text() == now:
        return installation
    _empty(installation)
    say("Making and preparing the models; the next run finds them.")
    _make_models(installation, small=small)
    with system.running(DataFolder.at(installation.root), Options(), STOP_SECONDS) as started:
        started.run("migrate")
        started.start_both()
        started.start_preparing()
        _furnish(installation, started)
    mark.write_text(now)
    return installation


def _furnish(installation: Installation, started: System) -> None:
    """An administrator, the models, and the clients; all but the first come over HTTP."""
    administrator = installation.root / "administrator.json"
    started.run("admin", "create", "benchmark", "--out", str(administrator), "--url", started.address)
    known = json.loads(administrator.read_text())
    found = {"administrator": {name: known[name] for name in ("client_id", "client_secret")}}
    with Client.from_file(administrator) as sluice:
        names = (models.DIGITS, models.PHOTOGRAPHS, models.COLOURS)
        for name in names:
            [file] = [file for file in installation.trained.glob(f"{name}.*") if file.suffix in (".keras", ".onnx")]
            uploaded = sluice.upload(name, file)
            follow(sluice, name, uploaded["version"], lambda _: None)
        grants = [{"model": name} for name in names]
        for name in ("caller", *(f"caller-{number}" for number in range(CROWD))):
            new = sluice.post("/admin/clients", {"name": name, "grants": grants})
            found[name] = {"client_id": new["id"], "client_secret": new["client_secret"]}
    write_private(installation.clients_file, json.dumps(found))


def _make_models(installation: Installation, *, small: bool) -> None:
    installation.trained.mkdir(exist_ok=True)
    size = ["--small"] if small else []
    make_models("benchmarks.models", str(installation.trained), *size, seconds=TRAINING_SECONDS)


def _empty(installation: Installation) -> None:
    """Remove everything but the models' own files; raises DataFolderInvalid for somebody else's folder."""
    folder = DataFolder.at(installation.root)
    folder.make()
    for entry in folder.root.iterdir():
        if entry.name not in ("models", "secrets"):
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


@functools.cache
def _fingerprint() -> str:
    files = sorted(file for pattern in SOURCES for file in ROOT.glob(pattern))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def _copy_or_link(source: str, target: str) -> str:
    """Artifacts never change: a second name is enough."""
    if "/store/" in source:
        os.link(source, target)
        return target
    return shutil.copy2(source, target)
