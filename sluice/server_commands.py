"""Commands on the server's side: the embedded system, single processes, the database, the first administrator."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from sluice.data_folder import DataFolder, write_private
from sluice.failures import CommandFailed
from sluice.process import become

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

DEFAULT_DATA = Path("sluice-data")
DEFAULT_ADDRESS = "http://127.0.0.1:8080"

Data = Annotated[
    Path | None,
    typer.Option(
        help=f"Data folder of `sluice up`; by default {DEFAULT_DATA}, unless SLUICE_DATABASE_URL is set.",
    ),
]

admin = typer.Typer(help="Administrators, made on the machine that has the database.", no_args_is_help=True)
people = typer.Typer(help="People who may look at closed pages, by name and password.", no_args_is_help=True)


def up(
    data: Annotated[Path, typer.Option(help="Folder for everything that is kept.")] = DEFAULT_DATA,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the gateway, on the loopback address.")] = 8080,
    demo: Annotated[bool, typer.Option("--demo", help="Train two models, upload them, and make a client.")] = False,
    workers: Annotated[int, typer.Option(min=1, max=256, help="Prediction processes of the serving worker.")] = 2,
    gateways: Annotated[int, typer.Option(min=1, max=16, help="Gateway processes; each takes the next port.")] = 1,
) -> None:
    """Run all of Sluice on this machine, in the foreground, until Ctrl-C.

    Redis, a serving worker, a preparing worker and a gateway start with
    nothing to install or configure; SQLite and a folder keep what must be
    kept. Whatever dies is started again. Listens on the loopback address only.

    Examples:

      sluice up --demo

      sluice up --data /srv/sluice --port 9000 --workers 4
    """
    from sluice.up import Options, up

    if port + gateways - 1 > 65535:
        raise CommandFailed(f"there are no {gateways} ports from {port} on")
    up(Options(data, port=port, demo=demo, workers=workers, gateways=gateways), Console(soft_wrap=True))


def gateway() -> None:
    """Run one gateway process; SLUICE_… variables say how.

    Example:

      SLUICE_DATABASE_URL=… SLUICE_REDIS_URL=… SLUICE_CLIENT_SECRET_KEY_FILE=… sluice gateway
    """
    become("gateway")


def worker() -> None:
    """Run one serving worker; SLUICE_… variables say how.

    Example:

      SLUICE_DATABASE_URL=… SLUICE_REDIS_URL=… SLUICE_WORKER_PROCESSES=4 sluice worker
    """
    become("worker")


def prepare_worker() -> None:
    """Run one preparing worker, which checks and converts uploads; SLUICE_… variables say how.

    Example:

      SLUICE_DATABASE_URL=… SLUICE_REDIS_URL=… sluice prepare-worker
    """
    become("prepare-worker")


def migrate(data: Data = None) -> None:
    """Bring the database's tables up to date. `sluice up` does it by itself.

    Example:

      SLUICE_DATABASE_URL=postgresql+psycopg://… sluice migrate
    """
    _use(data)
    from model_store.migrations import MigrationsMissing
    from model_store.migrations import migrate as upgrade
    from model_store.settings import StoreSettings
    from sluice.configuration import settings_of

    try:
        upgrade(settings_of(StoreSettings))
    except MigrationsMissing as error:
        raise CommandFailed(str(error)) from error


@admin.command("create")
def create_admin(
    name: Annotated[str, typer.Argument(help="Name of the new administrator.")],
    data: Data = None,
    out: Annotated[
        Path | None, typer.Option(help="Write a file for --credentials (mode 600) instead of printing the secret.")
    ] = None,
    url: Annotated[
        str | None, typer.Option(help="Address of the gateway, for that file; by default that of `sluice up`.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Make a client that may do everything, and show its secret this once.

    Examples:

      sluice admin create root --out admin.json

      sluice models list --credentials admin.json
    """
    _use(data)
    from auth import clients
    from auth.scopes import Scope
    from auth.settings import AuthSettings
    from model_store.database import connect, sessions_of, transaction
    from model_store.settings import StoreSettings
    from sluice.configuration import settings_of

    pepper = settings_of(AuthSettings).pepper
    engine = connect(settings_of(StoreSettings))
    with transaction(sessions_of(engine)) as session:
        client, secret = clients.create(session, name, list(Scope), pepper)
        address = url or DataFolder.at(data or DEFAULT_DATA).address() or DEFAULT_ADDRESS
        made = {"base_url": address, "client_id": client.id, "client_secret": secret}
        if out is not None:
            # Before the commit: a client whose secret could not be written down is none.
            write_private(out, json.dumps(made))
    engine.dispose()
    if out is not None:
        typer.echo(f"The id and secret of {name} are in {out}")
    elif as_json:
        typer.echo(json.dumps(made))
    else:
        typer.echo(f"client id      {made['client_id']}\nclient secret  {secret}\nThe secret is not shown again.")


@people.command("add")
def add_person(name: Annotated[str, typer.Argument(help="Name to sign in with.")], data: Data = None) -> None:
    """Add a person; the password is asked for, or read from standard input where that is no terminal.

    Example:

      sluice people add ada
    """
    from auth.passwords import Passwords
    from auth.people import create

    password = _ask_for_password()
    with _database(data) as session:
        create(session, Passwords(), name, password)
    typer.echo(f"{name} can sign in")


@people.command("password")
def set_password(name: Annotated[str, typer.Argument(help="Whose password.")], data: Data = None) -> None:
    """Give a person a new password; the old one is refused at once.

    Example:

      sluice people password ada
    """
    from auth.passwords import Passwords
    from auth.people import set_password

    password = _ask_for_password()
    with _database(data) as session:
        set_password(session, Passwords(), name, password)
    typer.echo(f"{name} has a new password")


@people.command("disable")
def disable_person(name: Annotated[str, typer.Argument(help="Who may no longer sign in.")], data: Data = None) -> None:
    """Refuse a person from now on.

    Example:

      sluice people disable ada
    """
    from auth.people import set_disabled

    with _database(data) as session:
        set_disabled(session, name, True)
    typer.echo(f"{name} can no longer sign in; `sluice people enable {name}` takes it back")


@people.command("enable")
def enable_person(name: Annotated[str, typer.Argument(help="Who may sign in again.")], data: Data = None) -> None:
    """Let a disabled person sign in again.

    Example:

      sluice people enable ada
    """
    from auth.people import set_disabled

    with _database(data) as session:
        set_disabled(session, name, False)
    typer.echo(f"{name} can sign in")


def _ask_for_password() -> str:
    if sys.stdin.isatty():
        asked: str = typer.prompt("Password", hide_input=True, confirmation_prompt=True)
        return asked
    return sys.stdin.readline().rstrip("\n")


@contextlib.contextmanager
def _database(data: Path | None) -> Iterator[Session]:
    """One transaction on the database of this machine."""
    _use(data)
    from model_store.database import connect, sessions_of, transaction
    from model_store.settings import StoreSettings
    from sluice.configuration import settings_of

    engine = connect(settings_of(StoreSettings))
    try:
        with transaction(sessions_of(engine)) as session:
            yield session
    finally:
        engine.dispose()


def _use(data: Path | None) -> None:
    """Let the settings of this process be those of a data folder, where one is named or none is configured."""
    configured = {"SLUICE_DATABASE_URL", "SLUICE_DATABASE_URL_FILE"} & os.environ.keys()
    if data is None and (configured or not (DEFAULT_DATA / "sluice.db").exists()):
        return
    folder = DataFolder.at(data or DEFAULT_DATA)
    if not folder.client_secret_key.exists():
        raise CommandFailed(f"{folder.root} is no data folder of `sluice up`: start that first")
    environment = folder.environment_of_gateways(os.environ)
    for name in os.environ.keys() - environment.keys():
        del os.environ[name]
    os.environ.update(environment)
