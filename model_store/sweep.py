"""Takes out of the store what no row refers to: bytes of deleted versions, and what died on its way in."""

from __future__ import annotations

from dataclasses import dataclass

from model_store.artifacts import Artifacts
from model_store.database import Sessions, transaction
from model_store.registry import digests_in_use

# Longer than any upload or preparation takes between storing bytes and committing the row that names them.
OLD_SECONDS = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Swept:
    """How many files were removed."""

    blobs: int
    incoming: int


def sweep(sessions: Sessions, artifacts: Artifacts, older_than_seconds: float = OLD_SECONDS) -> Swept:
    """Removes unreferenced files that nobody wrote within that time; any number of processes may do so at once."""

    # Read before the walk: bytes of a version that is published meanwhile are new, and stay for that reason.
    with transaction(sessions, write=False) as session:
        used = digests_in_use(session)
    return Swept(
        artifacts.sweep_blobs(older_than_seconds, used.__contains__), artifacts.sweep_incoming(older_than_seconds)
    )
