"""Gateways and serving workers as real processes against a Redis and a database that the test controls."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from auth import clients
from auth.grants import GrantSpec, set_grants
from auth.scopes import Scope
from model_store.artifacts import Artifacts
from model_store.database import Sessions, connect, sessions_of, transaction
from sluice.listening_ports import free_port
from tests.databases import make_tables
from tests.plain_http import NO_TLS
from tests.queue_kit import doubling_model, serve_model, slow_model, worker_settings
from tests.system import plain_environment

START_SECONDS = 90
PEPPER = "p" * 32
MASTER_KEY = "m" * 43
# Without `clients:admin`, for which every model exists.
CALLING = frozenset(Scope) - {Scope.CLIENTS_ADMIN}


@dataclass
class Cluster:
    """Processes of one installation; everything in `folder`."""

    folder: Path
    redis_url: str
    database_url: str
    sessions: Sessions
    artifacts: Artifacts
    key_prefix: str
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    gateways: list[str] = field(default_factory=list)
    # Of those gateways that serve gRPC: `host:port`.
    grpc_addresses: list[str] = field(default_factory=list)
    clients: list[httpx.Client] = field(default_factory=list)

    def environment(self, **more: object) -> dict[str, str]:
        common = {
            "SLUICE_REDIS_URL": self.redis_url,
            "SLUICE_DATABASE_URL": self.database_url,
            "SLUICE_STORE_DIR": str(self.folder / "store"),
            "SLUICE_SCRATCH_DIR": str(self.folder / "scratch"),
            "SLUICE_KEY_PREFIX": self.key_prefix,
            "PROMETHEUS_MULTIPROC_DIR": str(self.folder / "metrics"),
        }
        return {**plain_environment(), **common, **{f"SLUICE_{name.upper()}": str(v) for name, v in more.items()}}

    def start(self, command: str, **more: object) -> subprocess.Popen[bytes]:
        with (self.folder / f"{command}-{len(self.processes)}.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "sluice", command],
                env=self.environment(**more),
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        self.processes.append(process)
        return process

    def start_worker(self, **more: object) -> subprocess.Popen[bytes]:
        """A serving worker with two prediction processes."""
        return self.start("worker", worker_name=f"w{len(self.processes)}", **more)

    def start_gateway(self, **more: object) -> str:
        """A gateway that can be reached; returns its address. Redis and the database must be there."""
        port = free_port()
        secrets = {"client_secret_key": PEPPER, "master_key": MASTER_KEY, "keys_dir": self.folder / "keys"}
        # Callers of a session keep their tokens for all of its tests, however slow the machine is.
        process = self.start("gateway", port=port, **secrets, **{"token_seconds": 3600, **more})
        url = f"http://127.0.0.1:{port}"
        wait_for(lambda: process.poll() is not None or answers(url), START_SECONDS)
        assert process.poll() is None, (self.folder / f"gateway-{len(self.processes) - 1}.log").read_text()
        self.gateways.append(url)
        if "grpc_port" in more:
            self.grpc_addresses.append(f"127.0.0.1:{more['grpc_port']}")
        return url

    def wait_for_slots(self, number: int, gateway: int = 0) -> None:
        wait_for(lambda: ready(self.gateways[gateway]).get("slots", 0) >= number, START_SECONDS)

    def caller(self, *models: str, gateway: int = 0, scopes: Collection[Scope] = CALLING) -> httpx.Client:
        """An HTTP client with a token and grants on the models, once the gateway knows it."""
        with transaction(self.sessions) as session:
            made, secret = clients.create(session, f"caller-{len(self.clients)}", scopes, PEPPER.encode())
            set_grants(session, made.id, [GrantSpec(model) for model in models])
        of_this_gateway = functools.partial(httpx.Client, base_url=self.gateways[gateway], timeout=60, verify=NO_TLS)
        signing_in = of_this_gateway()

        def signed_in() -> bool:
            form = {"grant_type": "client_credentials"}
            answer = signing_in.post("/oauth/token", data=form, auth=(made.id, secret))
            signing_in.headers["authorization"] = f"Bearer {answer.json().get('access_token', '')}"
            return all(signing_in.get(f"/v1/models/{model}").status_code == 200 for model in models)

        wait_for(signed_in, 10)
        signing_in.close()
        client = of_this_gateway(headers=signing_in.headers)
        self.clients.append(client)
        return client

    def stop(self) -> None:
        for client in self.clients:
            client.close()
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self.processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(15)
            if process.poll() is None:
                process.kill()
                process.wait()


@contextlib.contextmanager
def cluster(folder: Path, redis_url: str, database_url: str) -> Iterator[Cluster]:
    """An installation with the models `double` (fast) and `slow`, no processes yet."""
    settings = worker_settings(redis_url, database_url, folder)
    make_tables(settings)
    sessions = sessions_of(connect(settings))
    artifacts = Artifacts.of(settings)
    serve_model(sessions, artifacts, doubling_model(folder / "double.onnx"))
    serve_model(sessions, artifacts, slow_model(folder / "slow.onnx"), "slow", batch_seconds=0.5)
    made = Cluster(folder, redis_url, database_url, sessions, artifacts, settings.key_prefix)
    try:
        yield made
    finally:
        made.stop()
        sessions.kw["bind"].dispose()


def children(pid: int) -> list[int]:
    """The processes that a process started and that still live."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in found]


def kill(pids: Sequence[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def answers(url: str) -> bool:
    return bool(ready(url))


def ready(url: str) -> dict[str, object]:
    """What `/health/ready` says; empty where nobody listens."""
    try:
        found: dict[str, object] = httpx.get(f"{url}/health/ready", timeout=5, verify=NO_TLS).json()
    except httpx.HTTPError:
        return {}
    return found


def wait_for(condition: object, seconds: float) -> None:
    until = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < until, f"it did not happen within {seconds} seconds"
        time.sleep(0.05)
