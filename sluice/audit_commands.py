"""`sluice audit …`: reading, verifying and exporting the audit log."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from sluice.connection import connected
from sluice.failures import CommandFailed
from sluice.local_database import Data, local_database, use_folder
from sluice.moments import read_moment
from sluice.output_options import AsJson
from sluice.shown_texts import cell, say
from sluice.tables import print_table

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from auth.audit_heads import Head
    from auth.audit_verification import Findings, Trust
    from auth.keys import KeyRing
    from sluice.client import Client

# The exit code of a verification that found nothing wrong, but of which nobody says whose log it was.
UNCONFIRMED = 2
# What details call that which was acted on.
TARGETS = ("client", "client_id", "person", "person_id", "label", "name", "kid", "key_id", "job_id", "role")

app = typer.Typer(help="The audit log: who did what, and whether it is as it was written.", no_args_is_help=True)

Since = Annotated[
    datetime | None,
    typer.Option(help="Not older than this: RFC 3339; UTC without a zone.", parser=read_moment, metavar="time"),
]
Until = Annotated[
    datetime | None,
    typer.Option(help="Not younger than this: RFC 3339; UTC without a zone.", parser=read_moment, metavar="time"),
]


@app.command("list")
@connected(admin=True)
def list_entries(  # noqa: PLR0913 - each is an option
    sluice: Client,
    identity: Annotated[str | None, typer.Option(help="Whose acts: cli_…, usr_…, or local.")] = None,
    act: Annotated[str | None, typer.Option(help="Which acts, such as put_label.")] = None,
    model: Annotated[str | None, typer.Option(help="Acts on this model.")] = None,
    outcome: Annotated[str | None, typer.Option(help="done or refused.")] = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most so many.")] = 50,
    as_json: AsJson = False,
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
        outcome = f"{entry['outcome']} {entry['reason'] or ''}".strip()
        shown = (_who(entry), entry["act"], _target(entry), outcome, str(entry["count"]), entry["address"])
        table.add_row(entry["at"][:19], *map(cell, shown))
    print_table(table)


@app.command()
def export(
    since: Since = None,
    until: Until = None,
    out: Annotated[
        Path | None, typer.Option("--output", "--out", help="Write to this file instead of standard output.")
    ] = None,
    format_: Annotated[str, typer.Option("--format", help="jsonl is the only one.")] = "jsonl",
    data: Data = None,
) -> None:
    """Write the log as JSON lines that carry their hashes and end with a signed head.

    Examples:

      sluice audit export --since 2026-11-01 --output november.jsonl

      sluice audit verify november.jsonl --key rB2wLq0w9jYkY2cC1Yw9nB0d0zX8mE0l2Q3b4c5d6e7
    """
    if format_ != "jsonl":
        raise CommandFailed("the only format is jsonl")
    use_folder(data)
    from auth.audit_continuity import begin, follow
    from auth.audit_export import lines, part_of
    from auth.audit_verification import one_picture

    with local_database(data, write=False) as session, _readable(), _output(out) as write, _progress() as progress:
        one_picture(session)
        ring = _ring(session)
        signing = ring.signing
        # What is exported is signed: no log that somebody else has written may get that.
        follow(session, begin(session, ring.ever), ring.ever)
        part = part_of(session, _milliseconds(since), _milliseconds(until))
        for line in progress.track(lines(session, part, signing), total=part.entries + 2):
            write(line)
    if out is not None:
        typer.echo(f"{part.entries} entries are in {out}")


@app.command()
def verify(
    file: Annotated[Path | None, typer.Argument(help="An exported file; without it, the database.")] = None,
    head: Annotated[
        Path | None,
        typer.Option(help="Signed heads from elsewhere: a file with one, a log that holds some, an earlier export."),
    ] = None,
    keys: Annotated[
        list[str] | None, typer.Option("--key", help="Thumbprint (kid) of a key that is the gateway's; repeatable.")
    ] = None,
    data: Data = None,
) -> None:
    """Find what was edited, removed, inserted or moved. Exit code 1 where something was, 2 where nobody can say.

    On a machine with the database its keys are known; elsewhere, name the key with --key (`sluice keys list`), or
    give a --head that was kept elsewhere: else whoever changed the file could have signed it anew.

    Examples:

      sluice audit verify

      sluice audit verify --head /var/log/sluice.log

      sluice audit verify november.jsonl --key rB2wLq0w9jYkY2cC1Yw9nB0d0zX8mE0l2Q3b4c5d6e7
    """
    from auth.audit_verification import Trust

    known = _heads(head)
    kids = frozenset(keys) if keys else None
    if file is None:
        found = _verify_database(data, kids, known)
        if not found.entries and not found.unsealed and not found.end.number and not found.faults:
            typer.echo("the log is empty: right only where nothing has ever been done here")
            raise typer.Exit(UNCONFIRMED)
    else:
        found = _verify_file(file, Trust(kids if keys or known else _local_keys(data), known))
    _report(found)


@app.command()
def restart_signing(
    confirmed: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    data: Data = None,
) -> None:
    """Sign a log that was changed as it is now, so that gateways sign what comes after; restart them then.

    What was changed stays to be found: first keep what `sluice audit verify` says, and a copy of the database.

    Examples:

      sluice audit verify > findings.txt

      sluice audit restart-signing
    """
    if not confirmed:
        typer.confirm("From now on the log counts as it is. Have you kept what `sluice audit verify` says?", abort=True)
    with local_database(data) as session, _readable():
        from auth.audit_heads import sign_anew

        head = sign_anew(session, _ring(session).signing)
    typer.echo(f"signed up to entry {head.number}; restart the gateways")


def _local_keys(data: Path | None) -> frozenset[str] | None:
    """The keys of this machine's installation, where it has one."""
    use_folder(data)
    if not all(
        {f"SLUICE_{name}{ending}" for ending in ("", "_FILE", "_COMMAND")} & os.environ.keys()
        for name in ("DATABASE_URL", "MASTER_KEY")
    ):
        return None
    with local_database(data, write=False) as session, _readable():
        return _ring(session).ever


def _verify_file(file: Path, trust: Trust) -> Findings:
    from auth.audit_export import verify_file

    try:
        with file.open(encoding="ascii", errors="backslashreplace") as opened, _progress() as progress:
            bar = progress.add_task("lines", total=None)
            return verify_file(opened, trust, lambda seen: progress.advance(bar, seen))
    except OSError as error:
        raise CommandFailed(f"{file} cannot be read: {error.strerror}") from error


def _verify_database(data: Path | None, kids: frozenset[str] | None, known: tuple[Head, ...]) -> Findings:
    from auth.audit_verification import Trust, one_picture, verify_database

    with local_database(data, write=False) as session, _readable(), _progress() as progress:
        one_picture(session)
        bar = progress.add_task("entries", total=None)
        trust = Trust(kids or _ring(session).own, known)
        return verify_database(session, trust, lambda seen: progress.advance(bar, seen))


def _report(found: Findings) -> None:
    last = found.signed_by
    places = f", from {found.before.number + 1} to {found.end.number}" if found.entries else ""
    typer.echo(f"{found.entries} entries{places}")
    if found.unsealed:
        typer.echo(
            f"{found.unsealed} entries wait for their place in the chain; a running gateway gives it in a second"
        )
    if last is not None:
        typer.echo(f"signed up to entry {last.number} at {_moment(last.at)} with the key {last.kid}")
        if last.number < found.end.number:
            typer.echo(f"entries {last.number + 1} to {found.end.number} are chained but not signed yet")
    if found.faults:
        for fault in found.faults:
            say(f"  {fault}")
        raise CommandFailed("the audit log is not as it was written")
    vouched = found.confirmed
    if last is not None and (vouched is None or vouched < last.number):
        if vouched is not None:
            typer.echo(f"up to entry {vouched} it is the log over which a known head was signed")
        typer.echo(
            "consistent in itself, but signed by a key that nobody vouched for: give --key, or --head with a later head"
        )
        raise typer.Exit(UNCONFIRMED)
    typer.echo("nothing was changed, removed, inserted or moved")


def _moment(at: int) -> str:
    """Milliseconds since 1970 as people read them; a signed head of somebody else's may hold any number."""
    try:
        return datetime.fromtimestamp(at / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (OverflowError, ValueError, OSError):
        return "no moment"


def _who(entry: dict[str, Any]) -> str:
    """Whose act it was; of a failed sign-in, whose name was given."""
    attempted = entry["detail"].get("attempted")
    who = str(entry["name"] or entry["identity"])
    return who or (f"? {attempted}" if attempted else "")


def _target(entry: dict[str, Any]) -> str:
    """What was acted on: a model and its version, or what the detail names."""
    model = " ".join(str(entry[name]) for name in ("model", "version") if entry[name] is not None)
    named = [str(entry["detail"][name]) for name in TARGETS if name in entry["detail"]]
    return " ".join([model, *named]).strip()


def _ring(session: Session) -> KeyRing:
    from auth.settings import AuthSettings
    from auth.signing_keys import SigningKeys
    from sluice.configuration import settings_of

    keys = SigningKeys(settings_of(AuthSettings).master_keys)
    keys.read(session)
    return keys.ring


@contextlib.contextmanager
def _readable() -> Iterator[None]:
    """Says in a line where the database holds no log that could be read, which whoever changed it may have wanted."""
    from sqlalchemy.exc import DBAPIError

    from auth.audit_chain import LogChanged

    try:
        yield
    except LogChanged as error:
        raise CommandFailed(f"the audit log is not as it was signed: {error}; see `sluice audit verify`") from error
    except DBAPIError as error:
        raise CommandFailed(f"the audit log cannot be read: {str(error.orig).splitlines()[0]}") from error


def _heads(path: Path | None) -> tuple[Head, ...]:
    from auth.audit_heads import HeadInvalid, read_heads

    if path is None:
        return ()
    try:
        return read_heads(path.read_text(errors="replace"))
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
