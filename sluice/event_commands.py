"""`sluice jobs watch` and `sluice events`: what becomes of a client's jobs, as it happens."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from sluice.answers import Refused
from sluice.connection import connected
from sluice.failures import CommandFailed
from sluice.shown_texts import say

if TYPE_CHECKING:
    from sluice.client import Client, JobEvent

# As many as a gateway takes.
ID_DIGITS = 15

AsJson = Annotated[bool, typer.Option("--json", help="Print each event as a line of JSON.")]


@connected(admin=False)
def watch(
    sluice: Client,
    job: Annotated[str, typer.Argument(help="Id of the job.")],
    as_json: AsJson = False,
) -> None:
    """Follow a job to its end; the exit code is 1 where it did not succeed.

    Examples:

      sluice jobs watch Zk0o3rVxQ1uYt5pWc8sLd2Ea

      sluice jobs watch Zk0o3rVxQ1uYt5pWc8sLd2Ea --json
    """
    event = None
    try:
        for event in sluice.job(job).events():
            _show(event, as_json=as_json)
    except Refused as error:
        if error.status != 404:
            raise
        raise CommandFailed("there is no such job of this client, or not any more") from error
    if event is None or event.job["state"] != "succeeded":
        raise typer.Exit(1)


@connected(admin=False)
def events(
    sluice: Client,
    model: Annotated[str | None, typer.Option(help="Jobs of this model only.")] = None,
    types: Annotated[
        list[str] | None,
        typer.Option("--type", help="An event such as job.failed; may be repeated. Without it: the ends of jobs."),
    ] = None,
    since: Annotated[
        str | None, typer.Option(help="Id of an event, milliseconds since 1970: what came after it is told first.")
    ] = None,
    most: Annotated[int | None, typer.Option("--most", min=1, help="Stop after so many events.")] = None,
    as_json: AsJson = False,
) -> None:
    """Follow all jobs of this client, until interrupted.

    Examples:

      sluice events

      sluice events --model mnist --type job.failed --json
    """
    if since is not None and not (since.isascii() and since.isdecimal() and len(since) <= ID_DIGITS):
        raise CommandFailed(f"--since is the id of an event, in milliseconds since 1970, and not {since}")
    following = sluice.events(model=model, types=types or (), last_event=since)
    for number, event in enumerate(following, start=1):
        _show(event, as_json=as_json)
        if number == most:
            return


def _show(event: JobEvent, *, as_json: bool) -> None:
    job = event.job
    if as_json:
        typer.echo(json.dumps({"event": event.name, "id": event.id, "job": job}))
        return
    progress, error = job["progress"], job["error"]
    told = f"{progress['done']}/{progress['total']}" + (f"  {error['code']}: {error['message']}" if error else "")
    say(f"{job['id']}  {job['model']} {job['version']}  {event.name.removeprefix('job.'):<9}  {told}")
