"""The files that the demo trains, and the versions that they become."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sluice.client import Client, Json, Refused
from sluice.preparation import version_path


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
FILE_ARTIFACTS = (Artifact("topics", 1, "topics.keras"), Artifact("tones", 1, "tones.keras"))


def is_in_place(sluice: Client, artifact: Artifact) -> bool:
    """Whether the version serves, or was retired: what somebody took out of service stays out. Raises Refused."""
    try:
        version = sluice.get(version_path(artifact.model, artifact.number))
    except Refused as error:
        if error.status == 404:
            return False
        raise
    retired = version["state"] == "END" and version["error"] is None
    return retired or bool(version["state"] == "AVAILABLE")


def grant(sluice: Client, client: str, grants: Sequence[Json]) -> None:
    """Let a client use these models too; what it was granted before, it keeps as it is. Raises Refused."""
    path = f"/admin/clients/{client}/grants"
    present = sluice.get(path)["grants"]
    named = {one["model"] for one in present}
    missing = [one for one in grants if one["model"] not in named]
    if missing:
        sluice.put(path, {"grants": present + missing})
