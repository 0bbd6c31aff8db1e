"""`sluice models card` and `sluice models evaluate`: what a version is, on one page, and how often it is right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sluice.answers import Refused
from sluice.connection import connected
from sluice.failures import CommandFailed
from sluice.model_commands import Model
from sluice.output_files import require_place, write_lines
from sluice.output_options import AsJson
from sluice.preparation import newest_available, version_path

if TYPE_CHECKING:
    from sluice.client import Client

Version = Annotated[int | None, typer.Argument(min=1, help="Its version; without it the newest that serves.")]


@connected(admin=True)
def card(
    sluice: Client,
    model: Model,
    version: Version = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Where; MODEL-VERSION.html by default.")] = None,
) -> None:
    """Write a version's model card, a page that holds everything it shows.

    Examples:

      sluice models card mnist

      sluice models card mnist 1 --output mnist.html
    """
    version = version or newest_available(sluice, model)
    target = output or Path(f"{model}-{version}.html")
    require_place(target)
    write_lines(target, sluice.download(f"{version_path(model, version)}/card"))
    typer.echo(f"{target} is the card of {model} version {version}")


@connected(admin=True)
def evaluate(sluice: Client, model: Model, version: Version = None, as_json: AsJson = False) -> None:
    """Ask a version for its model's labelled samples, and keep for its card how often it is right.

    Examples:

      sluice models evaluate mnist

      sluice models evaluate mnist 1 --json
    """
    version = version or newest_available(sluice, model)
    try:
        found = sluice.post(f"{version_path(model, version)}/evaluation")
    except Refused as error:
        if error.code != "samples_not_found":
            raise
        raise CommandFailed(f"{error}\n`sluice models samples put {model} labelled FILE.npz` uploads them.") from error
    if as_json:
        typer.echo(json.dumps(found))
        return
    typer.echo(f"version {version}: {found['right']} of {found['instances']} samples right: {found['accuracy']:.2%}")
