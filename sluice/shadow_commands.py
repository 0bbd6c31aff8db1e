"""`sluice models shadow …`: a copy of a model's traffic for another version, and how the answers compare."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Table

from sluice.answers import Json
from sluice.connection import connected
from sluice.model_commands import Model
from sluice.output_options import AsJson
from sluice.tables import print_table
from sluice.traffic_commands import percent, traffic_path
from sluice.version_commands import Version
from sluice.version_table import moment, row

if TYPE_CHECKING:
    from sluice.client import Client

app = typer.Typer(help="A copy of a model's traffic for another version (for administrators).", no_args_is_help=True)


@app.command("show")
@connected(admin=True)
def show(sluice: Client, model: Model, as_json: AsJson = False) -> None:
    """Show a model's shadow.

    Example:

      sluice models shadow show mnist
    """
    _print(sluice.get(traffic_path(model, "shadow")), as_json=as_json)


@app.command("set")
@connected(admin=True)
def copy(  # noqa: PLR0913 - a command's options
    sluice: Client,
    model: Model,
    version: Version,
    share: Annotated[float, typer.Option(min=0, max=1, help="The share of predictions that is copied.")] = 0.1,
    agree_by: Annotated[
        Literal["tolerance", "top1"], typer.Option(help="When answers agree: all numbers, or the largest output.")
    ] = "tolerance",
    absolute: Annotated[float, typer.Option(min=0, help="Tolerance of numbers.")] = 1e-5,
    relative: Annotated[float, typer.Option(min=0, help="Tolerance as a share of the number.")] = 1e-4,
    as_json: AsJson = False,
) -> None:
    """Copy a share of a model's predictions to another version, and compare the answers; callers do not notice.

    Example:

      sluice models shadow set mnist 4 --share 0.2 --agree-by top1
    """
    body = {"version": version, "share": share, "agree_by": agree_by, "absolute": absolute, "relative": relative}
    _print(sluice.put(traffic_path(model, "shadow"), body), as_json=as_json)


@app.command("report")
@connected(admin=True)
def report(sluice: Client, model: Model, as_json: AsJson = False) -> None:
    """Show how the answers of a model's shadow compare.

    Example:

      sluice models shadow report mnist
    """
    found = sluice.get(traffic_path(model, "shadow/report"))
    if as_json:
        typer.echo(json.dumps(found))
        return
    versions = Table("version", "compared", "agreement", "same class", "failed", "dropped")
    for name, one in [*found["versions"].items(), ("all", found)]:
        numbers = [str(one[number]) for number in ("compared", "failed", "dropped")]
        row(versions, name, numbers[0], percent(one["agreement"]), percent(one["top1_agreement"]), *numbers[1:])
    print_table(versions)
    values = Table("", "median", "p90", "p99", "largest")
    for title, what in (
        ("difference", "difference"), ("seconds", "stable_seconds"), ("shadow's seconds", "shadow_seconds")
    ):  # fmt: skip
        one = found[what]
        row(values, title, *("" if one[q] is None else f"{one[q]:.3g}" for q in ("median", "p90", "p99", "largest")))
    print_table(values)


@app.command("clear")
@connected(admin=True)
def clear(sluice: Client, model: Model) -> None:
    """End a model's shadow, and forget its figures.

    Example:

      sluice models shadow clear mnist
    """
    sluice.delete(traffic_path(model, "shadow"))
    typer.echo(f"{model} has no shadow any more")


def _print(shadow: Json, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(shadow))
        return
    typer.echo(
        f"Version {shadow['version']} gets a copy of {percent(shadow['share'])} of {shadow['model']}'s predictions"
        f" since {moment(shadow['since'])}; answers agree by {shadow['agree_by']}."
    )
