"""`sluice models policy …`: which of a model's versions serve."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from sluice.answers import Json
from sluice.connection import connected
from sluice.failures import CommandFailed
from sluice.model_commands import Model
from sluice.output_options import AsJson
from sluice.shown_texts import say
from sluice.version_commands import model_path

if TYPE_CHECKING:
    from sluice.client import Client

app = typer.Typer(help="Which of a model's versions serve (for administrators).", no_args_is_help=True)


@app.command("show")
@connected(admin=True)
def show(sluice: Client, model: Model, as_json: AsJson = False) -> None:
    """Show a model's version policy.

    Example:

      sluice models policy show mnist
    """
    _print(model, sluice.get(_path(model)), as_json=as_json)


@app.command("set")
@connected(admin=True)
def set_policy(
    sluice: Client,
    model: Model,
    latest: Annotated[int | None, typer.Option(min=1, help="So many of the newest serve.")] = None,
    all_versions: Annotated[bool, typer.Option("--all", help="All serve that nobody retired.")] = False,
    specific: Annotated[list[int] | None, typer.Option(min=1, help="These serve; may be repeated.")] = None,
    as_json: AsJson = False,
) -> None:
    """Set a model's version policy: what it wants comes back warm, then what it does not want leaves.

    Examples:

      sluice models policy set mnist --latest 2

      sluice models policy set mnist --specific 3 --specific 5

      sluice models policy set mnist --all
    """
    given: Json = {"latest": latest, "all": all_versions or None, "specific": specific or None}
    new = {name: value for name, value in given.items() if value is not None}
    if len(new) != 1:
        raise CommandFailed("give one of --latest, --all and --specific")
    _print(model, sluice.put(_path(model), new), as_json=as_json)


def _print(model: str, policy: Json, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(policy))
        return
    if policy["latest"] is not None:
        meant = f"the latest {policy['latest']}"
    else:
        meant = "all" if policy["all"] else ", ".join(map(str, policy["specific"]))
    typer.echo(f"versions of {model} that serve: {meant}")
    for one in policy.get("restored", []):
        say(f"version {one['version']} came back: {one['detail']}")
    for number in policy.get("leaving", []):
        typer.echo(f"version {number} leaves")
    for one in policy.get("kept", []):
        why = " and ".join(one["by"]) or "nothing that the policy wants serves yet"
        typer.echo(f"version {one['version']} stays all the same: {why}")


def _path(model: str) -> str:
    return f"{model_path(model)}/version-policy"
