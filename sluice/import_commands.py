"""`sluice models import`: a version straight from an MLflow registry."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Annotated
from urllib.parse import quote

import typer
from rich.console import Console
from rich.markup import escape

from sluice.answers import Json
from sluice.connection import connected
from sluice.failures import CommandFailed
from sluice.model_commands import Model, followed
from sluice.output_options import AsJson

if TYPE_CHECKING:
    from sluice.client import Client

LOOK_SECONDS = 0.5


@connected(admin=True)
def import_version(
    sluice: Client,
    model: Model,
    uri: Annotated[str, typer.Argument(help="models:/NAME/VERSION, models:/NAME@ALIAS or runs:/RUN-ID/PATH.")],
    wait: Annotated[bool, typer.Option(help="Wait until the version is prepared, and fail if it is refused.")] = True,
    as_json: AsJson = False,
) -> None:
    """Import a version of a model from MLflow, and follow its preparation.

    The server is the one that the gateway's administrator has set
    (SLUICE_MLFLOW_URL); a background worker fetches from it.

    Examples:

      sluice models import mnist models:/mnist@champion

      sluice models import mnist models:/mnist/3 --no-wait
    """
    asked = sluice.post(f"/admin/models/{quote(model, safe='')}/imports", {"uri": uri})
    if not wait:
        typer.echo(json.dumps(asked) if as_json else f"{asked['id']}: {asked['location']}")
        return
    console = Console(stderr=True)
    ended = _ended(sluice, asked["location"], console)
    if ended["error"] is not None:
        raise CommandFailed(f"{ended['error']['code']}: {ended['error']['message']}")
    version = followed(sluice, model, ended, console, wait=True)
    if as_json:
        typer.echo(json.dumps(version))
    else:
        typer.echo(f"{model} version {version['version']} is {version['state']}, from {uri}")


def _ended(sluice: Client, location: str, console: Console) -> Json:
    with console.status("Waiting for a background worker") as status:
        while (found := sluice.get(location))["ended_at"] is None:
            if found["total_bytes"] is not None:
                status.update(f"Fetching {escape(found['uri'])}: {found['fetched_bytes']:,} bytes")
            time.sleep(LOOK_SECONDS)
    return found
