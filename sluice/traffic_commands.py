"""`sluice models traffic …`: over which versions calls of a model by its bare name are split."""

from __future__ import annotations

import json
from typing import Annotated
from urllib.parse import quote

import typer
from rich.table import Table

from sluice.client import Json, Sluice
from sluice.connection import connected
from sluice.failures import CommandFailed
from sluice.model_commands import AsJson, Model
from sluice.tables import print_table
from sluice.version_table import row

Sticky = Annotated[
    str | None, typer.Option(help="Keep callers where they are: by `client`, or by a header (`header:X-User`).")
]

app = typer.Typer(help="Over which versions a model's traffic is split (for administrators).", no_args_is_help=True)


@app.command("show")
@connected(admin=True)
def show(sluice: Sluice, model: Model, as_json: AsJson = False) -> None:
    """Show where calls of a model by its bare name go.

    Example:

      sluice models traffic show mnist
    """
    _print(sluice.get(traffic_path(model, "traffic")), as_json=as_json)


@app.command("set")
@connected(admin=True)
def split(
    sluice: Sluice,
    model: Model,
    weights: Annotated[list[str], typer.Argument(metavar="TARGET=WEIGHT…", help="A version's number or a label.")],
    sticky: Sticky = None,
    as_json: AsJson = False,
) -> None:
    """Split calls of a model by its bare name over versions, or pin them to one.

    Example:

      sluice models traffic set mnist 3=90 4=10 --sticky client
    """
    body = {"weights": dict(map(_target, weights)), "sticky": sticky}
    _print(sluice.put(traffic_path(model, "traffic"), body), as_json=as_json)


@app.command("clear")
@connected(admin=True)
def clear(sluice: Sluice, model: Model) -> None:
    """Let a model's bare name mean its highest version again.

    Example:

      sluice models traffic clear mnist
    """
    sluice.delete(traffic_path(model, "traffic"))
    typer.echo(f"{model} means its highest version again")


def traffic_path(model: str, what: str) -> str:
    """The address of something about a model's traffic."""
    return f"/admin/models/{quote(model, safe='')}/{what}"


def percent(share: float | None) -> str:
    """A share for people."""
    return "" if share is None else f"{100 * share:.4g} %"


def _target(text: str) -> tuple[str, float]:
    name, _, weight = text.partition("=")
    try:
        return name, float(weight)
    except ValueError:
        raise CommandFailed(f"{text} is no target: write it as 3=90, or stable=90") from None


def _print(traffic: Json, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(traffic))
        return
    if traffic["weights"] is None:
        typer.echo("No split is set: a bare name means the highest version.")
    table = Table("version", "share")
    for share in traffic["shares"]:
        row(table, str(share["version"]), percent(share["share"]))
    print_table(table)
    if traffic["sticky"] is not None:
        typer.echo(f"Callers stay with their version by {traffic['sticky']}.")
