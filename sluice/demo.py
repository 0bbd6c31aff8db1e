"""`sluice up --demo`: two trained models, a client that may use them, and two commands to paste."""

from __future__ import annotations

import contextlib
import json
import shlex
import shutil
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from sluice.child import Child, Program
from sluice.client import Json, Refused, Sluice, SluiceFailed
from sluice.client_commands import all_clients
from sluice.data_folder import DataFolder, write_private
from sluice.failures import CommandFailed
from sluice.preparation import LOOK_SECONDS, follow, version_path
from sluice.trained import EXAMPLE, Trained

CLIENT = "demo"
# Gateways learn of a new client within half a second.
PATIENCE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Artifact:
    """A file of the training and the version that it becomes."""

    model: str
    number: int
    file: str


ARTIFACTS = (
    Artifact("mnist", 1, "mnist.keras"),
    Artifact("mnist", 2, "mnist.h5"),
    Artifact("linear", 1, "linear.keras"),
)


class DemoFailed(CommandFailed):
    """The demo could not be set up; the system runs on without it."""


class Canceled(Exception):
    """The system stops; nobody waits for the demo any more."""


class Demo:
    """Sets the demo up in a thread beside the running system; what is there already is left as it is."""

    def __init__(self, folder: DataFolder, address: str, console: Console) -> None:
        self._folder = folder
        self._address = address
        self._console = console
        self._canceled = threading.Event()
        self._thread: threading.Thread | None = None
        self._own_administrator = folder.demo / "administrator.json"

    def training(self) -> Program | None:
        """The program that trains the models; None where an earlier run has done it."""
        if Trained.read(self._folder.demo) is not None:
            return None
        environment = {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self._folder.demo),
            "KERAS_HOME": str(self._folder.demo),
            "KERAS_BACKEND": "tensorflow",
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "CUDA_VISIBLE_DEVICES": "-1",
        }
        command = [sys.executable, "-P", "-m", "sluice.demo_training", str(self._folder.demo)]
        return Program("demo-training", command, environment, self._folder.root)

    def administrator(self, environment: Mapping[str, str]) -> Program | None:
        """The program that makes the demo's administrator in this environment's database; None where there is one."""
        if self._folder.demo_json.exists() or self._own_administrator.exists():
            return None
        # An administrator of an earlier run whose secret is lost keeps its name.
        name = f"{CLIENT}-admin-{time.time_ns() // 1_000_000:x}"
        command = [sys.executable, "-P", "-m", "sluice", "admin", "create", name, "--url", self._address]
        command += ["--out", str(self._own_administrator)]
        return Program("demo-administrator", command, environment, self._folder.root)

    def start(self, training: Child | None, administrator: Child | None) -> None:
        """Set up everything in a thread, once those two have ended; the outcome is printed."""
        self._thread = threading.Thread(target=self._run, args=(training, administrator), name="demo", daemon=True)
        self._thread.start()

    def cancel(self) -> None:
        """Stop as soon as possible and print nothing more."""
        self._canceled.set()
        if self._thread is not None:
            self._thread.join(timeout=5)

    def _run(self, training: Child | None, administrator: Child | None) -> None:
        try:
            self._set_up(training, administrator)
        except (CommandFailed, SluiceFailed, OSError) as error:
            if not self._canceled.is_set():
                self._console.print(f"[red]The demo could not be set up:[/] {escape(str(error))}", highlight=False)
        except Canceled:
            pass

    def _set_up(self, training: Child | None, administrator: Child | None) -> None:
        if administrator is not None:
            self._wait_for(administrator)
        with Sluice.from_file(self._credentials(), admin=True) as sluice:
            missing = [artifact for artifact in ARTIFACTS if not is_in_place(sluice, artifact)]
            if training is not None or missing:
                with self._progress() as progress:
                    if training is not None:
                        self._watch_training(training, progress)
                    self._prepare(sluice, missing, progress)
            self._make_client(sluice)
        with Sluice.from_file(self._folder.demo_json) as sluice:
            answer = self._predict(sluice)
        self._say(answer)

    def _credentials(self) -> Path:
        """The administrator's: those of an earlier run, else those just made."""
        path = self._folder.demo_json if self._folder.demo_json.exists() else self._own_administrator
        known = json.loads(path.read_text())
        # An earlier run may have ended half-way, and have listened on another port.
        if known["base_url"] != self._address:
            write_private(path, json.dumps(known | {"base_url": self._address}))
        return path

    def _watch_training(self, training: Child, progress: Progress) -> None:
        tasks: dict[str, TaskID] = {}
        starting = progress.add_task("Starting TensorFlow", total=None, what="")
        ending = None
        while ending is None:
            ending = training.ending()
            for said in filter(None, map(_epoch, training.logbook.new_lines())):
                progress.update(starting, visible=False)
                name = said["training"]
                if name not in tasks:
                    tasks[name] = progress.add_task(f"Training {name}", total=said["epochs"], what="")
                progress.update(tasks[name], completed=said["epoch"], what=_figures(said))
            self._pause()
        self._require_success(training)

    def _prepare(self, sluice: Sluice, missing: list[Artifact], progress: Progress) -> None:
        uploads = []
        for artifact in missing:
            task = progress.add_task(f"Preparing {artifact.file}", total=None, what="uploading")
            uploaded = sluice.upload(artifact.model, self._folder.demo / artifact.file)
            progress.update(task, what="waiting")
            uploads.append((task, artifact.model, uploaded["version"]))
        for task, model, number in uploads:

            def show(step: str, task: TaskID = task) -> None:
                self._require_wanted()
                progress.update(task, what=step)

            follow(sluice, model, number, show)
            progress.update(task, total=1, completed=1, what=f"{model} version {number} is available")

    def _make_client(self, sluice: Sluice) -> None:
        if self._folder.demo_json.exists():
            return
        ids = [client["id"] for client in all_clients(sluice) if client["name"] == CLIENT]
        grants = {"grants": [{"model": model} for model in sorted({artifact.model for artifact in ARTIFACTS})]}
        if ids:
            made = sluice.post(f"/admin/clients/{ids[0]}/rotate")
            sluice.put(f"/admin/clients/{ids[0]}/grants", grants)
        else:
            made = sluice.post("/admin/clients", {"name": CLIENT, **grants})
        administrator = json.loads(self._own_administrator.read_text())
        credentials = {
            "base_url": self._address,
            "client_id": made["id"],
            "client_secret": made["client_secret"],
            "admin_client_id": administrator["client_id"],
            "admin_client_secret": administrator["client_secret"],
        }
        write_private(self._folder.demo_json, json.dumps(credentials, indent=2))
        self._own_administrator.unlink()

    def _predict(self, sluice: Sluice) -> list[float]:
        """The probabilities of the example digit."""
        example = json.loads((self._folder.demo / EXAMPLE).read_text())
        until = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                answer: list[float] = sluice.predict("mnist", example["instances"])[0]
                return answer
            except Refused as error:
                if error.status not in (401, 404, 503) or time.monotonic() > until:
                    raise
            self._pause()

    def _say(self, probabilities: list[float]) -> None:
        trained = Trained.read(self._folder.demo)
        if trained is None or self._canceled.is_set():
            return
        example, login = self._folder.root / EXAMPLE, self._folder.root / "demo.curl"
        shutil.copyfile(self._folder.demo / EXAMPLE, example)
        known = json.loads(self._folder.demo_json.read_text())
        # curl reads the secret from a file: on the screen or among arguments others could see it.
        for file, whose in ((login, ""), (login.with_name("admin.curl"), "admin_")):
            write_private(file, f'user = "{known[f"{whose}client_id"]}:{known[f"{whose}client_secret"]}"\n')
        weights = ", ".join(f"{weight:.4f}" for weight in trained.weights)
        best = max(range(len(probabilities)), key=probabilities.__getitem__)
        lines = (
            "",
            f"mnist   accuracy {trained.accuracy:.3f} on 1,000 held-out digits",
            f"linear  w = ({weights}), b = {trained.bias:.4f}; "
            f"off by at most {max(trained.weights_error, trained.bias_error):.4f}",
            "",
            "Paste these two commands: get a token, predict a digit.",
            "",
            *commands(self._address, login, example),
            "",
            f"Sluice's answer just now: the digit is a {best} (probability {probabilities[best]:.3f}); "
            f"in truth it is a {trained.digit}.",
        )
        self._console.print("\n".join(lines), markup=False, highlight=False)

    def _wait_for(self, errand: Child) -> None:
        while errand.ending() is None:
            self._pause()
        self._require_success(errand)

    def _require_success(self, errand: Child) -> None:
        ending = errand.ending()
        if ending is not None and ending.code != 0:
            lines = "\n".join(f"    {line[:300]}" for line in errand.logbook.last_lines(5))
            raise DemoFailed(f"{errand.program.name} {ending}. The end of {errand.logbook.path}:\n{lines}")

    def _pause(self) -> None:
        self._canceled.wait(LOOK_SECONDS)
        self._require_wanted()

    def _require_wanted(self) -> None:
        if self._canceled.is_set():
            raise Canceled

    @contextlib.contextmanager
    def _progress(self) -> Iterator[Progress]:
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[what]}"),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=self._console) as progress:
            yield progress


def commands(address: str, login: Path, example: Path) -> tuple[str, str]:
    """Two commands for a POSIX shell with curl: a token into a variable, then a prediction with it."""
    found = r"""sed 's/.*"access_token": *"\([^"]*\)".*/\1/'"""
    return (
        f"TOKEN=$(curl -sS -K {shlex.quote(str(login))} -d grant_type=client_credentials {address}/oauth/token"
        f" | {found})",
        f'curl -sS -H "Authorization: Bearer $TOKEN" -d {shlex.quote(f"@{example}")} {address}/v1/models/mnist:predict',
    )


def is_in_place(sluice: Sluice, artifact: Artifact) -> bool:
    """Whether the version serves, or was retired: what somebody took out of service stays out. Raises Refused."""
    try:
        version = sluice.get(version_path(artifact.model, artifact.number))
    except Refused as error:
        if error.status == 404:
            return False
        raise
    retired = version["state"] == "END" and version["error"] is None
    return retired or bool(version["state"] == "AVAILABLE")


def _epoch(line: str) -> Json:
    """What a line of the training says of an epoch, None for any other line."""
    with contextlib.suppress(ValueError):
        said = json.loads(line)
        if isinstance(said, dict) and "training" in said:
            return said
    return None


def _figures(said: Mapping[str, Json]) -> str:
    return "  ".join(f"{name} {said[name]:.3f}" for name in ("accuracy", "loss") if name in said)
