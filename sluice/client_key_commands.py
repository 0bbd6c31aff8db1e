"""`sluice clients keys` and `sluice clients identities`: how clients are recognised without a secret."""

from __future__ import annotations

import json
from pathlib import Path
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


@connected(admin=True)
def keys(
    sluice: Client,
    which: Which,
    replace: Annotated[
        Path | None, typer.Option("--set", help="Replace all keys by those of this file: a JWK, or a JWK Set.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show the public keys with which a client signs assertions, or replace them.

    A client that has a key needs no secret (private_key_jwt, RFC 7523).

    Examples:

      sluice clients keys reading-room --set public-keys.json

      sluice clients keys reading-room
    """
    path = f"{path_of(sluice, which)}/keys"
    found = sluice.get(path) if replace is None else sluice.put(path, {"keys": _read_keys(replace)})
    if as_json:
        typer.echo(json.dumps(found))
        return
    table = Table("kid", "kind", "algorithm")
    for key in found["keys"]:
        row(table, key["kid"], key.get("crv", key["kty"]), key["alg"])
    print_table(table, "kid")


@connected(admin=True)
def identities(
    sluice: Client,
    which: Which,
    issuer: Annotated[str | None, typer.Option(help="`iss` of another issuer's tokens; with --subject.")] = None,
    subject: Annotated[str | None, typer.Option(help="What that issuer calls the client.")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Forget all that were known before.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show what other issuers call a client, add to it, or replace it.

    Tokens of an issuer that SLUICE_TRUSTED_ISSUERS names stand for this
    client where they say this name.

    Examples:

      sluice clients identities reading-room --issuer https://id.example --subject reading-room

      sluice clients identities reading-room --replace
    """
    if (issuer is None) != (subject is None):
        raise CommandFailed("--issuer and --subject go together")
    path = f"{path_of(sluice, which)}/identities"
    found = sluice.get(path)
    known = [] if replace else found["identities"]
    added = [] if issuer is None else [{"issuer": issuer, "subject": subject}]
    if replace or added:
        found = sluice.put(path, {"identities": [*known, *added]})
    if as_json:
        typer.echo(json.dumps(found))
        return
    table = Table("issuer", "subject")
    for identity in found["identities"]:
        row(table, identity["issuer"], identity["subject"])
    print_table(table)


def _read_keys(file: Path) -> list[Json]:
    """The keys of a JWK Set, or the one that the file is. Raises CommandFailed."""
    try:
        found = json.loads(file.read_text())
    except OSError as error:
        raise CommandFailed(f"cannot read {file}: {error.strerror}") from error
    except ValueError as error:
        raise CommandFailed(f"{file} is not JSON") from error
    keys = found.get("keys", [found]) if isinstance(found, dict) else None
    if not isinstance(keys, list):
        raise CommandFailed(f"{file} is neither a JWK nor a JWK Set")
    return keys
