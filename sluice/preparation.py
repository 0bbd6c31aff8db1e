"""Following the preparation of an uploaded version from the outside, until it serves or is refused."""

from __future__ import annotations

import time
from collections.abc import Callable
from urllib.parse import quote

from sluice.client import Json, Sluice
from sluice.failures import CommandFailed

LOOK_SECONDS = 0.3


class PreparationFailed(CommandFailed):
    """The version does not serve; the message says why."""


def version_path(model: str, number: int) -> str:
    """Where administrators see a version."""
    return f"/admin/models/{quote(model, safe='')}/versions/{number}"


def follow(sluice: Sluice, model: str, number: int, step: Callable[[str], None]) -> Json:
    """Wait until the version is AVAILABLE and return it as the gateway describes it.

    At each look `step` is told what is being done.

    Raises PreparationFailed where it ends otherwise, Refused, Unreachable.
    """
    while True:
        version = sluice.get(version_path(model, number))
        if version["state"] == "AVAILABLE":
            return version
        if version["state"] in ("UNLOADING", "END"):
            error = version["error"] or {"message": "it was retired", "code": "retired"}
            raise PreparationFailed(f"{model} version {number} does not serve: {error['message']} ({error['code']})")
        preparation = version["preparation"]
        step(preparation["step"] if preparation is not None else "waiting")
        time.sleep(LOOK_SECONDS)
