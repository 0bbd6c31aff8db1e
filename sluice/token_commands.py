"""`sluice tokens …`: what an access token says, and taking it back."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from sluice.connection import connected
from sluice.failures import CommandFailed
from sluice.output_options import AsJson
from sluice.tables import print_table
from sluice.version_table import row

if TYPE_CHECKING:
    from sluice.client import Client

app = typer.Typer(help="Access tokens: what they say, and taking them back.", no_args_is_help=True)

# Not an argument: other users of the machine can read arguments.
File = Annotated[Path | None, typer.Option("--file", help="File that holds the token; by default standard input.")]


@app.command("revoke")
@connected(admin=False)
def revoke(sluice: Client, file: File = None) -> None:
    """Take back one of your own access tokens: every gateway refuses it within a second.

    Somebody else's token stays as it is, and nothing tells you so: an
    administrator rotates that client's secret, or disables it.

    Example:

      sluice tokens revoke --file leaked.txt
    """
    sluice.revoke(_read_token(file))
    typer.echo("If the token was yours, it is refused from now on")


@app.command("inspect")
@connected(admin=False)
def inspect(sluice: Client, file: File = None, as_json: AsJson = False) -> None:
    """Show what one of your own tokens says and whether it is good; administrators may ask about any.

    Example:

      sluice tokens inspect --admin --file found.txt
    """
    said = sluice.introspect(_read_token(file))
    if as_json:
        typer.echo(json.dumps(said))
        return
    table = Table("claim", "value")
    for claim, value in said.items():
        is_moment = claim in ("exp", "iat")
        row(table, claim, datetime.fromtimestamp(value, UTC).isoformat() if is_moment else str(value))
    print_table(table)


def _read_token(file: Path | None) -> str:
    try:
        token = (sys.stdin.read() if file is None else file.read_text()).strip()
    except OSError as error:
        raise CommandFailed(f"cannot read {file}: {error.strerror}") from error
    if not token:
        raise CommandFailed("there is no token to read")
    return token
