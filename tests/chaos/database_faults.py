"""A database that dies, is locked, read-only or slow, or cannot be reached."""

from __future__ import annotations

import contextlib
import random
import sqlite3
import time

import sqlalchemy

from tests.chaos.fault import Fault
from tests.chaos.installation import Installation
from tests.chaos.proxy import Proxy
from tests.chaos.redis_faults import Network
from tests.chaos.servers import PostgreSQL, SQLiteFile
from tests.chaos.visits import Visits


class DatabaseNetwork(Network):
    """The connection to PostgreSQL."""

    case = "C12"

    @property
    def name(self) -> str:
        return f"The connection to PostgreSQL: {self.mode}, {self.seconds:g} s"

    def proxy(self, on: Installation) -> Proxy | None:
        return on.database.proxy if isinstance(on.database, PostgreSQL) else None


class OfPostgreSQL(Fault):
    """What breaks PostgreSQL."""

    case = "C11"

    def fits(self, on: Installation) -> bool:
        return isinstance(on.database, PostgreSQL)

    @staticmethod
    def engine(on: Installation) -> sqlalchemy.Engine:
        """Connections of our own."""
        found: sqlalchemy.Engine = on.sessions.kw["bind"]
        return found

    def tell(self, on: Installation, *commands: str) -> None:
        """Run commands, each in a transaction of its own."""
        with self.engine(on).connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            for command in commands:
                connection.execute(sqlalchemy.text(command))


class DatabaseKilled(OfPostgreSQL):
    """PostgreSQL crashes and is away."""

    def begin(self, on: Installation, chance: random.Random) -> None:  # noqa: ARG002 - there is one
        assert isinstance(on.database, PostgreSQL)
        on.database.kill()

    def end(self, on: Installation) -> None:
        assert isinstance(on.database, PostgreSQL)
        on.database.start()


class DatabaseReadOnly(OfPostgreSQL):
    """PostgreSQL takes no writes, as a standby does."""

    def begin(self, on: Installation, chance: random.Random) -> None:  # noqa: ARG002 - there is one
        self.tell(on, "ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()")

    def end(self, on: Installation) -> None:
        self.tell(on, "ALTER SYSTEM RESET default_transaction_read_only", "SELECT pg_reload_conf()")


class DatabaseSlow(OfPostgreSQL):
    """Each statement that writes jobs takes two seconds longer, and other answers do not."""

    case = "C12"
    over = True

    def begin(self, on: Installation, chance: random.Random) -> None:  # noqa: ARG002 - there is one
        visits = Visits(on)
        self.tell(on, SLOW_FUNCTION, SLOW_TRIGGER)
        with visits:
            time.sleep(self.seconds)
        visits.require_prompt()

    def end(self, on: Installation) -> None:
        with self.engine(on).begin() as connection:
            # Whoever writes just now is waited for.
            connection.execute(sqlalchemy.text("SET LOCAL lock_timeout = 30000"))
            connection.execute(sqlalchemy.text("SET LOCAL statement_timeout = 30000"))
            connection.execute(sqlalchemy.text("DROP FUNCTION IF EXISTS slowly CASCADE"))


SLOW_FUNCTION = """
CREATE OR REPLACE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS
'BEGIN PERFORM pg_sleep(2); RETURN NULL; END'
"""
SLOW_TRIGGER = "CREATE TRIGGER slowly AFTER INSERT OR UPDATE ON jobs FOR EACH STATEMENT EXECUTE FUNCTION slowly()"


class PoolExhausted(OfPostgreSQL):
    """The table of jobs is locked, so that every connection of every pool waits."""

    case = "C12"
    over = True

    def begin(self, on: Installation, chance: random.Random) -> None:  # noqa: ARG002 - there is one
        visits = Visits(on)
        with self.engine(on).begin() as connection:
            connection.execute(sqlalchemy.text("LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE"))
            with visits:
                time.sleep(self.seconds)
        visits.require_prompt()
        visits.require_refused()


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


class DatabaseBusy(Fault):
    """Somebody else writes to the SQLite file, two seconds at a time."""

    case = "C12"
    over = True

    def fits(self, on: Installation) -> bool:
        return isinstance(on.database, SQLiteFile)

    def begin(self, on: Installation, chance: random.Random) -> None:  # noqa: ARG002 - there is one
        assert isinstance(on.database, SQLiteFile)
        visits = Visits(on)
        until = time.monotonic() + self.seconds
        with (
            contextlib.closing(sqlite3.connect(on.database.path, timeout=30, isolation_level=None)) as connection,
            visits,
        ):
            while time.monotonic() < until:
                connection.execute("BEGIN IMMEDIATE")
                time.sleep(WRITE_SECONDS)
                connection.execute("ROLLBACK")
                time.sleep(GAP_SECONDS)
        visits.require_prompt()


WRITE_SECONDS = 2.0
GAP_SECONDS = 0.4
