"""`sluice models canary …`: a version that gets more and more of a model's traffic while it does well."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from sluice.answers import Json, Refused
from sluice.connection import connected
from sluice.failures import CommandFailed
from sluice.model_commands import Model
from sluice.output_options import AsJson
from sluice.tables import print_table
from sluice.traffic_commands import Sticky, traffic_path
from sluice.version_commands import Version
from sluice.version_table import moment, row

if TYPE_CHECKING:
    from sluice.client import Client

app = typer.Typer(help="Versions that prove themselves on live traffic (for administrators).", no_args_is_help=True)


@app.command("show")
@connected(admin=True)
def show(sluice: Client, model: Model, as_json: AsJson = False) -> None:
    """Show where a model's canary stands, and what became of it so far.

    Example:

      sluice models canary show mnist
    """
    _print(sluice.get(traffic_path(model, "canary")), as_json=as_json)


@app.command("begin")
@connected(admin=True)
def begin(  # noqa: PLR0913 - a command's options
    sluice: Client,
    model: Model,
    version: Version,
    stable: Annotated[
        int | None, typer.Option(min=1, help="What it is compared with, where that is not clear.")
    ] = None,
    steps: Annotated[str, typer.Option(help="Shares of traffic in percent.")] = "5,25,50,100",
    step_seconds: Annotated[float, typer.Option(min=0, help="How long each step takes at least.")] = 300,
    least_requests: Annotated[int, typer.Option(min=1, help="Predictions at each step at least.")] = 100,
    error_rate: Annotated[float | None, typer.Option(min=0, max=1, help="Most errors, from 0 to 1.")] = None,
    p99_seconds: Annotated[float | None, typer.Option(help="Longest p99.")] = None,
    p99_ratio: Annotated[float | None, typer.Option(help="Longest p99, as a multiple of the stable version's.")] = None,
    disagreement: Annotated[
        float | None, typer.Option(min=0, max=1, help="Most disagreement, from 0 to 1, by the model's shadow.")
    ] = None,
    sticky: Sticky = None,
    as_json: AsJson = False,
) -> None:
    """Try a version: it is promoted step by step, or rolled back, by itself.

    Example:

      sluice models canary begin mnist 4 --error-rate 0.01 --p99-ratio 1.5
    """
    given = {
        "error_rate": error_rate, "p99_seconds": p99_seconds, "p99_ratio": p99_ratio, "disagreement": disagreement
    }  # fmt: skip
    conditions = {name: value for name, value in given.items() if value is not None}
    if not conditions:
        raise CommandFailed("name at least one condition, such as --error-rate 0.01")
    body = {
        "version": version,
        "stable": stable,
        "steps": _steps(steps),
        "step_seconds": step_seconds,
        "least_requests": least_requests,
        "conditions": conditions,
        "sticky": sticky,
    }
    try:
        begun = sluice.put(traffic_path(model, "canary"), body)
    except Refused as error:
        if stable is None and error.code == "traffic_invalid" and "the stable one" in str(error):
            raise CommandFailed(f"{error}\n--stable VERSION says what it is compared with.") from error
        raise
    _print(begun, as_json=as_json)


@app.command("promote")
@connected(admin=True)
def promote(sluice: Client, model: Model, as_json: AsJson = False) -> None:
    """Give a model's canary all traffic now.

    Example:

      sluice models canary promote mnist
    """
    _print(sluice.post(traffic_path(model, "canary/promote")), as_json=as_json)


@app.command("rollback")
@connected(admin=True)
def rollback(sluice: Client, model: Model, as_json: AsJson = False) -> None:
    """Give the stable version all traffic again, also after a promotion.

    Example:

      sluice models canary rollback mnist
    """
    _print(sluice.post(traffic_path(model, "canary/rollback")), as_json=as_json)


@app.command("forget")
@connected(admin=True)
def forget(sluice: Client, model: Model) -> None:
    """Forget a canary that has ended, with its history; traffic stays as it is.

    Example:

      sluice models canary forget mnist
    """
    sluice.delete(traffic_path(model, "canary"))
    typer.echo(f"{model} has no canary any more")


def _steps(text: str) -> list[float]:
    try:
        return [float(step) for step in text.split(",")]
    except ValueError:
        raise CommandFailed(f"{text} are no steps: write them as 5,25,50,100") from None


def _print(canary: Json, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(canary))
        return
    typer.echo(
        f"Version {canary['version']} beside version {canary['stable']}: {canary['state']}, at {canary['percent']:g} %."
    )
    standing = canary["standing"]
    if standing is not None:
        typer.echo(f"{standing['requests']} requests, {standing['errors']} errors at this step.")
        typer.echo(f"It waits for {standing['awaited']}." if standing["awaited"] else "It waits for nothing.")
    table = Table("when", "what", "share", "why", "by")
    for move in canary["history"]:
        by = move["by"] or "itself"
        row(table, moment(move["at"]), move["move"], f"{move['percent']:g} %", move["reason"], by)
    print_table(table)
