"""`sluice workers`: the serving workers that are alive."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import typer
from rich.table import Table

from sluice.answers import Json
from sluice.connection import connected
from sluice.output_options import AsJson
from sluice.tables import print_table
from sluice.version_table import row

if TYPE_CHECKING:
    from sluice.client import Client

MEBIBYTE = 1024**2
VERSIONS_SHOWN = 3

app = typer.Typer(help="Serving workers (for administrators).", no_args_is_help=True)


@app.callback()
def workers() -> None:
    """Serving workers (for administrators)."""


@app.command("list")
@connected(admin=True)
def list_workers(sluice: Client, as_json: AsJson = False) -> None:
    """List the serving workers that are alive, their prediction processes, and what these have loaded.

    `memory` is what loaded versions take of what they may, `hits` the share of batches that found their version in
    memory, `a load` what one took on average.

    Example:

      sluice workers list
    """
    found = sluice.get("/admin/workers")["workers"]
    if as_json:
        typer.echo(json.dumps(found))
        return
    for table in (processes(found), memory(found)):
        print_table(table, "worker")


def processes(workers: Json) -> Table:
    """Each worker with its slots, and what is loaded in them."""
    table = Table("worker", "pool", "slots", "loaded")
    for worker in workers:
        row(table, worker["name"], worker["pool"], " ".join(worker["slots"]), _some(worker["versions"]))
    return table


def memory(workers: Json) -> Table:
    """Each worker with what its loaded versions take, and how often one had to be loaded or to go."""
    table = Table("worker", "memory", "hits", "loads", "a load", "evictions")
    for worker in workers:
        uses, loads = worker["hits"] + worker["misses"], worker["loads"]
        row(
            table,
            worker["name"],
            f"{worker['memory_bytes'] / MEBIBYTE:,.0f} of {worker['budget_bytes'] / MEBIBYTE:,.0f} MiB",
            f"{worker['hits'] / uses:.1%}" if uses else "",
            str(loads),
            f"{worker['load_seconds'] / loads * 1000:,.0f} ms" if loads else "",
            str(worker["evictions"]),
        )
    return table


def _some(versions: list[str]) -> str:
    """The first few, and how many there are besides."""
    more = len(versions) - VERSIONS_SHOWN
    return " ".join(versions[:VERSIONS_SHOWN]) + (f" and {more} more" if more > 0 else "")
