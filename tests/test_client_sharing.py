"""The Python client among threads, tasks and processes: nobody reads another's answer, or waits in another's turn."""

from __future__ import annotations

import asyncio
import copy
import pickle
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from sluice import AsyncClient, Client, JobFailed, ModelNotFound, SluiceFailed, Unreachable
from tests.client_kit import login
from tests.processes import Cluster
from tests.system import plain_environment

CALLERS = 8
# Two processes that begin with one connection, and a client that nobody closes.
FORKED = """
import os, sys
import numpy as np
from sluice import Client

sluice = Client(*sys.argv[1:], patience_seconds=0)
sluice.predict("double", np.zeros((1, 2)))
children = []
for number in (1.0, 2.0):
    child = os.fork()
    if child == 0:
        try:
            for step in range(20):
                given = np.array([[number, step]])
                assert (sluice.predict("double", given) == given * 2).all()
            os._exit(0)
        finally:
            os._exit(1)
    children.append(child)
sys.exit(sum(os.waitpid(child, 0)[1] for child in children) != 0)
"""
# What runs in the background of a shell is born with a deaf ear for interrupts.
STOPPED = """
import signal
from sluice import Client

signal.signal(signal.SIGINT, signal.default_int_handler)
sluice = Client("http://127.0.0.1:1", "cli_x", "sls_x", patience_seconds=600)

def rows():
    for row in ([1.0, 2.0], [3.0, 4.0]):
        yield row
    print("all are under way", flush=True)

list(sluice.map("double", rows(), batch=1))
"""


@contextmanager
def silent_server() -> Iterator[socket.socket]:
    """Takes connections, and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        yield server


def connections(server: socket.socket) -> int:
    """How many there were."""
    found = 0
    while True:
        try:
            server.accept()[0].close()
        except BlockingIOError:
            return found
        found += 1


def address(server: socket.socket) -> str:
    return f"http://127.0.0.1:{server.getsockname()[1]}"


def test_processes_that_were_forked_read_their_own_answers(serving: Cluster):
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", FORKED, *login(serving, "double")],
        env=plain_environment(), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (run.returncode, run.stderr) == (0, "")


def test_threads_that_wait_for_one_token_are_told_together_that_none_comes():
    together, failed = threading.Barrier(CALLERS), list[SluiceFailed]()
    with (
        silent_server() as server,
        Client(address(server), "cli_x", "sls_x", timeout_seconds=1, patience_seconds=0) as sluice,
    ):

        def ask() -> None:
            together.wait()
            try:
                sluice.models()
            except Unreachable as error:
                failed.append(error)

        threads = [threading.Thread(target=ask) for _ in range(CALLERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len({id(error) for error in failed}) == CALLERS
        assert connections(server) < CALLERS / 2


def test_tasks_that_wait_for_one_token_are_told_together_that_none_comes():
    async def ask(url: str) -> list[object]:
        async with AsyncClient(url, "cli_x", "sls_x", timeout_seconds=0.5, patience_seconds=0) as sluice:
            return list(await asyncio.gather(*(sluice.models() for _ in range(CALLERS)), return_exceptions=True))

    with silent_server() as server:
        assert [type(found) for found in asyncio.run(ask(address(server)))] == [Unreachable] * CALLERS
        assert connections(server) == 1


def test_a_map_that_is_interrupted_waits_no_longer_for_a_gateway_that_is_away():
    command = [sys.executable, "-c", STOPPED]
    with subprocess.Popen(command, env=plain_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        assert run.stdout is not None
        run.stdout.readline()
        run.send_signal(signal.SIGINT)
        assert run.wait(60) != 0


@pytest.mark.parametrize(
    "error",
    [
        ModelNotFound(404, "model_not_found", "no", retry_after_seconds=3, answer={"error": "no"}, request_id="r"),
        Unreachable("away", broken=True),
        JobFailed({"id": "j", "state": "failed", "error": {"code": "c", "message": "why"}}),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_goes_from_one_process_to_another(error: SluiceFailed):
    found = pickle.loads(pickle.dumps(error))  # noqa: S301 - its own
    assert (type(found), str(found), vars(found)) == (type(error), str(error), vars(error))


@pytest.mark.parametrize("kind", [Client, AsyncClient], ids=("threads", "asyncio"))
def test_a_client_is_neither_copied_nor_written_down(kind: type[Client | AsyncClient]):
    sluice = kind("http://127.0.0.1:1", "cli_x", "sls_secret")
    for way in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="make one where it is used"):
            way(sluice)


def test_both_clients_have_the_same_calls():
    for name in set(dir(Client)) ^ set(dir(AsyncClient)):
        assert name.startswith("_"), name
