"""What each kind of process carries: memory that a package takes is taken in every process for as long as it lives."""

from __future__ import annotations

import subprocess
import sys

import pytest

from sluice import process
from tests.system import plain_environment

COMMAND_LINE = {"typer", "rich", "httpx", "pygments"}
FRAMEWORKS = {"tensorflow", "keras", "onnx", "tf2onnx", "h5py", "sklearn", "pandas", "scipy", "matplotlib"}
GATEWAY = {"fastapi", "starlette", "uvicorn", "jose", "passlib"}
# By the kind of process: what it needs, and what it must not import.
CARRIES: dict[str, tuple[set[str], set[str]]] = {
    "gateway": (GATEWAY, COMMAND_LINE | FRAMEWORKS | {"alembic", "onnxruntime", "psutil", "psycopg"}),
    "worker": ({"celery", "onnxruntime"}, COMMAND_LINE | FRAMEWORKS | GATEWAY | {"alembic", "psycopg"}),
    "prepare-worker": ({"celery", "onnxruntime"}, COMMAND_LINE | FRAMEWORKS | GATEWAY | {"alembic", "psycopg"}),
    "background-worker": (
        {"celery"},
        COMMAND_LINE | FRAMEWORKS | GATEWAY | {"alembic", "onnxruntime", "psutil", "psycopg"},
    ),
}
# Refused by each kind after its imports and before anything is connected.
WRONG = {"SLUICE_WORKER_PROCESSES": "0", "SLUICE_BACKGROUND_THREADS": "0", "SLUICE_PORT": "-1"}


def packages_of(kind: str) -> set[str]:
    """Every package that a process of this kind imports on its way to its settings, by Python's own account."""
    command = process.command_of(kind)
    ended = subprocess.run(
        [command[0], "-X", "importtime", *command[1:]],
        env={**plain_environment(), **WRONG},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ended.returncode, "Error: settings are missing or wrong" in ended.stderr) == (1, True)
    lines = [line for line in ended.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}


@pytest.mark.parametrize("kind", process.KINDS)
def test_a_process_imports_what_its_kind_needs_and_nothing_else(kind: str):
    needed, foreign = CARRIES[kind]

    packages = packages_of(kind)

    assert needed <= packages
    assert not foreign & packages


def test_an_unknown_kind_of_process_is_refused_with_those_that_exist():
    command = [sys.executable, "-m", "sluice.process", "database"]

    ended = subprocess.run(command, env=plain_environment(), capture_output=True, text=True, timeout=60, check=False)

    assert ended.returncode == 1
    assert "gateway|worker|prepare-worker|background-worker" in ended.stderr
