"""The database of this machine, for commands that need no gateway: that of a data folder, or the configured one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer.main import get_current_context  # type: ignore[attr-defined] # typer exports no other way to ask

from sluice.data_folder import DataFolder
from sluice.failures import CommandFailed

if TYPE_CHECKING:
    from sqlalchemy.exc import DBAPIError
    from sqlalchemy.orm import Session

DEFAULT_DATA = Path("sluice-data")
ABOUT_THE_OUTPUT = frozenset({"as_json", "confirmed"})

Data = Annotated[
    Path | None,
    typer.Option(
        help=f"Data folder of `sluice up`; by default {DEFAULT_DATA}, unless SLUICE_DATABASE_URL is set.",
    ),
]


@contextlib.contextmanager
def local_database(data: Path | None, *, write: bool = True) -> Iterator[Session]:
    """One transaction on the database of this machine; where it writes, the audit log gets an entry of the command."""
    use_folder(data)
    from sqlalchemy.exc import DBAPIError

    from auth.audit import by_operator, record
    from model_store.database import connect, sessions_of, transaction
    from model_store.settings import StoreSettings
    from sluice.configuration import settings_of

    settings = settings_of(StoreSettings)
    _require_database(settings.database_url.get_secret_value())
    engine = connect(settings)
    try:
        with transaction(sessions_of(engine), write=write) as session:
            yield session
            if write:
                record(session, by_operator(*_command()))
    except DBAPIError as error:
        if not _is_unmigrated(error):
            raise
        raise CommandFailed("the database lacks tables of this release: run `sluice migrate` first") from error
    finally:
        engine.dispose()


def _require_database(address: str) -> None:
    scheme, _, rest = address.partition("://")
    if scheme not in ("sqlite", "sqlite+pysqlite", "postgresql+psycopg"):
        raise CommandFailed("SLUICE_DATABASE_URL is neither `sqlite:///path` nor `postgresql+psycopg://…`")
    path = Path(rest.removeprefix("/").partition("?")[0])
    if scheme.startswith("sqlite") and not path.exists():
        raise CommandFailed(
            f"there is no database at {path}: name the data folder with --data, or run `sluice migrate`"
        )


def _is_unmigrated(error: DBAPIError) -> bool:
    # PostgreSQL's codes of an unknown table and column; SQLite has no codes for them.
    unknown = getattr(error.orig, "sqlstate", None) in ("42P01", "42703")
    return unknown or str(error.orig).startswith(("no such table", "no such column"))


def _command() -> tuple[str, dict[str, object]]:
    """The command's function by name, its arguments, and options that choose; those of free text may hold secrets."""
    context = get_current_context()
    arguments = [one.name for one in context.command.params if one.param_type_name == "argument"]
    act = getattr(context.command.callback, "__name__", "command")
    given = {name: context.params.get(name) for name in arguments}
    chosen = {
        name: value
        for name, value in context.params.items()
        if name not in ABOUT_THE_OUTPUT and (value is True or isinstance(value, Enum))
    }
    return act, given | chosen


def use_folder(data: Path | None) -> None:
    """Let the settings of this process be those of a data folder, where one is named or none is configured."""
    configured = {f"SLUICE_DATABASE_URL{ending}" for ending in ("", "_FILE", "_COMMAND")} & os.environ.keys()
    if data is None and (configured or not (DEFAULT_DATA / "sluice.db").exists()):
        return
    folder = DataFolder.at(data or DEFAULT_DATA)
    if not folder.client_secret_key.exists():
        raise CommandFailed(f"{folder.root} is no data folder of `sluice up`: start that first")
    environment = folder.environment_of_gateways(os.environ)
    for name in os.environ.keys() - environment.keys():
        del os.environ[name]
    os.environ.update(environment)
