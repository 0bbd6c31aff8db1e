"""The data folder of `sluice up`: what lies where, its secrets, its lock, and the settings that follow from it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from sluice.failures import CommandFailed

SECRET_BYTES = 32
# What the data folder decides, whatever the caller's environment says.
DECIDED = (
    "DATABASE_URL", "REDIS_URL", "STORE_DIR", "KEYS_DIR", "CLIENT_SECRET_KEY", "MASTER_KEY", "SCRATCH_DIR", "HOST",
    "PORT", "GRPC_PORT",
)  # fmt: skip
# What somebody may have set for the client's side; no server needs it.
OF_CLIENTS = ("URL", "CLIENT_ID", "CLIENT_SECRET", "CREDENTIALS", "PROFILE")


class DataFolderInUse(CommandFailed):
    """Another `sluice up` runs on this folder; the message names its process and address."""


class DataFolderInvalid(CommandFailed):
    """The folder cannot be used; the message says why."""


@dataclass(frozen=True, slots=True)
class DataFolder:
    """Paths below one folder, given as an absolute path."""

    root: Path

    @classmethod
    def at(cls, path: Path) -> DataFolder:
        """The folder at a path; nothing is made yet. Raises DataFolderInvalid."""
        root = path.expanduser().resolve()
        # A database URL would take what follows a question mark for parameters.
        if "?" in str(root):
            raise DataFolderInvalid(f"the path of a data folder must not contain a question mark: {root}")
        return cls(root)

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def metrics(self) -> Path:
        return self.root / "metrics"

    @property
    def redis(self) -> Path:
        return self.root / "redis"

    @property
    def demo(self) -> Path:
        return self.root / "demo"

    @property
    def demo_json(self) -> Path:
        return self.root / "demo.json"

    @property
    def redis_password(self) -> Path:
        return self.root / "secrets" / "redis-password"

    @property
    def redis_url(self) -> Path:
        return self.root / "secrets" / "redis-url"

    @property
    def client_secret_key(self) -> Path:
        return self.root / "secrets" / "client-secret-key"

    @property
    def master_key(self) -> Path:
        return self.root / "secrets" / "master-key"

    def make(self) -> None:
        """Make what is missing: the folders, open to this user only, and the secrets. Raises DataFolderInvalid."""
        if self._is_foreign():
            # The folders `metrics` and `scratch` in it are emptied at each start.
            raise DataFolderInvalid(f"{self.root} is not empty, and no data folder of Sluice: name another one")
        try:
            for folder in (self.root, *(self.root / name for name in ("secrets", "logs", "redis", "demo", "store"))):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.root.chmod(0o700)
        except OSError as error:
            raise DataFolderInvalid(f"the data folder {self.root} cannot be made: {error.strerror}") from error
        for path in (self.redis_password, self.client_secret_key, self.master_key):
            if not path.exists():
                write_private(path, secrets.token_urlsafe(SECRET_BYTES))

    def empty_scratch(self) -> None:
        """Remove what the processes of an earlier run left: half-done work and their metrics."""
        for folder in (self.root / "scratch", self.metrics):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(mode=0o700)

    @contextlib.contextmanager
    def lock(self, address: str, grpc_address: str) -> Iterator[None]:
        """Hold the folder for this process. Raises DataFolderInUse. Ends with the process, however it ends.

        Meanwhile, and until the next time, the file tells whoever looks where the gateway is.
        """
        descriptor = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise DataFolderInUse(self._holder(os.read(descriptor, 4096))) from None
            os.ftruncate(descriptor, 0)
            os.write(descriptor, json.dumps({"pid": os.getpid(), "address": address, "grpc": grpc_address}).encode())
            yield
        finally:
            os.close(descriptor)

    def environment_of_workers(self, inherited: Mapping[str, str]) -> dict[str, str]:
        """Settings for processes that run models: the queue and the store, no secret of clients, no signing key."""
        names = {f"SLUICE_{name}{ending}" for name in DECIDED + OF_CLIENTS for ending in ("", "_FILE", "_COMMAND")}
        kept = {name: value for name, value in inherited.items() if name not in names}
        return kept | {
            "SLUICE_DATABASE_URL": f"sqlite:///{self.root / 'sluice.db'}",
            "SLUICE_REDIS_URL_FILE": str(self.redis_url),
            "SLUICE_STORE_DIR": str(self.root / "store"),
            "SLUICE_SCRATCH_DIR": str(self.root / "scratch"),
        }

    def environment_of_gateways(self, inherited: Mapping[str, str]) -> dict[str, str]:
        """Settings for processes that know clients: those of workers, the master key, the key of clients' secrets."""
        return self.environment_of_workers(inherited) | {
            "SLUICE_KEYS_DIR": str(self.root / "keys"),
            "SLUICE_CLIENT_SECRET_KEY_FILE": str(self.client_secret_key),
            "SLUICE_MASTER_KEY_FILE": str(self.master_key),
        }

    def address(self) -> str | None:
        """Where the gateway of the running, or else of the last `sluice up` is; None before the first."""
        with contextlib.suppress(OSError, ValueError, KeyError):
            return str(json.loads((self.root / "lock").read_text())["address"])
        return None

    def _is_foreign(self) -> bool:
        """Whether somebody else's files lie there: our secrets, or the database of single processes, do not."""
        own = (self.root / "secrets", self.root / "sluice.db")
        with contextlib.suppress(OSError):
            return any(self.root.iterdir()) and not any(path.exists() for path in own)
        return False

    def _holder(self, text: bytes) -> str:
        with contextlib.suppress(ValueError):
            holder = json.loads(text)
            return (
                f"`sluice up` already runs on {self.root}: process {holder['pid']}, {holder['address']}. "
                "Stop that one first, or name another folder with --data."
            )
        return f"`sluice up` is just being started on {self.root} by another process"


def write_private(path: Path, text: str) -> None:
    """Write a file that only this user can read, as a whole or not at all. Raises CommandFailed."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(text)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise CommandFailed(f"{path} cannot be written: {error.strerror}") from error
