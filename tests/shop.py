"""A preparing worker's work done in the test's own process, on a store and a database of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from model_store import registry
from model_store.artifacts import Artifacts
from model_store.database import Sessions, connect, sessions_of, transaction
from model_store.registry import Served
from model_store.tables import Version
from model_store.upload_options import UploadOptions
from tests.databases import make_tables
from workers.preparation import schedule
from workers.preparation.pipeline import prepare
from workers.settings import WorkerSettings
from workers.tables import Preparation

NOTHING_SAID = UploadOptions()
# Nobody warms up what is prepared here: there is no worker, whatever else runs on the machine.
NO_REDIS = "redis://127.0.0.1:1/0"


@dataclass(frozen=True)
class Ended:
    """What became of an upload."""

    state: str
    error_code: str | None
    error_message: str | None
    report: Mapping[str, Any]
    served: Served | None


@dataclass(frozen=True)
class Shop:
    """A store and a database, and a preparing worker's work done in this process."""

    sessions: Sessions
    artifacts: Artifacts
    settings: WorkerSettings

    def upload(self, path: Path, format: str | None = None, options: UploadOptions = NOTHING_SAID) -> str:
        """Publishes a file as version 1 of a model of its own, due for preparation; returns the model's name."""
        stored = self.artifacts.add_file(path)
        name = f"{path.stem}-{stored.digest[:8]}"
        with transaction(self.sessions) as session:
            registry.publish(
                session,
                name,
                format=format or path.suffix[1:],
                options=options.to_json(),
                digest=stored.digest,
                size_bytes=stored.size_bytes,
                uploaded_by="t",
            )
            schedule.create(session, name, 1)
        return name

    def prepare(
        self, path: Path, format: str | None = None, options: UploadOptions = NOTHING_SAID, **settings: object
    ) -> Ended:
        """`settings` are other than the shop's; a format and options are what an uploader says of the file."""
        name = self.upload(path, format, options)
        prepare(self.sessions, self.artifacts, self.settings.model_copy(update=settings), name, 1)
        return self.look(name)

    def look(self, name: str) -> Ended:
        with transaction(self.sessions) as session:
            version = session.get_one(Version, (name, 1))
            served = registry.served(session, name, 1) if version.state == "AVAILABLE" else None
            report = json.loads(version.report or "{}")
            return Ended(version.state, version.error_code, version.error_message, report, served)

    def work(self, name: str) -> Preparation:
        with transaction(self.sessions) as session:
            return session.get_one(Preparation, (name, 1))


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    root = tmp_path_factory.mktemp("shop")
    (root / "scratch").mkdir()
    settings = WorkerSettings(
        database_url=f"sqlite:///{root / 'sluice.db'}",
        store_dir=root / "store",
        scratch_dir=root / "scratch",
        redis_url=NO_REDIS,  # type: ignore[arg-type] # pydantic makes a secret of it
    )
    make_tables(settings)
    engine = connect(settings)
    yield Shop(sessions_of(engine), Artifacts.of(settings), settings)
    engine.dispose()
    assert list(settings.scratch_dir.iterdir()) == []
