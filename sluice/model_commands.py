"""`sluice models push|list|show`: upload and look."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal
from urllib.parse import quote

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from sluice.answers import Json, Refused
from sluice.completing import ModelArgument
from sluice.connection import connected
from sluice.failures import CommandFailed
from sluice.output_options import AsJson
from sluice.preparation import PreparationFailed, follow, version_path
from sluice.shown_texts import say
from sluice.tables import print_table
from sluice.upload_key_commands import signature_of
from sluice.version_table import moment, row, state_of, tables

if TYPE_CHECKING:
    from sluice.client import Client

PAGE = 1000

Format = Literal["keras", "h5", "onnx", "savedmodel", "torchscript", "mlflow"]

app = typer.Typer(help="Models, their versions and preparation reports (for administrators).", no_args_is_help=True)

Model = ModelArgument


@app.command("push")
@connected(admin=True)
def push(  # noqa: PLR0913 - a command's options
    sluice: Client,
    model: Model,
    file: Annotated[
        Path,
        typer.Argument(help="A .keras, .h5 or .onnx file; where allowed, a SavedModel zipped, or a .pt.", exists=True),
    ],
    format: Annotated[Format | None, typer.Option(help="What it is, where the file does not say so.")] = None,
    sign_with: Annotated[
        Path | None, typer.Option(help="Sign the file with this upload key: see `sluice upload-keys`.", exists=True)
    ] = None,
    wait: Annotated[bool, typer.Option(help="Wait until the version is prepared, and fail if it is refused.")] = True,
    served: Annotated[
        str | None, typer.Option("--signature", help="Which signature of a SavedModel is the default.", metavar="NAME")
    ] = None,
    inputs: Annotated[
        str | None, typer.Option(help="What a TorchScript file takes: x:float32[-1,4],mask:bool[-1].")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Upload a file as the next version of a model, and follow its preparation.

    The same file again is the version that it already is.

    Examples:

      sluice models push mnist model.keras

      sluice models push mnist model.onnx --no-wait

      sluice models push mnist model.keras --sign-with upload-key.pem
    """
    # Here, so that other commands need not wait for it; and before a large file is on its way for nothing.
    from model_store.names import check_name

    check_name(model)
    if file.is_dir():
        raise CommandFailed(
            f'{file} is a folder: upload what model.save("model.keras") writes, or a zipped SavedModel where allowed'
        )
    console = Console(stderr=True)
    signature = None if sign_with is None else signature_of(sign_with, model, file)
    options = {key: value for key, value in (("signature", served), ("inputs", inputs)) if value is not None}
    uploaded = _upload(sluice, model, file, format, options, signature, console)
    try:
        version = followed(sluice, model, uploaded, console, wait=wait)
    except Refused as error:
        if error.status != 404:
            raise
        if as_json:
            typer.echo(json.dumps(uploaded))
        typer.echo(
            f"{model} is uploaded as version {uploaded['version']}; following it needs the action metadata "
            f"(`sluice clients grant CLIENT --model {model} --action metadata`)",
            err=as_json,
        )
        return
    if as_json:
        typer.echo(json.dumps(version))
    else:
        chosen = (version["report"] or {}).get("reason")
        say(f"{model} version {version['version']} is {version['state']}" + (f": {chosen}" if chosen else ""))


def followed(sluice: Client, model: str, uploaded: Json, console: Console, *, wait: bool) -> Json:
    """The uploaded version as the gateway describes it, once it is prepared where that is waited for."""
    if wait:
        try:
            with _steps_shown(console) as tell:
                follow(sluice, model, uploaded["version"], tell)
        except PreparationFailed as error:
            raise CommandFailed(
                f"{error}\n`sluice models show {model} {uploaded['version']}` shows its report; "
                "docs/models.md#why-an-upload-is-refused says what that means, and what to do."
            ) from error
    return sluice.get(version_path(model, uploaded["version"]))


@app.command("list")
@connected(admin=True)
def list_models(sluice: Client, as_json: AsJson = False) -> None:
    """List all models and their versions.

    Example:

      sluice models list
    """
    page = sluice.get("/admin/models", limit=PAGE)
    models: list[Json] = page["models"]
    while page["next_page_token"] is not None:
        page = sluice.get("/admin/models", limit=PAGE, page_token=page["next_page_token"])
        models += page["models"]
    if as_json:
        typer.echo(json.dumps(models))
        return
    table = Table("model", "version", "state", "format", "labels", "uploaded")
    for model in models:
        if not model["versions"]:
            row(table, model["name"], "", "no versions", "", "", "")
        for version in model["versions"]:
            number = version["version"]
            labels = " ".join(label for label, pointed in model["labels"].items() if pointed == number)
            state = state_of(version) + ("" if version["error"] is None else f": {version['error']['code']}")
            name = f"{model['name']} (latest)" if number == model["latest"] else model["name"]
            row(table, name, str(number), state, version["format"], labels, moment(version["created_at"]))
    print_table(table)


@app.command("show")
@connected(admin=True)
def show(
    sluice: Client,
    model: Model,
    version: Annotated[int | None, typer.Argument(min=1, help="Its version; without it the newest upload.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show a version: its signature, its variants and what its preparation found out.

    Examples:

      sluice models show mnist

      sluice models show mnist 2 --json
    """
    if version is None:
        known = sluice.get(f"/admin/models/{quote(model, safe='')}")["versions"]
        if not known:
            raise CommandFailed(f"{model} has no versions: they were deleted")
        version = max(one["version"] for one in known)
    found = sluice.get(version_path(model, version))
    if as_json:
        typer.echo(json.dumps(found))
        return
    for table in tables(found):
        print_table(table)


def _upload(
    sluice: Client,
    model: str,
    file: Path,
    format: Format | None,
    options: dict[str, str],
    signature: str | None,
    console: Console,
) -> Json:
    with _progress(console) as progress:
        task = progress.add_task("Uploading", total=file.stat().st_size)
        try:
            return sluice.upload(
                model,
                file,
                format=format,
                options=options,
                signature=signature,
                progress=lambda sent, size: progress.update(task, completed=sent, total=size),
            )
        except Refused as error:
            if error.status == 404:
                raise CommandFailed(
                    f"{error}\nThis client may not upload {model}: it needs a grant "
                    f"(`sluice clients grant CLIENT --model {model} --action upload`)."
                ) from error
            if error.code != "unsupported_format" or "SLUICE_UPLOAD_FORMATS" in str(error):
                raise
            raise CommandFailed(
                f"{file} begins neither as a .keras archive nor as an HDF5 file: is it whole, and a model? "
                "--format says what it is where its name does not: --format onnx for an ONNX model not named .onnx."
            ) from error


@contextmanager
def _steps_shown(console: Console) -> Iterator[Callable[[str], None]]:
    """Says which step is being done: in a terminal on one line, which goes; else each on a line of its own."""
    if console.is_terminal:
        with console.status("Preparing") as status:
            yield lambda step: status.update(f"Preparing: {escape(step)}")
        return
    told = ""

    def tell(step: str) -> None:
        nonlocal told
        if step != told:
            told = step
            console.print(f"Preparing: {escape(step)}", highlight=False)

    yield tell


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeElapsedColumn(), console=console
    )
