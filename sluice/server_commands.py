"""Commands on the server's side: the embedded system, single processes, the database, the first administrator."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from sluice.data_folder import DataFolder, write_private
from sluice.extras import require_for
from sluice.failures import CommandFailed
from sluice.local_database import DEFAULT_DATA, Data, local_database, use_folder
from sluice.output_options import AsJson
from sluice.process import become

DEFAULT_ADDRESS = "http://127.0.0.1:8080"

admin = typer.Typer(help="Administrators, made on the machine that has the database.", no_args_is_help=True)


def up(
    data: Annotated[Path, typer.Option(help="Folder for everything that is kept.")] = DEFAULT_DATA,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the gateway, on the loopback address.")] = 8080,
    grpc_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of gRPC, there too; 0 is the next one, or any that is free.")
    ] = 0,
    demo: Annotated[bool, typer.Option("--demo", help="Train four models, upload them, and make a client.")] = False,
    small: Annotated[
        bool, typer.Option("--small", help="With --demo: without the models of texts and recordings.")
    ] = False,
    workers: Annotated[int, typer.Option(min=1, max=256, help="Prediction processes of the serving worker.")] = 2,
    gateways: Annotated[int, typer.Option(min=1, max=16, help="Gateway processes; each takes the next port.")] = 1,
) -> None:
    """Run all of Sluice on this machine, in the foreground, until Ctrl-C.

    Redis, a gateway and a serving, a preparing and a background worker start
    with nothing to install or configure; SQLite and a folder keep what must be
    kept. Whatever dies is started again. Listens on the loopback address only.

    Examples:

      sluice up --demo

      sluice up --data /srv/sluice --port 9000 --workers 4
    """
    require_for("up")
    from sluice.up import Options, up

    if port + gateways - 1 > 65535:
        raise CommandFailed(f"there are no {gateways} ports from {port} on")
    if grpc_port + gateways - 1 > 65535:
        raise CommandFailed(f"there are no {gateways} ports from {grpc_port} on")
    options = Options(data, port=port, grpc_port=grpc_port, demo=demo, small=small, workers=workers, gateways=gateways)
    up(options, Console(soft_wrap=True))


def gateway() -> None:
    """Run one gateway process; SLUICE_… variables say how.

    Example:

      SLUICE_DATABASE_URL=… SLUICE_REDIS_URL=… SLUICE_CLIENT_SECRET_KEY_FILE=… sluice gateway
    """
    require_for("gateway")
    become("gateway")


def worker() -> None:
    """Run one serving worker; SLUICE_… variables say how.

    Example:

      SLUICE_DATABASE_URL=… SLUICE_REDIS_URL=… SLUICE_WORKER_PROCESSES=4 sluice worker
    """
    require_for("worker")
    become("worker")


def prepare_worker() -> None:
    """Run one preparing worker, which checks and converts uploads; SLUICE_… variables say how.

    Example:

      SLUICE_DATABASE_URL=… SLUICE_REDIS_URL=… sluice prepare-worker
    """
    require_for("prepare-worker")
    become("prepare-worker")


def background_worker() -> None:
    """Run one background worker, which sends webhooks and reads files; SLUICE_… variables say how.

    Example:

      SLUICE_DATABASE_URL=… SLUICE_REDIS_URL=… sluice background-worker
    """
    require_for("background-worker")
    become("background-worker")


def migrate(data: Data = None) -> None:
    """Bring the database's tables up to date. `sluice up` does it by itself.

    Example:

      SLUICE_DATABASE_URL=postgresql+psycopg://… sluice migrate
    """
    use_folder(data)
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
        Path | None,
        typer.Option(
            "--output", "--out", help="Write a file for --credentials (mode 600) instead of printing the secret."
        ),
    ] = None,
    url: Annotated[
        str | None, typer.Option(help="Address of the gateway, for that file; by default that of `sluice up`.")
    ] = None,
    scopes: Annotated[
        list[str] | None,
        typer.Option("--scope", help="What its tokens may do; may be repeated. Without it: all but jobs:contents."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a client that may do everything but read what is in others' jobs, and show its secret this once.

    Examples:

      sluice admin create root --output admin.json

      sluice models list --credentials admin.json

      sluice admin create inspector --scope jobs:contents
    """
    use_folder(data)
    from auth import clients
    from auth.scopes import Scope, parse_scopes
    from auth.settings import AuthSettings
    from sluice.configuration import settings_of

    wanted = parse_scopes(" ".join(scopes)) if scopes else frozenset(Scope) - {Scope.JOBS_CONTENTS}
    pepper = settings_of(AuthSettings).pepper
    with local_database(data) as session:
        client, secret = clients.create(session, name, wanted, pepper)
        address = url or DataFolder.at(data or DEFAULT_DATA).address() or DEFAULT_ADDRESS
        made = {"base_url": address, "client_id": client.id, "client_secret": secret}
        if out is not None:
            # Before the commit: a client whose secret could not be written down is none.
            write_private(out, json.dumps(made))
    if out is not None:
        typer.echo(f"The id and secret of {name} are in {out}")
    elif as_json:
        typer.echo(json.dumps(made))
    else:
        typer.echo(f"client id      {made['client_id']}\nclient secret  {secret}\nThe secret is not shown again.")
