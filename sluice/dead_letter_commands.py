"""`sluice dead-letters …`: jobs that failed by no fault of their own, for administrators."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated
from urllib.parse import quote

import typer

from sluice.client_commands import path_of
from sluice.connection import connected
from sluice.failures import CommandFailed
from sluice.job_commands import Before, JobId, Model, counted, given, print_job, show_jobs
from sluice.output_options import AsJson

if TYPE_CHECKING:
    from sluice.client import Client

app = typer.Typer(
    help="Dead letters: jobs that failed by no fault of their own (for administrators).", no_args_is_help=True
)

PATH = "/admin/dead-letters"
OfClient = Annotated[str | None, typer.Option("--client", help="Only those of this client, by its id or name.")]
Error = Annotated[str | None, typer.Option("--error", help="Only those with this code, such as worker_crashed.")]
Some = Annotated[str | None, typer.Argument(help="Id of one; or choose many by the options.", metavar="job")]
Every = Annotated[bool, typer.Option("--every", help="All of them.")]
Force = Annotated[bool, typer.Option("--force", help="Also those that were replayed before.")]


@app.command("list")
@connected(admin=True)
def list_letters(
    sluice: Client,
    model: Model = None,
    client: OfClient = None,
    error: Error = None,
    limit: Annotated[int, typer.Option(min=1, max=100, help="How many of the newest.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List dead letters, the newest first.

    Example:

      sluice dead-letters list --model mnist --error worker_crashed
    """
    chosen = _chosen(sluice, model=model, client=client, error=error)
    show_jobs(sluice.get(PATH, limit=limit, **chosen)["jobs"], clients=True, as_json=as_json)


@app.command("show")
@connected(admin=True)
def show(sluice: Client, job: JobId, as_json: AsJson = False) -> None:
    """Show a dead letter: attempts, error, digests and sizes, never what was in it.

    Examples:

      sluice dead-letters show Zk0o3rVxQ1uYt5pWc8sLd2Ea

      sluice dead-letters show Zk0o3rVxQ1uYt5pWc8sLd2Ea --json
    """
    print_job(sluice.get(f"{PATH}/{quote(job, safe='')}"), as_json=as_json)


@app.command("replay")
@connected(admin=True)
def replay(  # noqa: PLR0913 - a command's arguments are its options
    sluice: Client,
    job: Some = None,
    model: Model = None,
    client: OfClient = None,
    error: Error = None,
    before: Before = None,
    every: Every = False,
    force: Force = False,
) -> None:
    """Try dead letters again: each becomes a new job of the same client with the same input.

    Examples:

      sluice dead-letters replay Zk0o3rVxQ1uYt5pWc8sLd2Ea

      sluice dead-letters replay --model mnist --error worker_crashed
    """
    chosen = _chosen(sluice, model=model, client=client, error=error, before=before)
    _require_choice(job, chosen, every=every)
    if job is not None:
        made = sluice.post(f"{PATH}/{quote(job, safe='')}/replay{'?force=true' if force else ''}")
        typer.echo(f"{job} is tried again as {made['replayed_as']}")
        return
    replayed = refused = 0
    token: str | None = ""
    while token is not None:
        page = sluice.post(f"{PATH}/replay", {**chosen, "force": force} | ({"page_token": token} if token else {}))
        replayed, refused = replayed + len(page["replayed"]), refused + page["refused"]
        token = page["next_page_token"]
    typer.echo(counted(replayed, "is tried again", "are tried again") + (f", {refused} cannot be" if refused else ""))


@app.command("purge")
@connected(admin=True)
def purge(
    sluice: Client,
    job: Some = None,
    model: Model = None,
    client: OfClient = None,
    error: Error = None,
    before: Before = None,
    every: Every = False,
) -> None:
    """Delete dead letters with their inputs.

    Examples:

      sluice dead-letters purge Zk0o3rVxQ1uYt5pWc8sLd2Ea

      sluice dead-letters purge --before 2026-12-31T23:00:00Z
    """
    chosen = _chosen(sluice, model=model, client=client, error=error, before=before)
    _require_choice(job, chosen, every=every)
    if job is not None:
        sluice.post(f"{PATH}/{quote(job, safe='')}/purge")
        typer.echo(f"{job} is deleted")
        return
    deleted, token = 0, ""
    while token is not None:
        page = sluice.post(f"{PATH}/purge", chosen | ({"page_token": token} if token else {}))
        deleted, token = deleted + page["deleted"], page["next_page_token"]
    typer.echo(counted(deleted, "is deleted", "are deleted"))


def _chosen(
    sluice: Client, *, model: str | None, client: str | None, error: str | None, before: str | None = None
) -> dict[str, str]:
    """The options as the interface takes them; a client's name becomes its id. Raises CommandFailed."""
    client_id = None if client is None else path_of(sluice, client).rpartition("/")[2]
    return given(model=model, client_id=client_id, error_code=error, before=before)


def _require_choice(job: str | None, chosen: dict[str, str], *, every: bool) -> None:
    if [job is not None, bool(chosen), every].count(True) != 1:
        raise CommandFailed("name one dead letter, or choose by the options, or say --every")
