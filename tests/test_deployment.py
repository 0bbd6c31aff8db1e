"""The services of docker-compose.yml, started as processes with the commands and the environment that it gives them.

Only what a container brings of its own is replaced: host names, ports, and the folders under which files are mounted.
PostgreSQL and Redis are real, Redis with the configuration and the password that its container would have.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
import redis
import sqlalchemy
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import URL, make_url

from sluice.listening_ports import free_port
from tests.conftest import redis_binary
from tests.deployment import ROOT, SERVICES, command_of, environment_of, stage_of

RUNNING = ("gateway", "worker", "prepare", "background")
START_SECONDS = 60
STOP_SECONDS = 40
BIN = Path(sys.executable).parent


class Deployment:
    """The compose file's services on this machine, under one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.secrets = root / "secrets"
        self.ports = {(name, port): free_port() for name in RUNNING for port in (8080, 8081, 9100)}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        subprocess.run(["sh", str(ROOT / "deploy/make-secrets.sh"), str(self.secrets)], check=True, capture_output=True)
        for folder in ("keys", "scratch", "store"):
            (root / "lib" / folder).mkdir(parents=True, mode=0o700)

    def secret(self, name: str) -> str:
        return (self.secrets / name).read_text().strip()

    def replace_secret(self, name: str, text: str) -> None:
        (self.secrets / name).unlink()
        (self.secrets / name).write_text(text + "\n")

    def environment(self, service: str) -> dict[str, str]:
        """The service's variables with this machine's paths, addresses and ports."""
        mounted = {
            "/run/secrets": str(self.secrets),
            "/var/lib/sluice": str(self.root / "lib"),
            "/run/sluice": str(self.root / "run" / service),
            "0.0.0.0": "127.0.0.1",  # noqa: S104 - what is replaced
        }
        # Every container has a host name of its own, and workers are named after it.
        found = {"PATH": os.environ["PATH"], "SLUICE_WORKER_NAME": service}
        for name, value in environment_of(service).items():
            if name == "PATH":
                continue
            for theirs, ours in mounted.items():
                value = value.replace(theirs, ours)
            found[name] = (
                str(self.ports[service, int(value)]) if name.endswith("_PORT") and service in RUNNING else value
            )
        return found

    def run(self, service: str, command: list[str]) -> subprocess.CompletedProcess[str]:
        """A command in the service's environment, to its end, as `docker compose run` or `exec` would."""
        return subprocess.run(
            [str(BIN / command[0]), *command[1:]],
            env=self.environment(service),
            cwd=self.root,
            capture_output=True,
            text=True,
            timeout=START_SECONDS,
            check=False,
        )

    def start(self, service: str) -> None:
        program, *arguments = command_of(service)
        with self.log(service).open("wb") as log:
            self.processes[service] = subprocess.Popen(
                [str(BIN / program), *arguments],
                env=self.environment(service),
                cwd=self.root,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def log(self, service: str) -> Path:
        return self.root / f"{service}.log"

    def healthy(self, service: str) -> bool:
        """What the image's health check says."""
        assert self.processes[service].poll() is None, self.log(service).read_text()[-4000:]
        python, isolated, script, address, path = stage_of(service).health_check
        assert (python, isolated) == ("python", "-I")
        host, port = address.split(":")
        local = [script.replace("/opt/sluice", str(ROOT)), f"{host}:{self.ports[service, int(port)]}", path]
        return subprocess.run([sys.executable, "-I", *local], check=False, timeout=30).returncode == 0

    def address(self, service: str, port: int) -> str:
        return f"http://127.0.0.1:{self.ports[service, port]}"

    def stop(self) -> dict[str, int]:
        """Ends all services as Docker does; returns their exit codes."""
        for process in self.processes.values():
            process.terminate()
        return {name: process.wait(STOP_SECONDS) for name, process in self.processes.items()}

    def kill(self) -> None:
        for process in self.processes.values():
            if process.poll() is None:
                process.kill()
                process.wait()


def wait_until(holds: Callable[[], bool], what: str) -> None:
    until = time.monotonic() + START_SECONDS
    while not holds():
        assert time.monotonic() < until, f"{what} did not come about in {START_SECONDS} s"
        time.sleep(0.2)


def start_redis(deployment: Deployment) -> subprocess.Popen[bytes]:
    """Redis with deploy/redis.conf; the port, the address and the place of the password are this machine's."""
    port = free_port()
    text = (ROOT / "deploy/redis.conf").read_text()
    for theirs, ours in (
        ("port 6379", f"port {port}"),
        ("bind * -::*", f"bind 127.0.0.1\ndir {deployment.root}"),
        ("/run/secrets", str(deployment.secrets)),
    ):
        assert theirs in text
        text = text.replace(theirs, ours)
    (deployment.root / "redis.conf").write_text(text)
    deployment.replace_secret("redis_url", deployment.secret("redis_url").replace("@redis:6379", f"@127.0.0.1:{port}"))
    process = subprocess.Popen([redis_binary(), str(deployment.root / "redis.conf")], stdout=subprocess.DEVNULL)

    def answers() -> bool:
        try:
            with redis.Redis.from_url(deployment.secret("redis_url")) as client:
                return bool(client.ping())
        except redis.ConnectionError:
            return False

    wait_until(answers, "an answer of Redis")
    return process


@pytest.fixture
def database(deployment: Deployment, postgresql_server: str) -> Iterator[None]:
    """A database and a role that owns it and nothing else, as the PostgreSQL container makes them."""
    server = make_url(postgresql_server).set(drivername="postgresql+psycopg")
    theirs = make_url(deployment.secret("database_url"))
    name = f"{theirs.database}_{secrets.token_hex(4)}"
    ours = URL.create(theirs.drivername, theirs.username, theirs.password, database=name, query=server.query)
    admin = sqlalchemy.create_engine(server, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.exec_driver_sql(f"CREATE ROLE {theirs.username} LOGIN PASSWORD '{theirs.password}'")
        connection.exec_driver_sql(f"CREATE DATABASE {name} OWNER {theirs.username}")
    deployment.replace_secret("database_url", ours.render_as_string(hide_password=False))
    yield
    with admin.connect() as connection:
        connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
        connection.exec_driver_sql(f"DROP ROLE {theirs.username}")
    admin.dispose()


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    made = Deployment(tmp_path)
    with ExitStack() as stack:
        stack.callback(made.kill)
        process = start_redis(made)
        stack.callback(process.wait)
        stack.callback(process.kill)
        yield made


def sessions_left(leaders: set[int]) -> list[str]:
    """Processes that still belong to the sessions of these leaders."""
    left = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) in leaders:
                left.append((folder / "cmdline").read_text().replace("\0", " "))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return left


@pytest.mark.usefixtures("database")
def test_the_services_of_the_compose_file_work_together(deployment: Deployment):
    # Given what `docker compose up` starts, in its order
    migrated = deployment.run("migrate", command_of("migrate"))
    assert migrated.returncode == 0, migrated.stderr
    for service in RUNNING:
        assert SERVICES[service]["depends_on"]["migrate"]
        deployment.start(service)
    for service in RUNNING:
        wait_until(lambda service=service: deployment.healthy(service), f"a healthy {service}")

    # When an administrator is made and asks
    made = deployment.run("gateway", ["sluice", "admin", "create", "root", "--json"])
    assert made.returncode == 0, made.stderr
    admin = json.loads(made.stdout)
    with httpx.Client(base_url=deployment.address("gateway", 8080), timeout=30) as client:

        def ready() -> bool:
            answer = client.get("/health/ready")
            return answer.status_code == 200 and answer.json()["slots"] > 0

        wait_until(ready, "a gateway that is ready and sees the worker's slots")
        form = {"grant_type": "client_credentials"}
        token = client.post("/oauth/token", data=form, auth=(admin["client_id"], admin["client_secret"]))
        headers = {"Authorization": f"Bearer {token.json()['access_token']}"}
        # A gateway learns within a second of a client that was made beside it.
        wait_until(lambda: client.get("/v1/models", headers=headers).status_code == 200, "an answer for the client")
        closed, opened = client.get("/metrics"), client.get("/metrics", headers=headers)

    # Then it is answered, and what is said about metrics in the documents holds
    assert token.status_code == 200
    assert (closed.status_code, opened.status_code) == (401, 200)
    kinds_of = {
        "gateway": "gateway",
        "worker": "worker",
        "prepare": "prepare-worker",
        "background": "background-worker",
    }
    for service, process in kinds_of.items():
        text = httpx.get(f"{deployment.address(service, 9100)}/metrics").text
        families = {family.name: family for family in text_string_to_metric_families(text)}
        kinds = {sample.labels["process"]: sample.value for sample in families["sluice_resident_bytes"].samples}
        assert kinds.keys() == {process}
        assert kinds[process] > 20 * 1024**2

    # And all of it ends when told to, in order, and leaves nothing behind but JSON lines without secrets
    leaders = {process.pid for process in deployment.processes.values()}
    # uvicorn ends by the signal that stopped it, after it has shut down in order.
    assert deployment.stop() == {"gateway": -signal.SIGTERM, "worker": 0, "prepare": 0, "background": 0}
    assert "Application shutdown complete." in deployment.log("gateway").read_text()
    assert sessions_left(leaders) == []
    hidden = [deployment.secret(name) for name in ("postgres_password", "redis_password", "client_secret_key")]
    for service in RUNNING:
        text = deployment.log(service).read_text()
        assert not any(secret in text for secret in [*hidden, admin["client_secret"], token.json()["access_token"]])
        for line in text.splitlines():
            # Celery says that it stops past all logging.
            assert line in ("", "worker: Warm shutdown (MainProcess)") or json.loads(line)["process"]


def test_a_gateway_without_the_key_of_clients_secrets_says_so_and_does_not_start(deployment: Deployment):
    environment = {
        name: value for name, value in deployment.environment("gateway").items() if "CLIENT_SECRET_KEY" not in name
    }

    ended = subprocess.run(
        [str(BIN / "sluice"), "gateway"],
        env=environment,
        cwd=deployment.root,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert ended.returncode == 1
    assert "SLUICE_CLIENT_SECRET_KEY" in ended.stderr


def test_the_queue_wants_its_password_and_never_forgets_to_save_memory(deployment: Deployment):
    url = deployment.secret("redis_url")
    with redis.Redis.from_url(url) as client:
        settings = {name: client.config_get(name)[name] for name in ("maxmemory-policy", "save", "appendonly")}
    address = url.partition("@")[2]

    assert settings == {"maxmemory-policy": "noeviction", "save": "", "appendonly": "no"}
    with redis.Redis.from_url(f"redis://{address}") as stranger, pytest.raises(redis.AuthenticationError):
        stranger.ping()
