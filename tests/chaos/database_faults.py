"""A database that dies, is locked, or cannot be reached."""

from __future__ import annotations

import contextlib
import random
import sqlite3
import time

from tests.chaos.fault import Fault
from tests.chaos.installation import Installation
from tests.chaos.proxy import Proxy
from tests.chaos.redis_faults import Network
from tests.chaos.servers import PostgreSQL, SQLiteFile


class DatabaseNetwork(Network):
    """The connection to PostgreSQL."""

    case = "C12"

    @property
    def name(self) -> str:
        return f"The connection to PostgreSQL: {self.mode}, {self.seconds:g} s"

    def proxy(self, on: Installation) -> Proxy | None:
        return on.database.proxy if isinstance(on.database, PostgreSQL) else None


class DatabaseKilled(Fault):
    """PostgreSQL crashes and is away."""

    case = "C11"

    def fits(self, on: Installation) -> bool:
        return isinstance(on.database, PostgreSQL)

    def begin(self, on: Installation, chance: random.Random) -> None:  # noqa: ARG002 - there is one
        assert isinstance(on.database, PostgreSQL)
        on.database.kill()

    def end(self, on: Installation) -> None:
        assert isinstance(on.database, PostgreSQL)
        on.database.start()


class DatabaseLocked(Fault):
    """The SQLite file is locked by somebody."""

    case = "C11"
    over = True

    def fits(self, on: Installation) -> bool:
        return isinstance(on.database, SQLiteFile)

    def begin(self, on: Installation, chance: random.Random) -> None:  # noqa: ARG002 - there is one
        assert isinstance(on.database, SQLiteFile)
        with contextlib.closing(sqlite3.connect(on.database.path, timeout=30, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            time.sleep(self.seconds)
            connection.execute("ROLLBACK")
