"""`sluice clients access`: whether a client may do something, and which rule says so."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from sluice.client_commands import Which, path_of
from sluice.connection import connected
from sluice.output_options import AsJson
from sluice.shown_texts import say

if TYPE_CHECKING:
    from sluice.client import Client


@connected(admin=True)
def access(
    sluice: Client,
    which: Which,
    model: Annotated[str, typer.Option(help="Name of the model.")],
    verb: Annotated[
        str, typer.Option("--action", help="predict, submit, metadata, upload, label or retire.")
    ] = "predict",
    version: Annotated[int | None, typer.Option(min=1, help="This version.")] = None,
    label: Annotated[str | None, typer.Option(help="The version that this label points to.")] = None,
    as_json: AsJson = False,
) -> None:
    """Explain whether a client may do something with a model, and which rule says so.

    The exit code is 0 where it may, 1 where it may not.

    Examples:

      sluice clients access reading-room --model mnist

      sluice clients access reading-room --model mnist --label canary --action submit
    """
    asked = {"model": model, "verb": verb, "version": version, "label": label}
    given = {name: value for name, value in asked.items() if value is not None}
    found = sluice.get(f"{path_of(sluice, which)}/access", **given)
    if as_json:
        typer.echo(json.dumps(found))
        raise typer.Exit(0 if found["allowed"] else 1)
    means = "" if found["resolved_version"] is None else f" (version {found['resolved_version']})"
    say(f"{'allowed' if found['allowed'] else 'refused'}: {verb} {model}{means}\n{found['rule']}")
    raise typer.Exit(0 if found["allowed"] else 1)
