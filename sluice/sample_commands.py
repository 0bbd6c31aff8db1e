"""`sluice models samples …`: samples that quantisation, comparisons, warming up and model cards use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal
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

# Enough to tell one archive from another.
DIGEST_SHOWN = 12

app = typer.Typer(help="Samples of a model (for administrators).", no_args_is_help=True)

Kind = Annotated[Literal["calibration", "labelled", "inputs"], typer.Argument(help="What they are for.")]


@app.command("put")
@connected(admin=True)
def put(
    sluice: Client,
    model: Model,
    kind: Kind,
    file: Annotated[
        Path,
        typer.Argument(help="A NumPy archive with an array for each input; labelled ones with `labels`.", exists=True),
    ],
) -> None:
    """Upload samples in place of those of the same kind.

    Example:

      sluice models samples put mnist labelled digits.npz
    """
    found = sluice.put_file(f"{_path(model)}/{kind}", file)
    typer.echo(f"{model} has {found['instances']} {kind} samples")


@app.command("list")
@connected(admin=True)
def list_samples(sluice: Client, model: Model, as_json: AsJson = False) -> None:
    """List a model's samples; --json has their whole digests.

    Example:

      sluice models samples list mnist
    """
    found = sluice.get(_path(model))
    if as_json:
        typer.echo(json.dumps(found))
        return
    table = Table("kind", "samples", "size", "uploaded", "digest")
    for one in found:
        digest = one["digest"][:DIGEST_SHOWN]
        row(table, one["kind"], str(one["instances"]), decimal(one["size_bytes"]), moment(one["created_at"]), digest)
    print_table(table)


@app.command("delete")
@connected(admin=True)
def delete(sluice: Client, model: Model, kind: Kind) -> None:
    """Delete a model's samples of one kind.

    Example:

      sluice models samples delete mnist labelled
    """
    sluice.delete(f"{_path(model)}/{kind}")
    typer.echo(f"{model} has no {kind} samples any more")


def _path(model: str) -> str:
    return f"/admin/models/{quote(model, safe='')}/samples"
