"""`sluice models label|unlabel|retire|restore|delete|rollback`: where labels point, which versions leave and return."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated
from urllib.parse import quote

import typer

from sluice.answers import Json, Refused
from sluice.connection import connected
from sluice.output_options import AsJson
from sluice.preparation import version_path
from sluice.shown_texts import say

if TYPE_CHECKING:
    from sluice.client import Client

Model = Annotated[str, typer.Argument(help="Name of the model.")]
Version = Annotated[int, typer.Argument(min=1, help="Its version.")]
Label = Annotated[str, typer.Argument(help="Name of the label.")]


@connected(admin=True)
def label(
    sluice: Client,
    model: Model,
    name: Label,
    version: Version,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say whether it would move.")] = False,
    as_json: AsJson = False,
) -> None:
    """Point a label to a version that serves, if it passes the label's gates; callers get it within a second.

    Examples:

      sluice models label mnist stable 2

      sluice models label mnist stable 3 --dry-run
    """
    try:
        moved = sluice.put(f"{label_path(model, name)}{'?dry_run=true' if dry_run else ''}", {"version": version})
    except Refused as error:
        _print_gates(error.answer.get("gates") or [], err=as_json)
        raise
    if as_json:
        typer.echo(json.dumps(moved))
        return
    _print_gates(moved["gates"])
    typer.echo(f"{name} of {model} {'would mean' if dry_run else 'means'} version {version}")


@connected(admin=True)
def unlabel(sluice: Client, model: Model, name: Label) -> None:
    """Delete a label; the version stays.

    Example:

      sluice models unlabel mnist canary
    """
    sluice.delete(label_path(model, name))
    typer.echo(f"{model} has no label {name} any more")


@connected(admin=True)
def retire(sluice: Client, model: Model, version: Version) -> None:
    """Take a version out of service: jobs that were submitted to it still run, and `restore` brings it back.

    Example:

      sluice models retire mnist 1
    """
    retired = sluice.post(f"{version_path(model, version)}/retire")
    left = "" if retired["state"] == "END" else ", and leaves when its jobs have ended"
    typer.echo(f"{model} version {version} is retired{left}")


@connected(admin=True)
def restore(sluice: Client, model: Model, version: Version) -> None:
    """Bring back a version that served before; it is loaded and warmed up first.

    Example:

      sluice models restore mnist 1
    """
    sluice.post(f"{version_path(model, version)}/restore")
    typer.echo(f"{model} version {version} serves again{_traffic_again(sluice, model, version)}")


@connected(admin=True)
def rollback(
    sluice: Client,
    model: Model,
    name: Annotated[
        str | None, typer.Option("--label", help="This label, instead of what the bare name means.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Go back to the version before, in one call: of the bare name, or of a label; it comes back if it had left.

    Examples:

      sluice models rollback mnist

      sluice models rollback mnist --label stable
    """
    moved = sluice.post(f"{model_path(model) if name is None else label_path(model, name)}/rollback")
    if as_json:
        typer.echo(json.dumps(moved))
    elif name is None:
        typer.echo(f"{model} means version {moved['version']} again, not {moved['rolled_back']}")
    else:
        typer.echo(f"{name} of {model} means version {moved['version']} again, not {moved['previous']}")


@connected(admin=True)
def delete(
    sluice: Client,
    model: Model,
    version: Annotated[
        int | None, typer.Argument(min=1, help="Only this version, which is retired or was refused.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before deleting a whole model.")] = False,
) -> None:
    """Forget a version that is retired or was refused, and its file; or a model with all that belongs to it.

    Examples:

      sluice models delete mnist 1

      sluice models delete mnist --yes
    """
    if version is not None:
        sluice.delete(version_path(model, version))
        typer.echo(f"{model} version {version} is deleted")
        return
    if not yes:
        typer.confirm(f"Delete {model} with all its versions, labels, settings and samples?", abort=True)
    sluice.delete(model_path(model))
    typer.echo(f"{model} is deleted")


def _traffic_again(sluice: Client, model: str, version: int) -> str:
    """What a version that came back has of its model's traffic, as far as the caller may see that."""
    try:
        traffic = sluice.get(f"{model_path(model)}/traffic")
    except Refused:
        return ""
    share = next((one["share"] for one in traffic["shares"] if one["version"] == version), None)
    if share is None:
        return ", and gets none of the traffic by the bare name"
    return f", and gets {100 * share:.4g} % of the traffic by the bare name again"


def _print_gates(outcomes: Json, *, err: bool = False) -> None:
    for gate in outcomes:
        say(f"gate {gate['gate']} {'passed' if gate['passed'] else 'not passed'}: {gate['detail']}", err=err)


def model_path(model: str) -> str:
    """A model's address for administrators."""
    return f"/admin/models/{quote(model, safe='')}"


def label_path(model: str, name: str) -> str:
    """A label's address for administrators."""
    return f"{model_path(model)}/labels/{quote(name, safe='')}"
