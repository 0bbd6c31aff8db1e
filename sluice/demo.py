"""`sluice up --demo`: four trained models, a client that may use them, and commands to paste."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from sluice.child import Child, Program
from sluice.client import Client, Json, Refused, SluiceFailed
from sluice.client_commands import all_clients
from sluice.data_folder import DataFolder, write_private
from sluice.demo_artifacts import ARTIFACTS, FILE_ARTIFACTS, Artifact, grant, is_in_place
from sluice.demo_descriptions import describe
from sluice.demo_messages import files_message, numbers_message
from sluice.failures import CommandFailed
from sluice.preparation import LOOK_SECONDS, follow
from sluice.trained import DIGIT, EXAMPLE, SENTENCE, TONE, Trained, TrainedFiles

CLIENT = "demo"
# Those of any client, and `explain`.
SCOPES = ("predict", "explain", "jobs", "models:read")
# Gateways learn of a new client within half a second.
PATIENCE_SECONDS = 10.0


class DemoFailed(CommandFailed):
    """The demo could not be set up; the system runs on without it."""


class Canceled(Exception):
    """The system stops; nobody waits for the demo any more."""


class Demo:
    """Sets the demo up in a thread beside the running system; what is there already is left as it is."""

    def __init__(self, folder: DataFolder, address: str, console: Console, *, small: bool = False) -> None:
        """`small` leaves out the models that take texts and recordings."""
        self._folder = folder
        self._artifacts = ARTIFACTS if small else ARTIFACTS + FILE_ARTIFACTS
        self._address = address
        self._console = console
        self._canceled = threading.Event()
        self._thread: threading.Thread | None = None
        self._own_administrator = folder.demo / "administrator.json"

    def training(self) -> Program | None:
        """The program that trains the models; None where earlier runs have done it."""
        parts = [] if self._has_numbers() else ["numbers"]
        if self._artifacts != ARTIFACTS and not self._has_files():
            parts.append("files")
        if not parts:
            return None
        environment = {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self._folder.demo),
            "KERAS_HOME": str(self._folder.demo),
            "KERAS_BACKEND": "tensorflow",
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "CUDA_VISIBLE_DEVICES": "-1",
        }
        command = [sys.executable, "-P", "-m", "sluice.demo_training", str(self._folder.demo), *parts]
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
        with Client.from_file(self._credentials(), admin=True) as sluice:
            self._provide(sluice, ARTIFACTS, training, self._has_numbers)
            self._make_client(sluice)
        with Client.from_file(self._folder.demo_json) as sluice:
            answer = self._predict(sluice)
        self._say(answer)
        if self._artifacts != ARTIFACTS:
            # Whoever waits for the first prediction need not wait for these.
            with Client.from_file(self._folder.demo_json, admin=True) as sluice:
                if not all(is_in_place(sluice, artifact) for artifact in FILE_ARTIFACTS):
                    # An earlier run may have made the client, without these.
                    grant(sluice, json.loads(self._folder.demo_json.read_text())["client_id"], self._grants()["grants"])
                self._provide(sluice, FILE_ARTIFACTS, training, self._has_files)
            self._say_files()

    def _has_numbers(self) -> bool:
        return Trained.read(self._folder.demo) is not None and (self._folder.demo / DIGIT).exists()

    def _has_files(self) -> bool:
        return TrainedFiles.read(self._folder.demo) is not None

    def _provide(
        self, sluice: Client, artifacts: Sequence[Artifact], training: Child | None, trained: Callable[[], bool]
    ) -> None:
        """Upload and describe what is not there, once it is trained."""
        missing = [artifact for artifact in artifacts if not is_in_place(sluice, artifact)]
        waits = training is not None and not trained()
        if waits or missing:
            with self._progress() as progress:
                if training is not None and waits:
                    self._watch_training(training, progress, trained)
                self._prepare(sluice, missing, progress)
        for model in sorted({artifact.model for artifact in artifacts}):
            describe(sluice, model)

    def _credentials(self) -> Path:
        """The administrator's: those of an earlier run, else those just made."""
        path = self._folder.demo_json if self._folder.demo_json.exists() else self._own_administrator
        known = json.loads(path.read_text())
        # An earlier run may have ended half-way, and have listened on another port.
        if known["base_url"] != self._address:
            write_private(path, json.dumps(known | {"base_url": self._address}))
        return path

    def _watch_training(self, training: Child, progress: Progress, trained: Callable[[], bool]) -> None:
        tasks: dict[str, TaskID] = {}
        starting = progress.add_task("Starting TensorFlow", total=None, what="")
        ending = None
        done = False
        while ending is None and not done:
            ending = training.ending()
            done = trained()
            for said in filter(None, map(_epoch, training.logbook.new_lines())):
                progress.update(starting, visible=False)
                name = said["training"]
                if name not in tasks:
                    tasks[name] = progress.add_task(f"Training {name}", total=said["epochs"], what="")
                progress.update(tasks[name], completed=said["epoch"], what=_figures(said))
            self._pause()
        self._require_success(training)

    def _prepare(self, sluice: Client, missing: list[Artifact], progress: Progress) -> None:
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

    def _make_client(self, sluice: Client) -> None:
        if self._folder.demo_json.exists():
            return
        ids = [client["id"] for client in all_clients(sluice) if client["name"] == CLIENT]
        grants = self._grants()
        if ids:
            made = sluice.post(f"/admin/clients/{ids[0]}/rotate")
            sluice.put(f"/admin/clients/{ids[0]}/grants", grants)
        else:
            made = sluice.post("/admin/clients", {"name": CLIENT, "scopes": list(SCOPES), **grants})
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

    def _grants(self) -> Json:
        return {"grants": [{"model": model} for model in sorted({artifact.model for artifact in self._artifacts})]}

    def _predict(self, sluice: Client) -> list[float]:
        """The probabilities of the example digit."""
        example = json.loads((self._folder.demo / EXAMPLE).read_text())
        until = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                answer: list[float] = sluice.predict("mnist", example["instances"])[0].tolist()
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
        for name in (EXAMPLE, DIGIT):
            shutil.copyfile(self._folder.demo / name, self._folder.root / name)
        known = json.loads(self._folder.demo_json.read_text())
        # curl reads the secret from a file: on the screen or among arguments others could see it.
        for file, whose in ((login, ""), (login.with_name("admin.curl"), "admin_")):
            write_private(file, f'user = "{known[f"{whose}client_id"]}:{known[f"{whose}client_secret"]}"\n')
        self._print(numbers_message(trained, probabilities, self._address, login, example))

    def _say_files(self) -> None:
        trained = TrainedFiles.read(self._folder.demo)
        if trained is None or self._canceled.is_set():
            return
        for file in (SENTENCE, TONE):
            shutil.copyfile(self._folder.demo / file, self._folder.root / file)
        self._print(files_message(trained, self._address, self._folder.root))

    def _print(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False)

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


def _epoch(line: str) -> Json:
    """What a line of the training says of an epoch, None for any other line."""
    with contextlib.suppress(ValueError):
        said = json.loads(line)
        if isinstance(said, dict) and "training" in said:
            return said
    return None


def _figures(said: Mapping[str, Json]) -> str:
    return "  ".join(f"{name} {said[name]:.3f}" for name in ("accuracy", "loss") if name in said)
