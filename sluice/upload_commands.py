"""`sluice models uploads …`: files that are on their way in pieces, and did not arrive yet."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated
from urllib.parse import quote

import typer
from rich.filesize import decimal
from rich.table import Table

from sluice.connection import connected
from sluice.model_commands import Model
from sluice.output_options import AsJson
from sluice.tables import print_table
from sluice.version_table import moment, row

if TYPE_CHECKING:
    from sluice.client import Client

app = typer.Typer(help="Unfinished uploads (for administrators).", no_args_is_help=True)


@app.command("list")
@connected(admin=True)
def list_uploads(sluice: Client, model: Model, as_json: AsJson = False) -> None:
    """List one's own uploads of a model that broke off; each is forgotten a day after its last piece.

    Examples:

      sluice models uploads list mnist

      sluice models uploads list mnist --json
    """
    found = sluice.get(_path(model))["uploads"]
    if as_json:
        typer.echo(json.dumps(found))
        return
    table = Table("upload", "size", "received", "forgotten")
    for one in found:
        sizes = (decimal(one["size_bytes"]), decimal(one["received_bytes"]))
        row(table, one["id"], *sizes, moment(one["expires_at"]))
    print_table(table, "upload")


@app.command("delete")
@connected(admin=True)
def delete(
    sluice: Client, model: Model, upload: Annotated[str, typer.Argument(metavar="upload", help="Its id.")]
) -> None:
    """Give up an upload: what was received of it is deleted.

    Example:

      sluice models uploads delete mnist up_9f86d081884c7d659a2feaa0c55ad015
    """
    sluice.delete(f"{_path(model)}/{quote(upload, safe='')}")
    typer.echo(f"{upload} is deleted")


def _path(model: str) -> str:
    return f"/admin/models/{quote(model, safe='')}/uploads"
