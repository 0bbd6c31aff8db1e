"""`sluice bundle get|verify`: a version's variant for a device, and whether a bundle is what a gateway exported."""

from __future__ import annotations

import hashlib
import json
import struct
import zipfile
import zlib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import quote

import typer
from rich.table import Table

from sluice.connection import connected
from sluice.failures import CommandFailed
from sluice.output_files import require_place, write_lines
from sluice.output_options import AsJson
from sluice.preparation import version_path
from sluice.published_keys import published_keys
from sluice.tables import print_table
from sluice.version_table import row

if TYPE_CHECKING:
    from sluice.client import Client

app = typer.Typer(help="Versions for devices: signed bundles.", no_args_is_help=True)

KEYS_PATH = "/.well-known/bundle-keys.json"
SIGNATURE_BYTES = 8192
PIECE_BYTES = 1024 * 1024


@app.command("get")
@connected(admin=True)
def get(
    sluice: Client,
    model: Annotated[str, typer.Argument(help="Name of the model.")],
    version: Annotated[int, typer.Argument(min=1, help="Its version.")],
    variant: Annotated[
        str | None, typer.Option(help="A variant, such as litert or onnx; otherwise the one that serves.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write; otherwise MODEL-VERSION.zip here.")
    ] = None,
) -> None:
    """Fetch a variant of a version with all that a device needs to run and to check it.

    Example:

      sluice bundle get mnist 2 --variant litert -o mnist.zip
    """
    target = output or Path(f"{model}-{version}.zip")
    require_place(target)
    replaced = ", in place of the file that was there" if target.is_file() else ""
    query = "" if variant is None else f"?variant={quote(variant, safe='')}"
    write_lines(target, sluice.download(f"{version_path(model, version)}/bundle{query}"))
    with zipfile.ZipFile(target) as archive:
        exported = json.loads(archive.read("parity.json"))["variant"]
    typer.echo(f"{target} has {model} version {version} as {exported}, {target.stat().st_size:,} bytes{replaced}")


@app.command("verify")
def verify(
    bundle: Annotated[Path, typer.Argument(help="The bundle's zip.")],
    keys: Annotated[Path | None, typer.Option(help="A copy of the gateway's /.well-known/bundle-keys.json.")] = None,
    url: Annotated[str | None, typer.Option(envvar="SLUICE_URL", help="The gateway, to ask it for its keys.")] = None,
    as_json: AsJson = False,
) -> None:
    """Check a bundle: who signed it, and that it has the very files that were signed and no others.

    Examples:

      sluice bundle verify mnist.zip --keys bundle-keys.json

      sluice bundle verify mnist.zip --url https://sluice.example
    """
    # Here, so that other commands need not wait for the libraries.
    from auth import bundle_signatures
    from auth.bundle_signatures import BundleInvalid, Fault
    from sluice import bundle_archives

    known = bundle_signatures.read_keys(published_keys(keys, None if keys is not None else url, KEYS_PATH))
    try:
        with bundle_archives.opened(bundle) as archive:
            with archive.open(bundle_archives.SIGNATURE_FILE) as member:
                verified = bundle_signatures.verify(member.read(SIGNATURE_BYTES + 1).decode("ascii", "replace"), known)
            _require_files(archive, verified.manifest.files)
    except OSError as error:
        raise CommandFailed(f"cannot read {bundle}: {error.strerror}") from error
    # A damaged or hostile archive: what the parsers of the standard library say to one.
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError, struct.error) as error:
        raise BundleInvalid(Fault.MALFORMED, f"{bundle}: {error}") from error
    manifest = verified.manifest
    said = {
        "issuer": verified.issuer,
        "key": verified.key_id,
        "issued_at": verified.issued_at,
        "model": manifest.model,
        "version": manifest.version,
        "variant": manifest.variant,
        "upload_sha256": manifest.upload_sha256,
    }
    if as_json:
        typer.echo(json.dumps({**said, "files": dict(manifest.files)}))
        return
    said["issued_at"] = f"{datetime.fromtimestamp(verified.issued_at, UTC):%Y-%m-%d %H:%M} UTC"
    table = Table("", "", show_header=False)
    for name, value in said.items():
        row(table, name, str(value))
    print_table(table)
    typer.echo(f"The bundle is genuine, and its {len(manifest.files)} files are those that were signed.")


def _require_files(archive: zipfile.ZipFile, digests: Mapping[str, str]) -> None:
    """Raises BundleInvalid unless the archive has these files, each once, and beside them the signature only."""
    from auth.bundle_signatures import BundleInvalid, Fault
    from sluice.bundle_archives import SIGNATURE_FILE

    if sorted(archive.namelist()) != sorted([*digests, SIGNATURE_FILE]):
        twice = {name for name in archive.namelist() if archive.namelist().count(name) > 1}
        other = twice | (set(archive.namelist()) ^ {*digests, SIGNATURE_FILE})
        raise BundleInvalid(Fault.OTHER_FILES, ", ".join(map(repr, sorted(other))))
    for name, digest in digests.items():
        found = hashlib.sha256()
        with archive.open(name) as member:
            while piece := member.read(PIECE_BYTES):
                found.update(piece)
        if found.hexdigest() != digest:
            raise BundleInvalid(Fault.FILE_CHANGED, name)
