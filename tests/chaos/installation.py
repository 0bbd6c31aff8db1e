"""An installation under test: two gateways and two workers under a supervisor, as a service manager runs them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from pydantic import SecretStr
from sqlalchemy import func, select

from auth import clients
from auth.grants import USE, Action, GrantSpec, set_grants
from auth.scopes import Scope
from model_store.database import clock_ms, connect, sessions_of, transaction
from model_store.settings import StoreSettings
from sluice.listening_ports import free_port
from tests.chaos.servers import MASTER, PostgreSQL, Queue, Sentinels, SQLiteFile
from tests.processes import MASTER_KEY, PEPPER, Cluster, cluster, ready, wait_for
from tests.queue_kit import serve_model, slow_model
from workers.dispatch import ROLE
from workers.tables import Job, Lease

RESTART_SECONDS = 0.5
WATCH_SECONDS = 0.1
START_SECONDS = 60
STOP_SECONDS = 60
OPEN = ("queued", "running")
# Of each worker: its prediction processes.
SLOTS = 2


@dataclass(slots=True)
class Member:
    """A process that shall run; `held` while a fault wants it dead."""

    name: str
    command: list[str]
    settings: dict[str, object]
    environment: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    held: bool = False
    starts: int = 0
    restart_at: float = 0.0


class Installation:
    """Processes of Sluice and the servers that they stand on; faults act on both."""

    def __init__(self, made: Cluster, queue: Queue | Sentinels, database: SQLiteFile | PostgreSQL) -> None:
        self.cluster = made
        self.queue = queue
        self.database = database
        self.folder = made.folder
        # Beside it: what is seen has to be written down also where the installation's disk is full.
        self.histories = made.folder.with_name(f"{made.folder.name}-histories")
        self.histories.mkdir()
        self.members: dict[str, Member] = {}
        self.urls: list[str] = []
        self.client_ids: dict[str, str] = {}
        # What faults have added.
        self.models: set[str] = set()
        self.published = 0
        # Each member is the leader of a session of its own, of which nobody may be left when it is gone.
        self.led: list[int] = []
        # Not through the proxy: who watches sees also what nobody else reaches.
        self.sessions = sessions_of(connect(StoreSettings(database_url=SecretStr(database.direct_url))))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="supervisor", daemon=True)

    def start(self, *, gateways: int = 2, workers: int = 2, hang_limit_seconds: float = 6) -> None:
        secrets = {"client_secret_key": PEPPER, "master_key": MASTER_KEY, "keys_dir": self.folder / "keys"}
        for number in range(gateways):
            port = free_port()
            self.urls.append(f"http://127.0.0.1:{port}")
            self.cluster.gateways.append(self.urls[-1])
            name = f"gateway-{number + 1}"
            self._add(name, "gateway", {"port": port, "gateway_name": name, **secrets})
        for number in range(workers):
            name = f"worker-{number + 1}"
            self._add(name, "worker", {"worker_name": name, "hang_limit_seconds": hang_limit_seconds})
        # It reads files of many rows.
        self._add("background-1", "background-worker", {"worker_name": "background-1"})
        self._thread.start()
        self.wait_until_ready()

    def _add(self, name: str, command: str, settings: dict[str, object]) -> None:
        member = Member(name, [sys.executable, "-m", "sluice", command], settings)
        self.members[name] = member
        self._launch(member)

    def _launch(self, member: Member) -> None:
        environment = {
            **self.cluster.environment(redis_sentinel_master=MASTER, **member.settings),
            **member.environment,
        }
        with (self.folder / f"{member.name}.log").open("ab") as log:
            member.process = subprocess.Popen(
                member.command,
                env=environment,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        member.starts += 1
        self.led.append(member.process.pid)

    def _watch(self) -> None:
        while not self._stop.wait(WATCH_SECONDS):
            for member in self.members.values():
                if member.held or member.process is None or member.process.poll() is None:
                    member.restart_at = 0.0
                elif not member.restart_at:
                    member.restart_at = time.monotonic() + RESTART_SECONDS
                elif time.monotonic() >= member.restart_at:
                    member.restart_at = 0.0
                    self._launch(member)

    def names(self, kind: str) -> list[str]:
        return [name for name in self.members if name.startswith(kind)]

    def process(self, name: str) -> psutil.Process:
        """A member's main process, waited for where it is just being started."""
        wait_for(lambda: (one := self.members[name].process) is not None and one.poll() is None, START_SECONDS)
        running = self.members[name].process
        assert running is not None
        return psutil.Process(running.pid)

    def children(self, name: str) -> list[psutil.Process]:
        with contextlib.suppress(psutil.NoSuchProcess):
            return self.process(name).children(recursive=True)
        return []

    def restart(self, name: str, environment: Mapping[str, str] | None = None) -> None:
        """End a member in good order and have it started again, with other variables."""
        member = self.members[name]
        member.environment = dict(environment or {})
        member.held = True
        try:
            process = self.process(name)
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except psutil.TimeoutExpired:
                process.kill()
            self._reap(member)
            self._launch(member)
        finally:
            member.held = False

    @staticmethod
    def _reap(member: Member) -> None:
        if member.process is not None:
            member.process.wait()

    def wait_until_ready(self, seconds: float = START_SECONDS) -> None:
        """Until every gateway answers and knows the slots of every worker."""
        wanted = SLOTS * len(self.names("worker"))

        def well() -> bool:
            found = [ready(url) for url in self.urls]
            return all(int(str(one.get("slots", 0))) >= wanted for one in found)

        wait_for(well, seconds)

    def wait_until_started(self) -> None:
        """As `wait_until_ready`, after a kill: slots of dead workers are known for some seconds more."""
        wait_for(lambda: all(len(self.children(name)) >= SLOTS for name in self.names("worker")), START_SECONDS)
        self.wait_until_ready()

    @property
    def leader(self) -> str:
        """The gateway that dispatches now."""
        with transaction(self.sessions, write=False) as session:
            holder = session.scalars(select(Lease.holder).where(Lease.name == ROLE)).one()
        return holder if holder in self.members else self.names("gateway")[0]

    def open_jobs(self, accepted_before: float | None = None) -> int:
        """Jobs that have not ended, of those accepted before a moment."""
        query = select(func.count()).select_from(Job).where(Job.state.in_(OPEN))
        if accepted_before is not None:
            query = query.where(Job.created_at <= accepted_before * 1000)
        with transaction(self.sessions, write=False) as session:
            return session.execute(query).scalar_one()

    def clock(self) -> float:
        """Seconds since 1970 by the database."""
        with transaction(self.sessions, write=False) as session:
            return clock_ms(session) / 1000

    def orphans(self) -> list[str]:
        """What members that are gone left running."""
        gone = set(self.led) - {one.process.pid for one in self.members.values() if one.process is not None}
        return [" ".join(process.cmdline()) for process in psutil.process_iter() if _session(process) in gone]

    def client(self, name: str, *models: str) -> tuple[str, str]:
        """The id and the secret of a new client that may use the models, and upload versions of them."""
        with transaction(self.sessions) as session:
            scopes = frozenset({Scope.PREDICT, Scope.JOBS, Scope.MODELS_READ, Scope.MODELS_WRITE})
            made, secret = clients.create(session, name, scopes, PEPPER.encode())
            set_grants(session, made.id, [GrantSpec(model, actions=USE | {Action.UPLOAD}) for model in models])
            self.client_ids[name] = made.id
            return made.id, secret

    def stop(self) -> None:
        self._stop.set()
        self.sessions.kw["bind"].dispose()
        if self._thread.is_alive():
            self._thread.join(5)
        for member in self.members.values():
            if member.process is not None and member.process.poll() is None:
                member.process.send_signal(signal.SIGCONT)
                member.process.send_signal(signal.SIGTERM)
        until = time.monotonic() + 15
        for member in self.members.values():
            if member.process is not None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    member.process.wait(max(0.1, until - time.monotonic()))
                with contextlib.suppress(ProcessLookupError):
                    # Its session: whatever it left behind goes with it.
                    os.killpg(member.process.pid, signal.SIGKILL)
                member.process.wait()


@contextlib.contextmanager
def installation(folder: Path, queue: Queue | Sentinels, database: SQLiteFile | PostgreSQL) -> Iterator[Installation]:
    """An installation with the models `double`, `slow` and `poison`; no process of it runs yet."""
    folder.mkdir(parents=True, exist_ok=True)
    with cluster(folder, queue.url, database.url) as made:
        # Its jobs may kill their workers until it is refused, and nobody else's model is.
        poison = slow_model(folder / "poison.onnx")
        serve_model(made.sessions, made.artifacts, poison, "poison", batch_seconds=0.5)
        running = Installation(made, queue, database)
        try:
            yield running
        finally:
            running.stop()


def _session(process: psutil.Process) -> int | None:
    with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
        if process.status() != psutil.STATUS_ZOMBIE:
            return os.getsid(process.pid)
    return None
