"""`sluice models traffic …`: over which versions calls of a model by its bare name are split."""

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
from sluice.version_commands import model_path
from sluice.version_table import row, state_of

if TYPE_CHECKING:
    from sluice.client import Client

Sticky = Annotated[
    str | None, typer.Option(help="Keep callers where they are: by `client`, or by a header (`header:X-User`).")
]

app = typer.Typer(help="Over which versions a model's traffic is split (for administrators).", no_args_is_help=True)


@app.command("show")
@connected(admin=True)
def show(sluice: Client, model: Model, as_json: AsJson = False) -> None:
    """Show where calls of a model by its bare name go.

    Example:

      sluice models traffic show mnist
    """
    _print(sluice, sluice.get(traffic_path(model, "traffic")), as_json=as_json)


@app.command("set")
@connected(admin=True)
def split(
    sluice: Client,
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
    _print(sluice, sluice.put(traffic_path(model, "traffic"), body), as_json=as_json)


@app.command("clear")
@connected(admin=True)
def clear(sluice: Client, model: Model) -> None:
    """Let a model's bare name mean its highest version again, of those that serve and were not rolled back.

    Example:

      sluice models traffic clear mnist
    """
    path = traffic_path(model, "traffic")
    before = sluice.get(path)
    sluice.delete(path)
    meant = means(sluice.get(path)["shares"])
    if before["weights"] is None:
        typer.echo(f"{model} had no split; it means {meant}")
        return
    typer.echo(f"{model} means {meant} again (it was split: {means(before['shares'])})")


def traffic_path(model: str, what: str) -> str:
    """The address of something about a model's traffic."""
    return f"/admin/models/{quote(model, safe='')}/{what}"


def means(shares: Json) -> str:
    """What a bare name means, in words: one version, or several with their shares."""
    if not shares:
        return "nothing, since no version serves"
    if len(shares) == 1:
        return f"version {shares[0]['version']}"
    return ", ".join(f"version {one['version']} {percent(one['share'])}" for one in shares)


def percent(share: float | None) -> str:
    """A share for people."""
    return "" if share is None else f"{100 * share:.4g} %"


def _target(text: str) -> tuple[str, float]:
    name, _, weight = text.partition("=")
    try:
        return name, float(weight)
    except ValueError:
        name, _, weight = text.partition(":")
        wanted = f"{name}={weight}" if name and weight.replace(".", "", 1).isdigit() else "3=90, or stable=90"
        raise CommandFailed(f"{text} is no target: write it as {wanted}") from None


def targets(traffic: Json, model: Json) -> Table:
    """Each target of a split with its state, the weight that was set, and the share that it gets of that now."""
    table = Table("target", "version", "state", "weight", "share now")
    states = {one["version"]: state_of(one) for one in model["versions"]}
    shares = {one["version"]: one["share"] for one in traffic["shares"]}
    for name, weight in traffic["weights"].items():
        number = _number(name, model)
        # Two targets may be one version, by its number and by a label: its share is of both.
        share = shares.get(number) if weight > 0 else None
        row(table, name, str(number or ""), states.get(number, "deleted"), f"{weight:g}", percent(share))
    return table


def _number(name: str, model: Json) -> int | None:
    return int(name) if name.isdigit() else model["labels"].get(name)


def _print(sluice: Client, traffic: Json, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(traffic))
        return
    if traffic["weights"] is None:
        typer.echo(
            f"No split is set: {traffic['model']} means {means(traffic['shares'])}, "
            "the highest that serves and was not rolled back."
        )
        return
    table = targets(traffic, sluice.get(model_path(traffic["model"])))
    print_table(table)
    if not any(table.columns[-1].cells):
        typer.echo(f"None of these serves: {traffic['model']} means {means(traffic['shares'])}.")
    if traffic["sticky"] is not None:
        typer.echo(f"Callers stay with their version by {traffic['sticky']}.")
