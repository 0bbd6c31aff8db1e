"""Following the preparation of an uploaded version from the outside, until it serves or is refused."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import quote

from sluice.answers import Json
from sluice.failures import CommandFailed

if TYPE_CHECKING:
    from sluice.client import Client

LOOK_SECONDS = 0.3


class PreparationFailed(CommandFailed):
    """The version does not serve; the message says why."""


def version_path(model: str, number: int) -> str:
    """Where administrators see a version."""
    return f"/admin/models/{quote(model, safe='')}/versions/{number}"


def newest_available(sluice: Client, model: str) -> int:
    """The highest version that serves. Raises CommandFailed where none does, Refused, Unreachable."""
    known = sluice.get(f"/admin/models/{quote(model, safe='')}")["versions"]
    serving = [one["version"] for one in known if one["state"] == "AVAILABLE"]
    if not serving:
        raise CommandFailed(f"no version of {model} serves: name one (`sluice models list` shows them)")
    return int(max(serving))


def follow(sluice: Client, model: str, number: int, step: Callable[[str], None]) -> Json:
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
