"""`sluice models card` and `sluice models evaluate`: what a version is, on one page, and how often it is right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from sluice.client import Refused, Sluice
from sluice.connection import connected
from sluice.failures import CommandFailed
from sluice.model_commands import AsJson, Model
from sluice.output_files import require_place, write_lines
from sluice.preparation import version_path

Version = Annotated[int, typer.Argument(min=1, help="Its version.")]


@connected(admin=True)
def card(
    sluice: Sluice,
    model: Model,
    version: Version,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Where; MODEL-VERSION.html by default.")] = None,
) -> None:
    """Write a version's model card, a page that holds everything it shows.

    Example:

      sluice models card mnist 1 --output mnist.html
    """
    target = output or Path(f"{model}-{version}.html")
    require_place(target)
    write_lines(target, sluice.download(f"{version_path(model, version)}/card"))
    typer.echo(f"{target} is the card of {model} version {version}")


@connected(admin=True)
def evaluate(sluice: Sluice, model: Model, version: Version, as_json: AsJson = False) -> None:
    """Ask a version for its model's labelled samples, and keep for its card how often it is right.

    Example:

      sluice models evaluate mnist 1
    """
    try:
        found = sluice.post(f"{version_path(model, version)}/evaluation")
    except Refused as error:
        if error.code != "samples_not_found":
            raise
        raise CommandFailed(f"{error}\n`sluice models samples put {model} labelled FILE.npz` uploads them.") from error
    if as_json:
        typer.echo(json.dumps(found))
        return
    typer.echo(f"{found['right']} of {found['instances']} samples right: {found['accuracy']:.2%}")
