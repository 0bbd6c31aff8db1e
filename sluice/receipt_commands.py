"""`sluice receipt verify`: whether a receipt is genuine, and about this input and this output; needs no gateway."""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from sluice.failures import CommandFailed
from sluice.output_options import AsJson
from sluice.published_keys import published_keys
from sluice.tables import print_table
from sluice.version_table import row

app = typer.Typer(help="Receipts of jobs.", no_args_is_help=True)

KEYS_PATH = "/.well-known/receipt-keys.json"


@app.command("verify")
def verify(
    receipt: Annotated[Path, typer.Argument(help="File with the receipt, or with the job's document; - is the input.")],
    input_file: Annotated[Path | None, typer.Option("--input", help="The request's body, as it was sent.")] = None,
    output_file: Annotated[Path | None, typer.Option("--output", help="The answer's body, as it came.")] = None,
    keys: Annotated[Path | None, typer.Option(help="A copy of the gateway's /.well-known/receipt-keys.json.")] = None,
    url: Annotated[str | None, typer.Option(envvar="SLUICE_URL", help="The gateway, to ask it for its keys.")] = None,
    as_json: AsJson = False,
) -> None:
    """Check a receipt: who signed it, and that it is about this very input and this very output.

    Examples:

      sluice receipt verify receipt.jwt --keys receipt-keys.json --input body.json --output answer.json

      sluice receipt verify receipt.jwt --url https://sluice.example
    """
    # Here, so that other commands need not wait for the libraries.
    from auth import job_receipts

    history = job_receipts.read_history(published_keys(keys, url, KEYS_PATH))
    verified = job_receipts.verify(_read_receipt(receipt), history)
    job_receipts.compare(verified.receipt, input_sha256=_digest(input_file), output_sha256=_digest(output_file))
    said = {"issuer": verified.issuer, "key": verified.key_id, **asdict(verified.receipt)}
    if as_json:
        typer.echo(json.dumps(said))
        return
    table = Table("", "", show_header=False)
    for name, value in said.items():
        row(table, name, str(value))
    print_table(table)
    compared = [name for name, file in (("input", input_file), ("output", output_file)) if file is not None]
    same = f", and the {' and the '.join(compared)} {'are' if len(compared) > 1 else 'is'} the same" if compared else ""
    typer.echo(f"The receipt is genuine{same}.")


def _read_receipt(path: Path) -> str:
    text = _read(path)
    if not text.lstrip().startswith("{"):
        return text
    # The job's document, in which it stands.
    try:
        found = json.loads(text).get("receipt")
    except ValueError as error:
        raise CommandFailed(f"{path} is neither a receipt nor a job's document") from error
    if not isinstance(found, str):
        raise CommandFailed(f"the job in {path} has no receipt")
    return found


def _digest(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CommandFailed(f"cannot read {path}: {error.strerror}") from error


def _read(path: Path) -> str:
    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise CommandFailed(f"cannot read {path}") from error
    return text
