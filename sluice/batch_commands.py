"""`sluice batch …`: a file of many rows as one job, followed to its end, and its answers as a file."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from sluice.answers import Json, Refused
from sluice.connection import connected
from sluice.failures import CommandFailed
from sluice.job_commands import returning
from sluice.model_commands import Model
from sluice.output_files import require_place, write_lines
from sluice.predict_commands import Label, Version, explaining_404, require_one
from sluice.shown_texts import say
from sluice.submit_commands import Deadline, Key, MaxAttempts, Webhook, options_of

if TYPE_CHECKING:
    from sluice.client import Client, Job

LOOK_SECONDS = 1
STANDARD_INPUT = Path("-")

app = typer.Typer(help="Files of many rows, predicted as one job.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print the job as JSON at its end, and no progress.")]


@app.command("run")
@connected(admin=False)
def run(  # noqa: PLR0913 - a command's arguments are its options
    sluice: Client,
    model: Model,
    file: Annotated[Path, typer.Argument(help="The rows: .jsonl, .csv, .npz, .parquet, .zip; - is standard input.")],
    output: Annotated[
        Path | None,
        typer.Option(
            help="Where the answers go, one line for each row; otherwise beside the rows: FILE.answers.jsonl."
        ),
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(help="What the file is, where its name does not say so: jsonl, csv, npz, parquet or files."),
    ] = None,
    version: Version = None,
    label: Label = None,
    deadline: Deadline = None,
    max_attempts: MaxAttempts = None,
    webhook: Webhook = None,
    key: Key = None,
    wait: Annotated[bool, typer.Option(help="Follow the job, and fetch its answers.")] = True,
    as_json: AsJson = False,
) -> None:
    """Predict every row of a file.

    The exit code is 1 where the job did not succeed, and 75 where the gateway cannot be reached: the job goes on.

    Examples:

      sluice batch run mnist rows.jsonl --output answers.jsonl

      sluice batch run mnist rows.npz --label stable --no-wait
    """
    require_one(version, label)
    options = options_of(deadline=deadline, max_attempts=max_attempts, webhook=webhook, key=key)
    _require_rows(file)
    known = format or _format_of(file)
    beside = None if file == STANDARD_INPUT else file.with_name(f"{file.name}.answers.jsonl")
    place = _place(output, beside) if wait else None
    with _rows(file) as rows, progress_bar(shown=not as_json) as bar:
        task = bar.add_task("uploading", total=rows.stat().st_size)
        try:
            job = sluice.submit_file(
                model,
                rows,
                format=known,
                version=version,
                label=label,
                progress=lambda sent, size: bar.update(task, completed=sent, total=size),
                **options,
            )
        except Refused as error:
            raise explaining_404(error, model) from error
    if place is None:
        typer.echo(json.dumps(job.document) if as_json else job.id)
    else:
        finish(job, place, as_json=as_json)


@app.command("attach")
@connected(admin=False)
def attach(
    sluice: Client,
    job: Annotated[str, typer.Argument(help="Id of the job; -- before it where it begins with a hyphen.")],
    output: Annotated[
        Path | None,
        typer.Option(help="Where the answers go, one line for each row; otherwise JOB.answers.jsonl in this folder."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Follow a file's job that runs already, and fetch its answers; the exit codes are those of `batch run`.

    Example:

      sluice batch attach --output answers.jsonl -- Zk0o3rVxQ1uYt5pWc8sLd2Ea
    """
    place = _place(output, Path(f"{job}.answers.jsonl"))
    try:
        found = sluice.job(job)
    except Refused as error:
        if error.status != 404:
            raise
        raise CommandFailed("there is no such job of this client, or not any more") from error
    if "failed" not in found.document["progress"]:
        raise CommandFailed(f"{job} is one prediction, and no file's job: sluice jobs wait -- {job}")
    finish(found, place, as_json=as_json)


def finish(job: Job, output: Path, *, as_json: bool) -> None:
    """Follow a job to its end and write its answers; one that did not succeed may have some all the same."""
    with returning(job, f"sluice batch attach --output {output} -- {job.id}"):
        document = follow(job, shown=not as_json)
        succeeded = document["state"] == "succeeded"
        try:
            lines = write_lines(output, job.lines(), even_none=succeeded)
        except Refused as error:
            # It ended before there was anything to answer into.
            if succeeded or error.status != 409:
                raise
            lines = 0
    if as_json:
        typer.echo(json.dumps(document))
    if not succeeded:
        reason = document["error"]
        say(document["state"] + (f": {reason['code']}: {reason['message']}" if reason else ""), err=True)
        if lines:
            typer.echo(f"{lines} rows were answered before, in {output}", err=True)
        raise typer.Exit(1)
    if not as_json:
        told = document["progress"]
        typer.echo(f"succeeded: {lines} of {told['total']} rows, {told['failed']} failed, in {output}")


def follow(job: Job, *, shown: bool) -> Json:
    """The job once it has ended, with a bar of its rows meanwhile."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"))
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), disable=not shown) as bar:
        task = bar.add_task(job.document["state"], total=None, rate="")
        while True:
            document = job.wait(LOOK_SECONDS)
            told = document["progress"]
            rate = "" if told["rows_per_second"] is None else f"{told['rows_per_second']:,.0f} rows/s"
            bar.update(task, description=document["state"], completed=told["done"], total=told["total"], rate=rate)
            if job.ended:
                return document


def progress_bar(*, shown: bool) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    return Progress(*columns, console=Console(stderr=True), disable=not shown, transient=True)


def _require_rows(file: Path) -> None:
    """Raises CommandFailed where there is no such file."""
    if file != STANDARD_INPUT and not file.is_file():
        raise CommandFailed(f"cannot read {file}: {'it is a folder' if file.is_dir() else 'there is no such file'}")


def _format_of(file: Path) -> str:
    """What a file's name says that it is. Raises CommandFailed."""
    if file == STANDARD_INPUT:
        raise CommandFailed("say what standard input is: --format jsonl, csv, npz, parquet or files")
    # Here, so that other commands need not wait for the HTTP client.
    from sluice.submit_options import FORMATS

    found = FORMATS.get(file.suffix.lower())
    if found is not None:
        return found
    hint = ""
    if file.suffix.lower() == ".npy":
        hint = f'; numpy.savez("{file.stem}.npz", numpy.load("{file.name}")) makes an .npz of it'
    raise CommandFailed(
        f"the name of {file} does not say what it is: give --format jsonl, csv, npz, parquet or files{hint}"
    )


def _place(output: Path | None, usual: Path | None) -> Path:
    """Where the answers go. Raises CommandFailed where they cannot, or where a file would be replaced unasked."""
    place = output or usual
    if place is None:
        raise CommandFailed("say where the answers go: --output FILE")
    if output is None and place.exists():
        raise CommandFailed(f"{place} exists already: --output {place} replaces it, or name another file")
    require_place(place)
    return place


@contextmanager
def _rows(file: Path) -> Iterator[Path]:
    """The file itself; standard input as one in the temporary folder, since its size has to be known."""
    if file != STANDARD_INPUT:
        yield file
        return
    with tempfile.NamedTemporaryFile(prefix="sluice-rows-") as kept:
        shutil.copyfileobj(sys.stdin.buffer, kept)
        kept.flush()
        yield Path(kept.name)
