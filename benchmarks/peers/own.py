"""Sluice itself, as `sluice up --demo` starts it: tokens, limits, metrics, its queue, and one prediction process."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

from benchmarks.failures import BenchmarkFailed
from benchmarks.machine import ROOT, commit
from benchmarks.peers.forms import Form, predict_json, v2_binary, v2_json
from benchmarks.peers.models import IMAGE
from benchmarks.peers.peer import HOST, LOOK_SECONDS, Target, free_ports, inherited
from benchmarks.peers.processes import Group, running
from benchmarks.peers.workload import DIGITS, PHOTOGRAPHS, Workload
from sluice.client import Client, SluiceFailed
from sluice.data_folder import DataFolder
from sluice.preparation import follow

# The first start trains the demo's models and prepares them.
START_SECONDS = 300.0
KEPT = ("demo", "secrets", "lock")
# The demo's name of the model.
MNIST = "mnist"
READY, IN_VAIN = "Paste these two commands", "could not be set up"
SETTINGS = """\
`sluice up --demo --workers 1`: one gateway process, one prediction process, Redis as it comes with it. Each request
carries a token, which is checked, and passes limits, metrics and the queue; what waits together is one batch."""


@dataclass(frozen=True, slots=True)
class SluiceItself:
    """The system on a data folder; one that is in use cannot be measured."""

    folder: DataFolder
    name: str = "Sluice"

    @property
    def version(self) -> str:
        return f"Sluice {commit()}"

    @property
    def settings(self) -> str:
        return " ".join(SETTINGS.split())

    def forms(self, workload: str) -> tuple[Form, ...]:
        model = MNIST if workload == DIGITS else PHOTOGRAPHS
        v2 = f"/v2/models/{model}/infer"
        return predict_json(f"/v1/models/{model}:predict"), v2_json(v2, IMAGE), v2_binary(v2, IMAGE)

    def install(self) -> None:
        """Begin with an empty data folder: what another version of Sluice has prepared may be of another kind.

        The demo's training is kept. Raises DataFolderInUse, DataFolderInvalid. The environment is the benchmark's own.
        """
        self.folder.make()
        with self.folder.lock("the benchmark"):
            (self.folder.demo / "administrator.json").unlink(missing_ok=True)
            for entry in self.folder.root.iterdir():
                if entry.name not in KEPT:
                    shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        self.folder.make()

    @contextlib.contextmanager
    def serving(self, workload: Workload) -> Iterator[Target]:
        (port,) = free_ports(1)
        command = [sys.executable, "-m", "sluice", "up", "--demo", "--workers", "1"]
        command += ["--data", str(self.folder.root), "--port", str(port)]
        with running(command, inherited(), ROOT, self.folder.root / "up.txt") as group:
            wait_until_said(group, READY)
            if workload.name == PHOTOGRAPHS:
                with self._refusals():
                    self._add(PHOTOGRAPHS, workload.model.with_suffix(".keras"))
            yield Target(port, lambda: self._token(port))

    def _token(self, port: int) -> str:
        """A new access token of the demo's client; raises BenchmarkFailed."""
        known = json.loads(self.folder.demo_json.read_text())
        try:
            answer = httpx.post(
                f"http://{HOST}:{port}/oauth/token",
                data={"grant_type": "client_credentials"},
                auth=(known["client_id"], known["client_secret"]),
                trust_env=False,
            )
            return str(answer.raise_for_status().json()["access_token"])
        except httpx.HTTPError as error:
            raise BenchmarkFailed(f"no token: {error!r}") from error

    def _add(self, model: str, file: Path) -> None:
        """Upload and prepare a model, and let the demo's client use it."""
        known = json.loads(self.folder.demo_json.read_text())
        with Client.from_file(self.folder.demo_json, admin=True) as sluice:
            uploaded = sluice.upload(model, file)
            follow(sluice, model, uploaded["version"], lambda _: None)
            grants = [{"model": name} for name in (MNIST, "linear", model)]
            sluice.put(f"/admin/clients/{known['client_id']}/grants", {"grants": grants})

    @contextlib.contextmanager
    def _refusals(self) -> Iterator[None]:
        try:
            yield
        except SluiceFailed as error:
            raise BenchmarkFailed(str(error)) from error


def wait_until_said(group: Group, text: str) -> None:
    """Until the program has written this; raises BenchmarkFailed."""
    until = time.monotonic() + START_SECONDS
    while text not in (said := group.said()):
        group.require_running()
        if IN_VAIN in said:
            raise group.failed("the demo is missing")
        if time.monotonic() > until:
            raise group.failed(f"not ready after {START_SECONDS:g} seconds")
        time.sleep(LOOK_SECONDS)
