"""`sluice models jobs-policy …`: what a model's jobs may take of time and attempts."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated
from urllib.parse import quote

import typer
from rich.table import Table

from sluice.answers import Json
from sluice.connection import connected
from sluice.failures import CommandFailed
from sluice.model_commands import Model
from sluice.output_options import AsJson
from sluice.tables import print_table
from sluice.version_table import row

if TYPE_CHECKING:
    from sluice.client import Client

# Of each part of a policy, its name in the interface and the head of its column.
COLUMNS = {"deadline_seconds": "deadline (s)", "max_attempts": "attempts", "queue_seconds": "longest queue (s)"}

app = typer.Typer(help="What a model's jobs may take (for administrators).", no_args_is_help=True)


@app.command("show")
@connected(admin=True)
def show(sluice: Client, model: Model, as_json: AsJson = False) -> None:
    """Show a model's job policy.

    Example:

      sluice models jobs-policy show mnist
    """
    _print(sluice.get(_path(model)), as_json=as_json)


@app.command("set")
@connected(admin=True)
def set_policy(
    sluice: Client,
    model: Model,
    deadline: Annotated[float | None, typer.Option(help="Seconds a job may wait before it expires.")] = None,
    attempts: Annotated[int | None, typer.Option(min=1, max=10, help="How often a job is tried at most.")] = None,
    queue: Annotated[float | None, typer.Option(help="Refuse jobs that would wait longer, in seconds.")] = None,
    as_json: AsJson = False,
) -> None:
    """Set a model's job policy; what is not named is left to the settings.

    Example:

      sluice models jobs-policy set mnist --deadline 3600 --queue 600
    """
    given = {"deadline_seconds": deadline, "max_attempts": attempts, "queue_seconds": queue}
    new = {name: value for name, value in given.items() if value is not None}
    if not new:
        raise CommandFailed("name at least one part; `sluice models jobs-policy clear` removes the policy")
    _print(sluice.put(_path(model), new), as_json=as_json)


@app.command("clear")
@connected(admin=True)
def clear(sluice: Client, model: Model) -> None:
    """Remove a model's job policy.

    Example:

      sluice models jobs-policy clear mnist
    """
    sluice.delete(_path(model))
    typer.echo(f"{model} has no job policy of its own any more")


def _path(model: str) -> str:
    return f"/admin/models/{quote(model, safe='')}/jobs-policy"


def _print(policy: Json, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(policy))
        return
    if all(policy[name] is None for name in COLUMNS):
        typer.echo("It has no job policy of its own.")
        return
    table = Table(*COLUMNS.values())
    row(table, *("" if policy[name] is None else f"{policy[name]:g}" for name in COLUMNS))
    print_table(table)
