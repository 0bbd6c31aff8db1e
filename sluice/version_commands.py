"""`sluice models label|unlabel|retire|delete`: where labels point, and the end of versions."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

import typer

from sluice.client import Sluice
from sluice.connection import connected
from sluice.preparation import version_path

Model = Annotated[str, typer.Argument(help="Name of the model.")]
Version = Annotated[int, typer.Argument(min=1, help="Its version.")]
Label = Annotated[str, typer.Argument(help="Name of the label.")]


@connected(admin=True)
def label(sluice: Sluice, model: Model, name: Label, version: Version) -> None:
    """Point a label to a version that serves; callers that use it get that version within a second.

    Example:

      sluice models label mnist stable 2
    """
    sluice.put(_label_path(model, name), {"version": version})
    typer.echo(f"{name} of {model} means version {version}")


@connected(admin=True)
def unlabel(sluice: Sluice, model: Model, name: Label) -> None:
    """Delete a label; the version stays.

    Example:

      sluice models unlabel mnist canary
    """
    sluice.delete(_label_path(model, name))
    typer.echo(f"{model} has no label {name} any more")


@connected(admin=True)
def retire(sluice: Sluice, model: Model, version: Version) -> None:
    """Take a version out of service for ever; its number and its report stay.

    Example:

      sluice models retire mnist 1
    """
    sluice.post(f"{version_path(model, version)}/retire")
    typer.echo(f"{model} version {version} is retired")


@connected(admin=True)
def delete(sluice: Sluice, model: Model, version: Version) -> None:
    """Forget a version that is retired or was refused, and its file.

    Example:

      sluice models delete mnist 1
    """
    sluice.delete(version_path(model, version))
    typer.echo(f"{model} version {version} is deleted")


def _label_path(model: str, name: str) -> str:
    return f"/admin/models/{quote(model, safe='')}/labels/{quote(name, safe='')}"
