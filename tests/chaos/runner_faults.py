"""Runners that die: killed in the middle of a batch, and for want of memory."""

from __future__ import annotations

import contextlib
import random
import signal
import time
from typing import Any

import psutil
from sqlalchemy import select

from model_store.database import transaction
from tests.chaos.callers import ended, signed_in, submit
from tests.chaos.fault import Fault
from tests.chaos.installation import Installation
from tests.chaos.process_faults import signalled
from tests.processes import wait_for
from tests.queue_kit import serve_model
from workers.runner.process import ENTRY, Runner
from workers.settings import WorkerSettings
from workers.tables import Job

MODEL = "tensorflow"
MAKE_SECONDS = 180.0
# TensorFlow is imported first, on a machine that is busy with everything else.
END_SECONDS = 180.0
AGAIN_SECONDS = 21.0
# A job that is claimed has been given to the runner by then.
BEGUN_SECONDS = 0.3
# A worker ends a process whose inference takes longer than its limit, and this model's first one starts TensorFlow.
PATIENT = {"SLUICE_HANG_LIMIT_SECONDS": "120"}
JOBS = 3
# Some seconds of inference.
ROUNDS = 20_000.0
# More megabytes than a runner may have, by far; the model takes a number below zero for that.
HUNGER = -64_000.0


class OfRunners(Fault):
    """What befalls a model that TensorFlow runs, in a runner beside each process that has loaded it."""

    case = "C01"

    def prepare(self, on: Installation) -> None:
        """Serve the model, once in an installation, and have it loaded."""
        for name in on.names("worker"):
            on.restart(name, PATIENT)
        on.wait_until_ready()
        if MODEL not in on.models:
            archive = on.folder / f"{MODEL}.tar"
            with Runner(WorkerSettings(scratch_dir=on.folder / "making"), entry="tests.runner_commands") as runner:
                runner.call("make_doubling_savedmodel", {}, {}, timeout_seconds=MAKE_SECONDS)
                (runner.scratch / "made.tar").rename(archive)
            serve_model(on.sessions, on.cluster.artifacts, archive, MODEL, batch_seconds=0.5, runtime=MODEL)
            on.models.add(MODEL)
        with contextlib.closing(signed_in(on, self._name(), MODEL)) as caller:
            ended(caller, submit(caller, MODEL, 1.0, 1.0), END_SECONDS)

    def end(self, on: Installation) -> None:
        for name in on.names("worker"):
            on.restart(name)
            on.wait_until_ready()

    def _name(self) -> str:
        return f"{type(self).__name__}-{time.monotonic_ns()}"


class RunnerKilled(OfRunners):
    """A runner is killed in mid-batch; its job runs again in another, at its second attempt."""

    def begin(self, on: Installation, chance: random.Random) -> None:  # noqa: ARG002 - all of them
        with contextlib.closing(signed_in(on, self._name(), MODEL)) as caller:
            # One alone: those of a larger batch are run again one by one, at once and within the same attempt.
            job = submit(caller, MODEL, 1.0, ROUNDS)
            wait_for(lambda: row(on, job).state == "running", END_SECONDS)
            time.sleep(BEGUN_SECONDS)
            assert row(on, job).state == "running", "it was done before its runner was killed"
            signalled(runners(on), signal.SIGKILL)
            wait_for(lambda: row(on, job).attempt == 2, AGAIN_SECONDS)
            require_right([ended(caller, job, END_SECONDS)], [[1.0, ROUNDS]])


class RunnerHungry(OfRunners):
    """A job takes more memory than a runner may have; it fails, and the next one runs."""

    case = "C16"

    def begin(self, on: Installation, chance: random.Random) -> None:  # noqa: ARG002 - one of them
        with contextlib.closing(signed_in(on, self._name(), MODEL, "double")) as caller:
            hungry = submit(caller, MODEL, HUNGER, 1.0)
            others = [submit(caller, "double", float(number), 0.0) for number in range(JOBS)]
            require_right([ended(caller, job, END_SECONDS) for job in others], [[float(n), 0.0] for n in range(JOBS)])
            found = ended(caller, hungry, END_SECONDS)
            assert (found["state"], found["error"]["code"]) == ("failed", "runner_memory"), found
            require_right([ended(caller, submit(caller, MODEL, 5.0, 1.0), END_SECONDS)], [[5.0, 1.0]])


def runners(on: Installation) -> list[psutil.Process]:
    """The runners of all workers."""
    found = [process for name in on.names("worker") for process in on.children(name)]
    return [process for process in found if is_runner(process)]


def is_runner(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return ENTRY in process.cmdline()
    return False


def require_right(found: list[dict[str, Any]], rows: list[list[float]]) -> None:
    for document, row in zip(found, rows, strict=True):
        assert document["state"] == "succeeded", document
        assert document["predictions"] == [[2 * x for x in row]], document


def row(on: Installation, job: str) -> Job:
    """A job as the database has it, looked at from beside it."""
    with transaction(on.sessions, write=False) as session:
        return session.scalars(select(Job).where(Job.id == job)).one()
