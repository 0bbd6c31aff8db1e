"""`sluice clients show|delete`: one client with its grants, and its end."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from sluice.client_commands import Which, path_of
from sluice.connection import connected
from sluice.job_commands import counted, delete_pages
from sluice.output_options import AsJson
from sluice.shown_texts import say
from sluice.tables import print_table
from sluice.version_table import moment, row

if TYPE_CHECKING:
    from sluice.client import Client


@connected(admin=True)
def show(sluice: Client, which: Which, as_json: AsJson = False) -> None:
    """Show a client and its grants.

    Example:

      sluice clients show reading-room
    """
    path = path_of(sluice, which)
    found = sluice.get(path) | {"grants": sluice.get(f"{path}/grants")["grants"]}
    if as_json:
        typer.echo(json.dumps(found))
        return
    state = "disabled" if found["disabled"] else "enabled"
    say(f"{found['name']}  {found['id']}  {state}\nscopes  {' '.join(found['scopes'])}")
    table = Table("model", "version", "label", "actions", "until")
    for grant in found["grants"]:
        version, until = str(grant["version"] or ""), grant["expires_at"]
        actions = " ".join(grant["actions"])
        row(table, grant["model"], version, grant["label"] or "", actions, "" if until is None else moment(until))
    print_table(table)


@connected(admin=True)
def delete(sluice: Client, which: Which) -> None:
    """Forget a client and its grants; its tokens are refused within a second.

    Example:

      sluice clients delete reading-room
    """
    sluice.delete(path_of(sluice, which))
    typer.echo(f"{which} is deleted")


@connected(admin=True)
def delete_jobs(
    sluice: Client,
    which: Which,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete all jobs of a client with their inputs and results, as when it leaves; also by the id of a deleted one.

    Example:

      sluice clients delete-jobs reading-room --yes
    """
    path = path_of(sluice, which)
    if not yes:
        typer.confirm(f"Delete all jobs of {which}, with their inputs and results?", abort=True)
    typer.echo(counted(delete_pages(sluice, f"{path}/jobs", {}), "job is deleted", "jobs are deleted"))
