"""`sluice audit …`: reading, verifying and exporting the audit log."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from sluice.client import Sluice
from sluice.connection import connected
from sluice.failures import CommandFailed
from sluice.local_database import Data, local_database, use_folder

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from auth.audit_heads import Head
    from auth.audit_verification import Findings, Trust
    from auth.keys import KeyRing

app = typer.Typer(help="The audit log: who did what, and whether it is as it was written.", no_args_is_help=True)

Since = Annotated[
    datetime | None, typer.Option(help="Not older than this moment, UTC.", formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"])
]
Until = Annotated[
    datetime | None, typer.Option(help="Not younger than this moment, UTC.", formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"])
]


@app.command("list")
@connected(admin=True)
def list_entries(  # noqa: PLR0913 - each is an option
    sluice: Sluice,
    identity: Annotated[str | None, typer.Option(help="Whose acts: cli_…, usr_…, or local.")] = None,
    act: Annotated[str | None, typer.Option(help="Which acts, such as put_label.")] = None,
    model: Annotated[str | None, typer.Option(help="Acts on this model.")] = None,
    outcome: Annotated[str | None, typer.Option(help="done or refused.")] = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most so many.")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show the newest entries; the client needs the scope audit:read.

    Examples:

      sluice audit list --outcome refused

      sluice audit list --model mnist --since 2026-11-01 --json
    """
    asked = {"identity": identity, "act": act, "model": model, "outcome": outcome, "limit": limit}
    asked |= {"since": _rfc3339(since), "until": _rfc3339(until)}
    found = sluice.get("/admin/audit", **{name: str(value) for name, value in asked.items() if value is not None})
    entries = found["entries"]
    if as_json:
        typer.echo(json.dumps(entries))
        return
    table = Table("when", "who", "act", "on", "outcome", "times", "from")
    for entry in entries:
        on = f"{entry['model'] or ''} {entry['version'] or ''}".strip()
        outcome = f"{entry['outcome']} {entry['reason'] or ''}".strip()
        who = entry["name"] or entry["identity"]
        table.add_row(entry["at"][:19], who, entry["act"], on, outcome, str(entry["count"]), entry["address"])
    Console(soft_wrap=True).print(table)


@app.command()
def export(
    since: Since = None,
    until: Until = None,
    out: Annotated[Path | None, typer.Option(help="Write to this file instead of standard output.")] = None,
    format_: Annotated[str, typer.Option("--format", help="jsonl is the only one.")] = "jsonl",
    data: Data = None,
) -> None:
    """Write the log as JSON lines that carry their hashes and end with a signed head.

    Examples:

      sluice audit export --since 2026-11-01 --out november.jsonl

      sluice audit verify november.jsonl
    """
    if format_ != "jsonl":
        raise CommandFailed("the only format is jsonl")
    use_folder(data)
    from auth.audit_export import lines, part_of
    from auth.audit_verification import one_picture

    with local_database(data, write=False) as session, _output(out) as write, _progress() as progress:
        one_picture(session)
        signing = _ring(session).signing
        part = part_of(session, _milliseconds(since), _milliseconds(until))
        for line in progress.track(lines(session, part, signing), total=part.entries + 2):
            write(line)
    if out is not None:
        typer.echo(f"{part.entries} entries are in {out}")


@app.command()
def verify(
    file: Annotated[Path | None, typer.Argument(help="An exported file; without it, the database.")] = None,
    head: Annotated[
        Path | None, typer.Option(help="A signed head from elsewhere: a file with one, or a log that holds some.")
    ] = None,
    keys: Annotated[
        list[str] | None, typer.Option("--key", help="Thumbprint (kid) of a key that is the gateway's; repeatable.")
    ] = None,
    data: Data = None,
) -> None:
    """Find what was edited, removed, inserted or moved. Exit code 1 where something was.

    For the database the gateway's own keys are known; for a file, name the key with --key (`sluice keys list`), or
    give a --head that was kept elsewhere: else whoever changed the file could have signed it anew.

    Examples:

      sluice audit verify

      sluice audit verify --head /var/log/sluice.log

      sluice audit verify november.jsonl --key rB2wLq0w9jYkY2cC1Yw9nB0d0zX8mE0l2Q3b4c5d6e7
    """
    from auth.audit_verification import Trust

    known = _head(head)
    kids = frozenset(keys) if keys else None
    found = _verify_file(file, Trust(kids, known)) if file is not None else _verify_database(data, kids, known)
    _report(found)


def _verify_file(file: Path, trust: Trust) -> Findings:
    from auth.audit_export import verify_file

    try:
        with file.open(encoding="ascii", errors="backslashreplace") as opened, _progress() as progress:
            bar = progress.add_task("lines", total=None)
            return verify_file(opened, trust, lambda seen: progress.advance(bar, seen))
    except OSError as error:
        raise CommandFailed(f"{file} cannot be read: {error.strerror}") from error


def _verify_database(data: Path | None, kids: frozenset[str] | None, known: Head | None) -> Findings:
    from auth.audit_chain import ends
    from auth.audit_verification import Trust, one_picture, verify_database

    with local_database(data, write=False) as session, _progress() as progress:
        one_picture(session)
        before, end = ends(session)
        bar = progress.add_task("entries", total=end.number - before.number)
        trust = Trust(kids or _ring(session).own, known)
        return verify_database(session, trust, lambda seen: progress.advance(bar, seen))


def _report(found: Findings) -> None:
    last = found.signed_by
    typer.echo(f"{found.entries} entries, from {found.before.number + 1} to {found.end.number}")
    if found.unsealed:
        typer.echo(
            f"{found.unsealed} entries wait for their place in the chain; a running gateway gives it in a second"
        )
    if last is not None:
        moment = datetime.fromtimestamp(last.at / 1000, UTC).isoformat(sep=" ", timespec="seconds")
        typer.echo(f"signed up to entry {last.number} at {moment} UTC with the key {last.kid}")
    if found.faults:
        for fault in found.faults:
            typer.echo(f"  {fault}")
        raise CommandFailed("the audit log is not as it was written")
    if not found.confirmed:
        typer.echo(
            "Nothing says yet that this is the gateway's key: compare it with `sluice keys list`, or name a --head"
        )
    typer.echo("nothing was changed, removed, inserted or moved")


def _ring(session: Session) -> KeyRing:
    from auth.settings import AuthSettings
    from auth.signing_keys import SigningKeys
    from sluice.configuration import settings_of

    keys = SigningKeys(settings_of(AuthSettings).master_keys)
    keys.read(session)
    return keys.ring


def _head(path: Path | None) -> Head | None:
    from auth.audit_heads import HeadInvalid, read_head

    if path is None:
        return None
    try:
        return read_head(path.read_text(errors="replace"))
    except OSError as error:
        raise CommandFailed(f"{path} cannot be read: {error.strerror}") from error
    except HeadInvalid as error:
        raise CommandFailed(f"{path}: {error}") from error


@contextlib.contextmanager
def _output(path: Path | None) -> Iterator[Callable[[str], None]]:
    """What writes a line, to standard output or to a file that only this user can read."""
    if path is None:
        yield typer.echo
        return
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise CommandFailed(f"{path} cannot be written: {error.strerror}") from error
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        yield lambda line: print(line, file=file)


@contextlib.contextmanager
def _progress() -> Iterator[Progress]:
    """A bar on standard error, where somebody looks at it."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
        yield progress


def _rfc3339(moment: datetime | None) -> str | None:
    return None if moment is None else moment.replace(tzinfo=UTC).isoformat()


def _milliseconds(moment: datetime | None) -> int | None:
    return None if moment is None else int(moment.replace(tzinfo=UTC).timestamp() * 1000)
