"""`sluice batch …`: a file of many rows as one job, followed to its end, and its answers as a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from sluice.client import Json, Refused, Sluice, SubmitOptions, SubmittedJob
from sluice.connection import connected
from sluice.failures import CommandFailed

LOOK_SECONDS = 1

app = typer.Typer(help="Files of many rows, predicted as one job.", no_args_is_help=True)

Output = Annotated[
    Path | None, typer.Option(help="Where the answers go, one line for each row; otherwise beside the rows.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the job as JSON at its end, and no progress.")]


@app.command("run")
@connected(admin=False)
def run(  # noqa: PLR0913 - a command's arguments are its options
    sluice: Sluice,
    model: Annotated[str, typer.Argument(help="Name of the model.")],
    file: Annotated[Path, typer.Argument(help="The rows: .jsonl, .csv, .npz, .parquet, .zip.", exists=True)],
    output: Output = None,
    format: Annotated[str | None, typer.Option(help="What the file is, where its name does not say so.")] = None,
    version: Annotated[int | None, typer.Option(min=1, help="A version; otherwise the latest.")] = None,
    label: Annotated[str | None, typer.Option(help="A label.")] = None,
    key: Annotated[
        str | None, typer.Option("--idempotency-key", help="The same key with the same file is the same job.")
    ] = None,
    wait: Annotated[bool, typer.Option(help="Follow the job, and fetch its answers.")] = True,
    as_json: AsJson = False,
) -> None:
    """Predict every row of a file; the exit code is 1 where the job did not succeed.

    Examples:

      sluice batch run mnist rows.jsonl --output answers.jsonl

      sluice batch run mnist rows.npz --label stable --no-wait
    """
    options: SubmitOptions = {"priority": "bulk"}
    if key is not None:
        options["idempotency_key"] = key
    with progress_bar(shown=not as_json) as bar:
        task = bar.add_task("uploading", total=file.stat().st_size)
        job = sluice.submit_file(
            model,
            file,
            format=format,
            version=version,
            label=label,
            progress=lambda sent, size: bar.update(task, completed=sent, total=size),
            **options,
        )
    if wait:
        finish(job, output or file.with_suffix(".answers.jsonl"), as_json=as_json)
    else:
        typer.echo(json.dumps(job.document) if as_json else job.id)


@app.command("attach")
@connected(admin=False)
def attach(
    sluice: Sluice,
    job: Annotated[str, typer.Argument(help="Id of the job.")],
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """Follow a file's job that runs already, and fetch its answers.

    Example:

      sluice batch attach Zk0o3rVxQ1uYt5pWc8sLd2Ea --output answers.jsonl
    """
    try:
        found = sluice.job(job)
    except Refused as error:
        if error.status != 404:
            raise
        raise CommandFailed("there is no such job of this client, or not any more") from error
    finish(found, output or Path(f"{job}.answers.jsonl"), as_json=as_json)


def finish(job: SubmittedJob, output: Path, *, as_json: bool) -> None:
    """Follow a job to its end and write its answers."""
    try:
        follow(job, shown=not as_json)
    except KeyboardInterrupt:
        typer.echo(f"the job goes on; come back with: sluice batch attach {job.id} --output {output}", err=True)
        raise
    document = job.document
    lines = save(job, output)
    if as_json:
        typer.echo(json.dumps(document))
    else:
        told = document["progress"]
        Console().print(f"{document['state']}: {lines} of {told['total']} rows, {told['failed']} failed, in {output}")
    if document["state"] != "succeeded":
        raise typer.Exit(1)


def follow(job: SubmittedJob, *, shown: bool) -> Json:
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


def save(job: SubmittedJob, output: Path) -> int:
    """Write the answers of a job that has ended; returns how many lines there are."""
    lines = 0
    # Under another name until it is whole: a file that is there is complete.
    partial = output.with_name(f"{output.name}.part")
    with partial.open("wb") as file:
        for piece in job.lines():
            lines += piece.count(b"\n")
            file.write(piece)
    partial.replace(output)
    return lines


def progress_bar(*, shown: bool) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    return Progress(*columns, console=Console(stderr=True), disable=not shown, transient=True)
