"""`sluice workers`: the serving workers that are alive."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.table import Table

from sluice.client import Sluice
from sluice.connection import connected
from sluice.tables import print_table
from sluice.version_table import row

app = typer.Typer(help="Serving workers (for administrators).", no_args_is_help=True)


@app.callback()
def workers() -> None:
    """Serving workers (for administrators)."""


@app.command("list")
@connected(admin=True)
def list_workers(sluice: Sluice, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List the serving workers that are alive, and their prediction processes.

    Example:

      sluice workers list
    """
    found = sluice.get("/admin/workers")["workers"]
    if as_json:
        typer.echo(json.dumps(found))
        return
    table = Table("worker", "pool", "slots")
    for worker in found:
        row(table, worker["name"], worker["pool"], " ".join(worker["slots"]))
    print_table(table, "worker")
