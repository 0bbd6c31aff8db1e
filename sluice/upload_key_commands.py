"""`sluice upload-keys`: keys that sign model files, and which of them the gateway believes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from sluice.connection import connected
from sluice.data_folder import write_private
from sluice.failures import CommandFailed
from sluice.output_options import AsJson
from sluice.shown_texts import say
from sluice.tables import print_table
from sluice.version_table import moment, row

if TYPE_CHECKING:
    from sluice.client import Client

app = typer.Typer(help="Keys that sign model files (for administrators).", no_args_is_help=True)


@app.command("new")
def new_key(file: Annotated[Path, typer.Argument(help="Where to write the private key.")]) -> None:
    """Make an Ed25519 key, and print its public part for `sluice upload-keys add`.

    Example:

      sluice upload-keys new upload-key.pem
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    from model_store.upload_signatures import public_text

    if file.exists():
        raise CommandFailed(f"{file} exists already; a key is not written over")
    key = Ed25519PrivateKey.generate()
    write_private(file, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode())
    typer.echo(public_text(key))


# A key may begin with a dash.
@app.command("add", context_settings={"ignore_unknown_options": True})
@connected(admin=True)
def add_key(
    sluice: Client,
    name: Annotated[str, typer.Argument(help="Whose key it is.")],
    public_key: Annotated[str, typer.Argument(help="Its public part, as `sluice upload-keys new` printed it.")],
) -> None:
    """Believe a key's signatures from now on.

    Example:

      sluice upload-keys add build-server 11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo
    """
    added = sluice.post("/admin/upload-keys", {"name": name, "public_key": public_key})
    say(f"{added['name']} may sign uploads; the key's id is {added['id']}")


@app.command("list")
@connected(admin=True)
def list_keys(sluice: Client, as_json: AsJson = False) -> None:
    """List the keys whose signatures are believed.

    Example:

      sluice upload-keys list
    """
    keys = sluice.get("/admin/upload-keys")["keys"]
    if as_json:
        typer.echo(json.dumps(keys))
        return
    table = Table("name", "id", "added")
    for key in keys:
        row(table, key["name"], key["id"], moment(key["created_at"]))
    print_table(table, "id")


# A key's id may begin with a dash.
@app.command("remove", context_settings={"ignore_unknown_options": True})
@connected(admin=True)
def remove_key(
    sluice: Client,
    which: Annotated[str, typer.Argument(help="The key's name or id: see `sluice upload-keys list`.", metavar="key")],
) -> None:
    """Believe a key no longer; versions that it signed stay.

    Examples:

      sluice upload-keys remove build-server

      sluice upload-keys remove kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k
    """
    ids = [key["id"] for key in sluice.get("/admin/upload-keys")["keys"] if which in (key["id"], key["name"])]
    if not ids:
        raise CommandFailed(f"there is no upload key {which}: see `sluice upload-keys list`")
    sluice.delete(f"/admin/upload-keys/{ids[0]}")
    typer.echo("Its signatures are believed no longer")


def signature_of(key_file: Path, model: str, file: Path) -> str:
    """A file's signature for a model, by the private key in `key_file`; raises CommandFailed."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    from model_store.upload_signatures import sign

    try:
        key = load_pem_private_key(key_file.read_bytes(), password=None)
    except (ValueError, TypeError) as error:
        raise CommandFailed(f"{key_file} is not an unencrypted private key in PEM") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise CommandFailed(f"{key_file} is not an Ed25519 key: `sluice upload-keys new` makes one")
    with file.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    return sign(key, model, digest)
