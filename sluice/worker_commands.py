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

MEBIBYTE = 1024**2

app = typer.Typer(help="Serving workers (for administrators).", no_args_is_help=True)


@app.callback()
def workers() -> None:
    """Serving workers (for administrators)."""


@app.command("list")
@connected(admin=True)
def list_workers(sluice: Sluice, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List the serving workers that are alive, their prediction processes, and what these have loaded.

    `models` are versions in memory, `memory` what they take of what they may, `hits` the share of batches that found
    their version in memory, `load` what a load took on average.

    Example:

      sluice workers list
    """
    found = sluice.get("/admin/workers")["workers"]
    if as_json:
        typer.echo(json.dumps(found))
        return
    table = Table("worker", "pool", "slots", "models", "memory", "hits", "loads", "load", "evictions")
    for worker in found:
        uses, loads = worker["hits"] + worker["misses"], worker["loads"]
        row(
            table,
            worker["name"],
            worker["pool"],
            " ".join(worker["slots"]),
            str(len(worker["versions"])),
            f"{worker['memory_bytes'] / MEBIBYTE:,.0f} of {worker['budget_bytes'] / MEBIBYTE:,.0f} MiB",
            f"{worker['hits'] / uses:.1%}" if uses else "",
            str(loads),
            f"{worker['load_seconds'] / loads * 1000:,.0f} ms" if loads else "",
            str(worker["evictions"]),
        )
    print_table(table, "worker")
