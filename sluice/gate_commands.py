"""`sluice models gates …`: what a label demands of a version before it points to it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from sluice.answers import Json
from sluice.connection import connected
from sluice.failures import CommandFailed
from sluice.model_commands import Model
from sluice.output_options import AsJson
from sluice.version_commands import Label, label_path

if TYPE_CHECKING:
    from sluice.client import Client

app = typer.Typer(help="What labels demand of versions (for administrators).", no_args_is_help=True)


@app.command("show")
@connected(admin=True)
def show(sluice: Client, model: Model, label: Label, as_json: AsJson = False) -> None:
    """Show what a label demands.

    Example:

      sluice models gates show mnist stable
    """
    _print(model, label, sluice.get(_path(model, label)), as_json=as_json)


@app.command("set")
@connected(admin=True)
def set_gates(  # noqa: PLR0913 - the options of a command
    sluice: Client,
    model: Model,
    label: Label,
    golden: Annotated[bool, typer.Option("--golden", help="The golden samples are answered as they were.")] = False,
    agreement: Annotated[
        float | None, typer.Option(help="Least share of samples on which it agrees with the label's own version.")
    ] = None,
    accuracy: Annotated[
        float | None, typer.Option(help="Least share of labelled samples that its last evaluation found right.")
    ] = None,
    latency_ms: Annotated[
        float | None, typer.Option("--latency-ms", help="What 99 of 100 calls may take at most.")
    ] = None,
    calls: Annotated[int, typer.Option(min=10, max=1000, help="How many calls are measured.")] = 100,
    shadow_requests: Annotated[
        int | None, typer.Option(min=1, help="Live requests on which it was compared as the model's shadow.")
    ] = None,
    shadow_agreement: Annotated[float, typer.Option(help="Least share of these on which it agreed.")] = 0.99,
    as_json: AsJson = False,
) -> None:
    """Say what a label demands from now on; gates that are not named are not demanded.

    Examples:

      sluice models gates set mnist stable --golden --agreement 0.99 --latency-ms 50

      sluice models gates set mnist stable --golden --accuracy 0.95 --shadow-requests 10000
    """
    gates: Json = {}
    if golden:
        gates["golden"] = {}
    if agreement is not None:
        gates["agreement"] = {"least": agreement}
    if accuracy is not None:
        gates["accuracy"] = {"least": accuracy}
    if latency_ms is not None:
        gates["latency"] = {"p99_ms": latency_ms, "calls": calls}
    if shadow_requests is not None:
        gates["shadow"] = {"requests": shadow_requests, "least": shadow_agreement}
    if not gates:
        raise CommandFailed("name at least one gate; `sluice models gates clear` removes them")
    _print(model, label, sluice.put(_path(model, label), gates), as_json=as_json)


@app.command("clear")
@connected(admin=True)
def clear(sluice: Client, model: Model, label: Label) -> None:
    """Let a label demand nothing.

    Example:

      sluice models gates clear mnist stable
    """
    sluice.delete(_path(model, label))
    typer.echo(f"{label} of {model} demands nothing")


def _print(model: str, label: str, gates: Json, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(gates))
        return
    demanded = {name: terms for name, terms in gates.items() if terms is not None}
    if not demanded:
        typer.echo(f"{label} of {model} demands nothing")
    for name, terms in demanded.items():
        bounds = ", ".join(f"{term} {value}" for term, value in terms.items() if value is not None)
        typer.echo(f"{label} of {model} demands {name}{': ' if bounds else ''}{bounds}")


def _path(model: str, label: str) -> str:
    return f"{label_path(model, label)}/gates"
