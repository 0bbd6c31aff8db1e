"""A preparing worker's work in a process that ends in the middle of it.

`python -m tests.preparing MODEL NUMBER` prepares; with `STEP self` it is killed at the very moment at which it shows
that step, and with `STEP runners` all of its runners are. With `publish self` it is killed once the version is warm.
"""

from __future__ import annotations

import os
import signal
import sys

import psutil

from model_store.artifacts import Artifacts
from model_store.database import connect, sessions_of
from workers.preparation import pipeline
from workers.preparation.lease import Lease
from workers.settings import WorkerSettings

# No step, since nobody is shown it: what was found is written down, and the version is about to serve.
PUBLISH = "publish"


def kill_at(wanted: str, whom: str) -> None:
    """Lets the fault happen where the step is told, so that no test has to come in time."""
    announce = Lease.announce

    def announced(lease: Lease, step: str) -> None:
        announce(lease, step)
        if step != wanted:
            return
        if whom == "self":
            os.kill(os.getpid(), signal.SIGKILL)
        for child in psutil.Process().children():
            child.kill()

    def published(*_: object) -> str:
        os.kill(os.getpid(), signal.SIGKILL)
        return "not reached"

    Lease.announce = announced  # type: ignore[method-assign] # see above
    if wanted == PUBLISH:
        pipeline._publish = published


if __name__ == "__main__":
    if len(sys.argv) > 3:
        kill_at(sys.argv[3], sys.argv[4])
    settings = WorkerSettings()
    artifacts = Artifacts.of(settings)
    pipeline.prepare(sessions_of(connect(settings)), artifacts, settings, sys.argv[1], int(sys.argv[2]))
