"""`sluice up` itself: what it starts, how it refuses, how it recovers, and that it leaves nothing behind."""

from __future__ import annotations

import json
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from sluice.data_folder import DataFolder, DataFolderInvalid
from sluice.listening_ports import free_port
from tests.grpc_kit import connected
from tests.system import System, plain_environment, start_up, stop_up, wait_for_output


def run_up(data: Path, port: int, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A `sluice up` that is expected to end by itself."""
    command = [sys.executable, "-m", "sluice", "up", "--data", str(data), "--port", str(port), *options]
    return subprocess.run(
        command, env=plain_environment() | environment, capture_output=True, text=True, timeout=60, check=False
    )


def family_of(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """Everything that runs below a process."""
    return psutil.Process(process.pid).children(recursive=True)


def program(family: list[psutil.Process], verb: str) -> psutil.Process:
    """The first process of one of Sluice's programs."""
    return next(process for process in family if process.cmdline()[-2:] == ["sluice.process", verb])


def until(condition: Callable[[], object], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def is_ready(address: str) -> bool:
    """Whether the gateway is well and workers are there."""
    try:
        answer = httpx.get(f"{address}/health/ready", trust_env=False)
    except httpx.HTTPError:
        return False
    return answer.status_code == 200 and answer.json()["slots"] > 0


class Up:
    """A `sluice up` of a test's own."""

    def __init__(self, folder: Path) -> None:
        self.data, self.output = folder / "data", folder / "output"
        self.process, self.address = start_up(self.data, self.output)

    def wait_until_ready(self) -> None:
        wait_for_output(self.process, self.output, "Sluice is ready")


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Up]:
    up = Up(tmp_path)
    try:
        up.wait_until_ready()
        yield up
    finally:
        stop_up(up.process)


def test_settings_of_tls_are_refused_before_anything_starts(tmp_path: Path) -> None:
    refused = run_up(tmp_path / "data", free_port(), SLUICE_TLS_CERTIFICATE="a.pem", SLUICE_TLS_KEY="b.pem")

    assert refused.returncode == 1
    assert "unset SLUICE_TLS_CERTIFICATE, SLUICE_TLS_KEY" in refused.stderr
    assert not (tmp_path / "data").exists()


def test_a_second_one_on_the_same_folder_says_who_runs_there(system: System) -> None:
    second = run_up(system.data, free_port())

    assert second.returncode == 1
    assert f"process {system.process.pid}, {system.base_url}" in second.stderr


def test_a_port_that_is_taken_is_refused_with_what_to_do(system: System, tmp_path: Path) -> None:
    port = int(system.base_url.rpartition(":")[2])

    second = run_up(tmp_path / "data", port)

    assert second.returncode == 1
    assert f"port {port} is taken" in second.stderr
    assert "sluice up --port" in second.stderr


def test_grpc_answers_on_the_port_that_the_folder_names(system: System, tmp_path: Path) -> None:
    address = json.loads((system.data / "lock").read_text())["grpc"]
    with connected(address) as stranger:
        assert stranger.call("ServerReady").message.ready

    taken = run_up(tmp_path / "data", free_port(), "--grpc-port", address.rpartition(":")[2])

    assert taken.returncode == 1
    assert "choose another one for gRPC" in taken.stderr


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    refused = run_up(tmp_path / "file" / "data", free_port())

    assert refused.returncode == 1
    assert "cannot be made" in refused.stderr


def test_only_this_user_can_read_the_data_and_the_secrets(system: System) -> None:
    assert stat.S_IMODE(system.data.stat().st_mode) == 0o700
    secrets = list((system.data / "secrets").iterdir())
    assert {secret.name for secret in secrets} == {"redis-password", "redis-url", "client-secret-key", "master-key"}
    for file in (*secrets, system.data / "redis" / "redis.conf"):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_no_secret_is_in_an_argument_or_an_environment(system: System) -> None:
    names = ("redis-password", "client-secret-key", "master-key")
    secrets = [(system.data / "secrets" / name).read_text() for name in names]

    for process in family_of(system.process):
        shown = " ".join(process.cmdline()) + " ".join(process.environ().values())
        assert not any(secret in shown for secret in secrets), process


def test_workers_are_not_told_where_keys_and_secrets_of_clients_are(system: System) -> None:
    family = family_of(system.process)

    assert "SLUICE_CLIENT_SECRET_KEY_FILE" in program(family, "gateway").environ()
    for verb in ("worker", "prepare-worker", "background-worker"):
        environment = program(family, verb).environ()
        assert "SLUICE_DATABASE_URL" in environment
        assert not {name for name in environment if "CLIENT_SECRET" in name or "KEYS" in name}


def test_it_listens_on_the_loopback_address_only(system: System) -> None:
    listening = [
        connection.laddr.ip
        for process in family_of(system.process)
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    ]

    assert len(listening) >= 2
    assert set(listening) == {"127.0.0.1"}


def test_what_dies_is_started_again_and_ctrl_c_ends_everything(own: Up) -> None:
    # given a running system, in which one process after the other is killed
    for verb in ("gateway", "worker", "prepare-worker", "background-worker", "redis"):
        family = family_of(own.process)
        victim = program(family, verb) if verb != "redis" else next(one for one in family if "redis" in one.name())
        victim.kill()

        # then it says which and why, and the system is ready again
        told = f"{verb} (process {victim.pid}) was killed by SIGKILL; starting it again in 0.5 s"
        wait_for_output(own.process, own.output, told)
        until(lambda: is_ready(own.address))

    # when Ctrl-C comes, then it ends in order, and nothing is left
    family = family_of(own.process)
    assert stop_up(own.process, signal.SIGINT) == 0
    assert "did not stop by itself" not in own.output.read_text()
    assert not [process for process in family if process.is_running()]


def test_ctrl_c_while_it_starts_ends_it_as_well(tmp_path: Path) -> None:
    up = Up(tmp_path)
    wait_for_output(up.process, up.output, "Sluice starts")
    until(lambda: family_of(up.process))
    family = family_of(up.process)

    assert stop_up(up.process, signal.SIGINT) == 0
    assert not [process for process in family if process.is_running()]
    assert "Traceback" not in up.output.read_text()


def test_a_folder_of_somebody_elses_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics" / "mine.csv").write_text("1")
    mode = tmp_path.stat().st_mode

    with pytest.raises(DataFolderInvalid, match="no data folder"):
        DataFolder.at(tmp_path).make()

    assert (tmp_path / "metrics" / "mine.csv").exists()
    assert tmp_path.stat().st_mode == mode


def test_nothing_is_left_when_it_is_killed_itself(own: Up) -> None:
    family = family_of(own.process)
    assert len(family) >= 6

    own.process.kill()

    until(lambda: not [process for process in family if process.is_running() and process.status() != "zombie"])
    # and the folder is free for the next one
    with DataFolder.at(own.data).lock("nowhere", "nowhere"):
        pass
