"""Which Redis `sluice up` takes, and how it remembers its port."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from sluice.data_folder import DataFolder
from sluice.embedded_redis import redis_program, redis_server


@pytest.fixture
def folder(tmp_path: Path) -> DataFolder:
    folder = DataFolder.at(tmp_path / "data")
    folder.make()
    return folder


@pytest.mark.parametrize(
    ("says", "taken"),
    [
        ("Redis server v=6.2.0 sha=00000000:0 malloc=libc bits=64 build=1", True),
        ("Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64 build=2", True),
        ("Redis server v=6.0.16 sha=00000000:0 malloc=jemalloc-5.2.1 bits=64 build=3", False),
        ("something else", False),
    ],
)
def test_the_machines_own_server_is_taken_where_it_is_new_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: str, taken: bool
) -> None:
    program = tmp_path / "redis-server"
    program.write_text(f"#!/bin/sh\necho '{says}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")

    found = redis_server()

    assert (found == str(program)) is taken
    assert Path(found).is_file()


def test_a_broken_server_on_the_path_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "redis-server"
    program.write_text("#!/bin/sh\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")

    assert redis_server() != str(program)


def test_the_port_stays_the_same_unless_somebody_else_has_taken_it(folder: DataFolder) -> None:
    # given a port that was chosen
    redis_program(folder, {})
    first = folder.redis_url.read_text()

    # then it is chosen again, and another one where somebody listens on it
    redis_program(folder, {})
    assert folder.redis_url.read_text() == first
    port = int((folder.redis / "port").read_text())
    with socket.create_server(("127.0.0.1", port)):
        redis_program(folder, {})
    assert folder.redis_url.read_text() != first


def test_the_password_is_in_the_configuration_and_not_among_the_arguments(folder: DataFolder) -> None:
    program = redis_program(folder, {})

    password = folder.redis_password.read_text()
    assert f"requirepass {password}\n" in Path(program.command[-1]).read_text()
    assert not any(password in argument for argument in program.command)
