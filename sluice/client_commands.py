"""`sluice clients …`: who may call, and which models they may use."""

from __future__ import annotations

import json
import os
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import quote

import typer
from rich.table import Table

from sluice.answers import Json, Refused
from sluice.connection import connected
from sluice.data_folder import write_private
from sluice.failures import CommandFailed
from sluice.moments import read_moment
from sluice.output_options import AsJson
from sluice.tables import print_table
from sluice.version_table import moment, row

if TYPE_CHECKING:
    from sluice.client import Client

PAGE = 1000

app = typer.Typer(help="Clients and their grants (for administrators).", no_args_is_help=True)

Which = Annotated[str, typer.Argument(help="Id or name of the client.", metavar="client")]
Models = Annotated[
    list[str],
    typer.Option("--model", help="A model that the client may use, or a pattern: 'team-a-*'; may be repeated."),
]
Actions = Annotated[
    list[str] | None,
    typer.Option(
        "--action",
        help="predict, submit, metadata, upload, label or retire; may be repeated. Without it: the first three.",
    ),
]
Scopes = Annotated[
    list[str] | None,
    typer.Option("--scope", help="What its tokens may do; may be repeated. Without it: predict, jobs and models:read."),
]
Expiry = Annotated[
    datetime | None,
    typer.Option(
        "--expires-at",
        help="When it ends, by RFC 3339: 2099-12-31T23:00:00Z; UTC without a zone.",
        parser=read_moment,
        metavar="time",
    ),
]
Out = Annotated[
    Path | None,
    typer.Option("--output", "--out", help="Write a file for --credentials (mode 600) instead of printing the secret."),
]


@app.command("create")
@connected(admin=True)
def create(
    sluice: Client,
    name: Annotated[str, typer.Argument(help="Name of the new client.")],
    models: Models,
    actions: Actions = None,
    scopes: Scopes = None,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Create a client that may use the given models, and show its secret this once.

    Examples:

      sluice clients create reading-room --model mnist --model linear --output reading-room.json

      sluice clients create audit --model mnist --action metadata

      sluice clients create team-a --scope models:write --model 'team-a-*' --action metadata --action upload
    """
    _require_place(out, None)
    grants = [_grant(model, actions) for model in models]
    body = {"name": name, "grants": grants} | ({"scopes": scopes} if scopes else {})
    made = sluice.post("/admin/clients", body)
    _mention_unknown(sluice, grants)
    _show_secret(sluice, made, out, as_json=as_json)


@app.command("list")
@connected(admin=True)
def list_clients(sluice: Client, as_json: AsJson = False) -> None:
    """List all clients.

    Example:

      sluice clients list
    """
    found = all_clients(sluice)
    if as_json:
        typer.echo(json.dumps(found))
        return
    table = Table("name", "id", "scopes", "created", "state")
    table.columns[3].min_width = len("2026-11-22")
    for client in found:
        disabled = "disabled" if client["disabled"] else "enabled"
        row(table, client["name"], client["id"], " ".join(client["scopes"]), moment(client["created_at"]), disabled)
    print_table(table, "id")


@app.command("rotate")
@connected(admin=True)
def rotate(
    sluice: Client,
    which: Which,
    grace_seconds: Annotated[int, typer.Option(min=0, help="How long the old secret works beside the new one.")] = 0,
    keep_tokens: Annotated[bool, typer.Option("--keep-tokens", help="Let its tokens live until they expire.")] = False,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Give a client a new secret; the old one and its tokens stop working at once, unless you say otherwise.

    Examples:

      sluice clients rotate reading-room --output reading-room.json

      sluice clients rotate reading-room --grace-seconds 86400 --keep-tokens
    """
    path = path_of(sluice, which)
    _require_place(out, path.rpartition("/")[2])
    asked = {"grace_seconds": grace_seconds, "keep_tokens": keep_tokens}
    _show_secret(sluice, sluice.post(f"{path}/rotate", asked), out, as_json=as_json)


@app.command("disable")
@connected(admin=True)
def disable(sluice: Client, which: Which) -> None:
    """Refuse a client and all of its tokens, within a second.

    Example:

      sluice clients disable reading-room
    """
    sluice.post(f"{path_of(sluice, which)}/disable")
    typer.echo(f"{which} is disabled")


@app.command("enable")
@connected(admin=True)
def enable(sluice: Client, which: Which) -> None:
    """Let a disabled client in again, with the secret that it has.

    Example:

      sluice clients enable reading-room
    """
    sluice.post(f"{path_of(sluice, which)}/enable")
    typer.echo(f"{which} is enabled")


@app.command("grant")
@connected(admin=True)
def grant(  # noqa: PLR0913 - a command's arguments are its options
    sluice: Client,
    which: Which,
    models: Models,
    version: Annotated[int | None, typer.Option(min=1, help="This version only.")] = None,
    label: Annotated[str | None, typer.Option(help="Only the version that this label points to.")] = None,
    actions: Actions = None,
    expires_at: Expiry = None,
    weight: Annotated[
        float | None, typer.Option(min=0.1, max=100, help="Share of the workers: 3 gets three times the turns of 1.")
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Withdraw all grants that it had.")] = False,
    as_json: AsJson = False,
) -> None:
    """Let a client use models, in addition to those that it may use already.

    Examples:

      sluice clients grant reading-room --model mnist --version 2 --action predict

      sluice clients grant reading-room --model linear --replace

      sluice clients grant reading-room --model 'team-a-*' --expires-at 2099-12-31T23:00:00Z

      sluice clients grant reading-room --model mnist --weight 3
    """
    path = f"{path_of(sluice, which)}/grants"
    had = [] if replace else sluice.get(path)["grants"]
    until = None if expires_at is None else expires_at.isoformat()
    new = [_grant(model, actions, version=version, label=label, expires_at=until, weight=weight) for model in models]
    grants = sluice.put(path, {"grants": [*had, *new]})["grants"]
    _mention_unknown(sluice, new)
    if as_json:
        typer.echo(json.dumps(grants))
        return
    table = Table("model", "version", "label", "actions", "weight", "until")
    for found in grants:
        versions = str(found["version"] or ("all" if found["label"] is None else ""))
        ends = "" if found["expires_at"] is None else moment(found["expires_at"])
        weight_of = f"{found['weight']:g}"
        row(table, found["model"], versions, found["label"] or "", " ".join(found["actions"]), weight_of, ends)
    print_table(table)


def all_clients(sluice: Client) -> list[Json]:
    """Every client, page by page. Raises Refused, Unreachable."""
    page = sluice.get("/admin/clients", limit=PAGE)
    found: list[Json] = page["clients"]
    while page["next_page_token"] is not None:
        page = sluice.get("/admin/clients", limit=PAGE, page_token=page["next_page_token"])
        found += page["clients"]
    return found


def path_of(sluice: Client, which: str) -> str:
    """The path of the client with this id or name. Raises CommandFailed."""
    if which.startswith("cli_"):
        return f"/admin/clients/{quote(which, safe='')}"
    ids = [client["id"] for client in all_clients(sluice) if client["name"] == which]
    if not ids:
        raise CommandFailed(f"there is no client named {which}")
    return f"/admin/clients/{ids[0]}"


def _grant(
    model: str,
    actions: list[str] | None,
    *,
    version: int | None = None,
    label: str | None = None,
    expires_at: str | None = None,
    weight: float | None = None,
) -> dict[str, Json]:
    """A grant as the interface takes it; what is not given is the gateway's to choose."""
    given = {
        "model": model,
        "version": version,
        "label": label,
        "actions": actions or None,
        "expires_at": expires_at,
        "weight": weight,
    }
    return {name: value for name, value in given.items() if value is not None}


def _mention_unknown(sluice: Client, grants: list[dict[str, Json]]) -> None:
    """Say which of these grants name what is not there: they count once it is, and until then may be slips."""
    for grant in grants:
        if "*" in grant["model"]:
            continue  # A pattern is meant for what is to come.
        try:
            model = sluice.get(f"/admin/models/{quote(grant['model'], safe='')}")
        except Refused as error:
            if error.status == 404:
                typer.echo(f"Note: there is no model {grant['model']} yet", err=True)
            continue  # Who administers clients need not see models.
        if "version" in grant and grant["version"] not in {known["version"] for known in model["versions"]}:
            typer.echo(f"Note: {grant['model']} has no version {grant['version']} yet", err=True)
        if "label" in grant and grant["label"] not in model["labels"]:
            typer.echo(f"Note: {grant['model']} has no label {grant['label']} yet", err=True)


def _require_place(out: Path | None, client_id: str | None) -> None:
    """Before a secret is made: the file can be written, and holds no other client's. Raises CommandFailed."""
    if out is None:
        return
    if out.exists() and (client_id is None or not _is_file_of(out, client_id)):
        raise CommandFailed(f"{out} exists already, and may hold somebody else's secret: name another file")
    if not os.access(out.absolute().parent, os.W_OK | os.X_OK):
        raise CommandFailed(f"{out} cannot be written: its folder does not exist, or is not yours to write to")


def _is_file_of(path: Path, client_id: str) -> bool:
    try:
        return quote(str(json.loads(path.read_text())["client_id"]), safe="") == client_id
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _show_secret(sluice: Client, made: Json, out: Path | None, *, as_json: bool) -> None:
    credentials = {"base_url": sluice.base_url, "client_id": made["id"], "client_secret": made["client_secret"]}
    if out is not None:
        write_private(out, json.dumps(credentials))
        typer.echo(f"The id and secret of {made['name']} are in {out}")
    elif as_json:
        typer.echo(json.dumps(credentials))
    else:
        typer.echo(
            f"client id      {made['id']}\nclient secret  {made['client_secret']}\nThe secret is not shown again."
        )
