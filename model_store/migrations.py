"""Brings the database's tables up to date: the way in which `sluice migrate` and `sluice up` call Alembic.

Migrations run as a step of their own, never inside a serving process, and from the source tree: a wheel does not carry
them, because its folder `alembic/` would be unpacked over the installed package of that name.
"""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine
from sqlalchemy.engine import make_url

from model_store.settings import StoreSettings

SOURCE_TREE = Path(__file__).resolve().parent.parent


class MigrationsMissing(Exception):
    """This installation has no migrations; the message says where they were looked for."""


def migrate(settings: StoreSettings, revision: str = "head") -> None:
    """Upgrades the database to `revision`; two runs at once wait for each other. Raises MigrationsMissing.

    A SQLite file and its folder are made where they are missing; a PostgreSQL database must exist.
    """
    make_folder(settings)
    command.upgrade(configuration(settings), revision)


def pending(engine: Engine) -> bool:
    """Whether the database lacks migrations that this version of Sluice needs; raises MigrationsMissing."""
    wanted = ScriptDirectory.from_config(_file()).get_heads()
    with engine.connect() as connection:
        return set(MigrationContext.configure(connection).get_current_heads()) != set(wanted)


def configuration(settings: StoreSettings) -> Config:
    """What Alembic's commands take, for the database of these settings; raises MigrationsMissing."""
    config = _file()
    config.attributes["settings"] = settings
    return config


def make_folder(settings: StoreSettings) -> None:
    """Makes the folder of a SQLite file, for its owner alone: the file holds hashes of secrets."""
    url = make_url(settings.database_url.get_secret_value())
    if url.get_backend_name() == "sqlite" and url.database and url.database != ":memory:":
        Path(url.database).parent.mkdir(mode=0o700, parents=True, exist_ok=True)


def _file() -> Config:
    file = SOURCE_TREE / "alembic.ini"
    if not file.is_file():
        raise MigrationsMissing(f"no migrations beside the package, {file} is missing: run this from the source tree")
    return Config(str(file))
