"""`sluice clients limits …`: how much a client may ask for, of everything or of one model."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from sluice.answers import Json
from sluice.client_commands import Which, path_of
from sluice.connection import connected
from sluice.failures import CommandFailed
from sluice.output_options import AsJson
from sluice.tables import print_table
from sluice.version_table import row

if TYPE_CHECKING:
    from sluice.client import Client

# Of each bound, its name in the interface and the head of its column.
COLUMNS = {
    "requests_per_second": "a second",
    "burst": "burst",
    "concurrent_requests": "at once",
    "queued_jobs": "queued",
    "running_jobs": "running",
    "instances_per_day": "instances a day",
    "bytes_per_day": "bytes a day",
    "body_bytes": "bytes a body",
    "job_keep_seconds": "jobs kept (s)",
}

app = typer.Typer(help="Limits of a client (for administrators).", no_args_is_help=True)

Model = Annotated[str | None, typer.Option("--model", help="The model; without it, the limits are on everything.")]


@app.command("show")
@connected(admin=True)
def show(sluice: Client, which: Which, as_json: AsJson = False) -> None:
    """Show a client's limits, and what it used today of those with a daily quota.

    Example:

      sluice clients limits show reading-room
    """
    _print(sluice.get(f"{path_of(sluice, which)}/limits")["limits"], as_json=as_json)


@app.command("set")
@connected(admin=True)
def set_limits(  # noqa: PLR0913 - a command's arguments are its options
    sluice: Client,
    which: Which,
    model: Model = None,
    rate: Annotated[float | None, typer.Option(help="Requests a second.")] = None,
    burst: Annotated[int | None, typer.Option(min=1, help="Requests that may come at once.")] = None,
    concurrent: Annotated[int | None, typer.Option(min=1, help="Requests answered at the same time.")] = None,
    queued: Annotated[int | None, typer.Option(min=0, help="Jobs that wait.")] = None,
    running: Annotated[int | None, typer.Option(min=1, help="Jobs that run at the same time.")] = None,
    instances: Annotated[int | None, typer.Option(min=0, help="Instances a day (UTC).")] = None,
    day_bytes: Annotated[int | None, typer.Option("--bytes", min=0, help="Bytes of bodies a day (UTC).")] = None,
    body: Annotated[int | None, typer.Option(min=0, help="Bytes of the largest body.")] = None,
    keep_seconds: Annotated[int | None, typer.Option(min=0, help="How long ended jobs are kept.")] = None,
    as_json: AsJson = False,
) -> None:
    """Set a client's limits on everything or on one model; bounds that are not named are lifted there.

    Examples:

      sluice clients limits set reading-room --rate 100 --burst 200 --concurrent 50

      sluice clients limits set reading-room --model mnist --instances 1000000
    """
    given = {
        "model": model,
        "requests_per_second": rate,
        "burst": burst,
        "concurrent_requests": concurrent,
        "queued_jobs": queued,
        "running_jobs": running,
        "instances_per_day": instances,
        "bytes_per_day": day_bytes,
        "body_bytes": body,
        "job_keep_seconds": keep_seconds,
    }
    new = {name: value for name, value in given.items() if value is not None}
    if not new.keys() - {"model"}:
        raise CommandFailed("name at least one bound; `sluice clients limits clear` lifts all of them")
    path = f"{path_of(sluice, which)}/limits"
    others = [_given(limit) for limit in sluice.get(path)["limits"] if limit["model"] != model]
    _print(sluice.put(path, {"limits": [*others, new]})["limits"], as_json=as_json)


@app.command("clear")
@connected(admin=True)
def clear(sluice: Client, which: Which, model: Model = None, as_json: AsJson = False) -> None:
    """Lift all of a client's limits, or those on one model.

    Examples:

      sluice clients limits clear reading-room

      sluice clients limits clear reading-room --model mnist
    """
    path = f"{path_of(sluice, which)}/limits"
    kept = [] if model is None else [_given(limit) for limit in sluice.get(path)["limits"] if limit["model"] != model]
    _print(sluice.put(path, {"limits": kept})["limits"], as_json=as_json)


def _given(limit: Json) -> dict[str, Json]:
    """A limit as it is shown, as it is given."""
    return {name: limit[name] for name in ("model", *COLUMNS) if limit[name] is not None}


def _print(limits: list[Json], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(limits))
        return
    if not limits:
        typer.echo("It has no limits of its own.")
        return
    table = Table("model", *COLUMNS.values(), "used today")
    for limit in limits:
        bounds = ["" if limit[name] is None else str(limit[name]) for name in COLUMNS]
        used = f"{limit['instances_today']} instances, {limit['bytes_today']} bytes"
        row(table, limit["model"] or "all", *bounds, used if _has_quota(limit) else "")
    print_table(table)


def _has_quota(limit: Json) -> bool:
    return limit["instances_per_day"] is not None or limit["bytes_per_day"] is not None
