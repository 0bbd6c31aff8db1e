"""A preparing worker's work in a process that a test can kill: `python -m tests.preparing MODEL NUMBER`."""

from __future__ import annotations

import sys

from model_store.artifacts import Artifacts
from model_store.database import connect, sessions_of
from workers.preparation.pipeline import prepare
from workers.settings import WorkerSettings

if __name__ == "__main__":
    settings = WorkerSettings()
    artifacts = Artifacts.of(settings)
    prepare(sessions_of(connect(settings)), artifacts, settings, sys.argv[1], int(sys.argv[2]))
