"""`sluice jobs …`: a client's own jobs, and with --all an administrator's look at everybody's."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import quote

import typer
from rich.table import Table

from sluice.answers import Json, Refused, SluiceFailed
from sluice.connection import connected
from sluice.failures import CommandFailed
from sluice.output_files import require_place, write_lines
from sluice.output_options import AsJson
from sluice.tables import print_object, print_table
from sluice.version_table import moment, row

if TYPE_CHECKING:
    from sluice.client import Client, Job

app = typer.Typer(help="Jobs: submit, list, look, wait, cancel, delete, try again.", no_args_is_help=True)

JobId = Annotated[str, typer.Argument(help="Id of the job.", metavar="job")]
Model = Annotated[str | None, typer.Option("--model", help="Only those of this model.")]
State = Annotated[
    str | None,
    typer.Option("--state", help="Only those that are queued, running, succeeded, failed, canceled or expired."),
]
Before = Annotated[
    str | None, typer.Option("--before", help="Only those that ended before this moment: 2026-12-31T23:00:00Z.")
]
OfAll = Annotated[bool, typer.Option("--all", help="Of all clients (needs the scope jobs:admin).")]


@app.command("list")
@connected(admin=False)
def list_jobs(
    sluice: Client,
    model: Model = None,
    state: State = None,
    limit: Annotated[int, typer.Option(min=1, max=100, help="How many of the newest.")] = 20,
    of_all: OfAll = False,
    as_json: AsJson = False,
) -> None:
    """List jobs, the newest first.

    Examples:

      sluice jobs list --model mnist --state failed

      sluice jobs list --all --admin
    """
    path = "/admin/jobs" if of_all else "/v1/jobs"
    page = sluice.get(path, limit=limit, **given(model=model, state=state))
    show_jobs(page["jobs"], clients=of_all, as_json=as_json)


@app.command("show")
@connected(admin=False)
def show(sluice: Client, job: JobId, of_all: OfAll = False, as_json: AsJson = False) -> None:
    """Show a job: its state, its place in the queue, its result or where that is, and its receipt.

    Examples:

      sluice jobs show Zk0o3rVxQ1uYt5pWc8sLd2Ea

      sluice jobs show Zk0o3rVxQ1uYt5pWc8sLd2Ea --json
    """
    print_job(sluice.get(path_of_job(job, of_all=of_all)), as_json=as_json)


@app.command("wait")
@connected(admin=False)
def wait(
    sluice: Client,
    job: JobId,
    seconds: Annotated[float | None, typer.Option(min=0, help="At most; without it, however long it takes.")] = None,
    as_json: AsJson = False,
) -> None:
    """Wait for a job's end and show it.

    The exit code is 1 where it did not succeed, and 75 where the gateway cannot be reached: the job goes on.

    Example:

      sluice jobs wait Zk0o3rVxQ1uYt5pWc8sLd2Ea --seconds 300
    """
    found = sluice.job(job)
    with returning(found, f"sluice jobs wait -- {job}"):
        ended = found.wait(seconds)
    print_job(ended, as_json=as_json)
    if ended["state"] != "succeeded":
        raise typer.Exit(1)


@app.command("result")
@connected(admin=False)
def result(
    sluice: Client,
    job: JobId,
    output: Annotated[
        Path | None, typer.Option("--output", "--out", help="File to write; without it, standard output.")
    ] = None,
    partial: Annotated[
        bool, typer.Option("--partial", help="Of a file's job, the lines that there are, also while it runs.")
    ] = False,
) -> None:
    """Fetch the bare answer of a job, whatever its size.

    Examples:

      sluice jobs result Zk0o3rVxQ1uYt5pWc8sLd2Ea --output answer.json

      sluice jobs result Zk0o3rVxQ1uYt5pWc8sLd2Ea --partial
    """
    if output is not None:
        require_place(output)
    pieces = sluice.download(f"{path_of_job(job)}/result{'?partial=true' if partial else ''}")
    try:
        if output is not None:
            write_lines(output, pieces)
            return
        for piece in pieces:
            sys.stdout.buffer.write(piece)
    except Refused as error:
        if error.code != "job_not_ended":
            raise
        raise CommandFailed(
            f"the job has not ended; wait for it: sluice jobs wait -- {job}\n"
            "Of a file's job, --partial shows the lines that there are."
        ) from error


@app.command("cancel")
@connected(admin=False)
def cancel(sluice: Client, job: JobId, of_all: OfAll = False) -> None:
    """Cancel a job: a queued one never runs, a running one's result is dropped.

    Example:

      sluice jobs cancel Zk0o3rVxQ1uYt5pWc8sLd2Ea
    """
    sluice.post(f"{path_of_job(job, of_all=of_all)}/cancel")
    typer.echo(f"{job} is canceled")


@app.command("delete")
@connected(admin=False)
def delete(
    sluice: Client,
    job: Annotated[str | None, typer.Argument(help="Id of the job; or choose many by the options.")] = None,
    model: Model = None,
    state: State = None,
    before: Before = None,
    of_all: OfAll = False,
) -> None:
    """Delete a job with its input and its result, or many of one's own.

    Examples:

      sluice jobs delete Zk0o3rVxQ1uYt5pWc8sLd2Ea

      sluice jobs delete --state succeeded --before 2026-12-31T23:00:00Z
    """
    chosen = given(model=model, state=state, before=before)
    if job is not None and chosen:
        raise CommandFailed("name a job, or choose by --model, --state or --before, not both")
    if job is None and not chosen:
        raise CommandFailed("name a job, or choose by --model, --state or --before")
    if job is not None:
        sluice.delete(path_of_job(job, of_all=of_all))
        typer.echo(f"{job} is deleted")
        return
    if of_all:
        raise CommandFailed("of all clients, name one job; `sluice clients delete-jobs` deletes those of one client")
    typer.echo(counted(delete_pages(sluice, "/v1/jobs", chosen), "job is deleted", "jobs are deleted"))


@app.command("replay")
@connected(admin=False)
def replay(
    sluice: Client,
    job: JobId,
    force: Annotated[bool, typer.Option("--force", help="Also where it was replayed before.")] = False,
) -> None:
    """Try a job again that failed by no fault of its own, and print the new one.

    Example:

      sluice jobs replay Zk0o3rVxQ1uYt5pWc8sLd2Ea
    """
    made = sluice.post(f"{path_of_job(job)}/replay{'?force=true' if force else ''}")
    typer.echo(f"{job} is tried again as {made['id']}")


def path_of_job(job: str, *, of_all: bool = False) -> str:
    """Where a job is."""
    return f"{'/admin' if of_all else '/v1'}/jobs/{quote(job, safe='')}"


def given(**options: str | None) -> dict[str, str]:
    """Those options that were given."""
    return {name: value for name, value in options.items() if value is not None}


def counted(number: int, one: str, many: str) -> str:
    """A number of things and what became of them."""
    return f"{number} {one if number == 1 else many}"


@contextmanager
def returning(job: Job, command: str) -> Iterator[None]:
    """Says how to come back where a command that follows a job ends before the job's answer is there."""
    try:
        yield
    except (SluiceFailed, CommandFailed, KeyboardInterrupt) as error:
        gone = isinstance(error, Refused) and error.status == 404
        if not gone:
            typer.echo(
                f"{'the job has ended' if job.ended else 'the job goes on'}; come back with: {command}", err=True
            )
        raise


def delete_pages(sluice: Client, path: str, query: dict[str, str]) -> int:
    """Delete page by page; returns how many jobs. Raises Refused, Unreachable."""
    deleted = 0
    token: str | None = ""
    while token is not None:
        page = sluice.delete(path, **query, **({"page_token": token} if token else {}))
        deleted += int(page["deleted"])
        token = page["next_page_token"]
    return deleted


def print_job(job: Json, *, as_json: bool) -> None:
    """One job, as a table or as JSON."""
    if as_json:
        typer.echo(json.dumps(job, indent=2))
    else:
        print_object(job)


def show_jobs(jobs: list[Json], *, clients: bool, as_json: bool) -> None:
    """Jobs as a table, with whose they are where `clients` says so, or as JSON."""
    if as_json:
        typer.echo(json.dumps(jobs))
        return
    table = Table("id", *(["client"] if clients else []), "model", "state", "created", "attempts", "error")
    for job in jobs:
        model = f"{job['model']}/{job['version']}"
        error = "" if job["error"] is None else job["error"]["code"]
        if job.get("replayed_as"):
            error += f" (tried again as {job['replayed_as']})"
        whose = [job["client_id"]] if clients else []
        row(table, job["id"], *whose, model, job["state"], moment(job["created_at"]), str(job["attempts"]), error)
    print_table(table, "id", "client")
