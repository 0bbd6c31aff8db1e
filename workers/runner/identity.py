"""The user that a runner has: where its worker is root, one of its own; and no capability in any case."""

from __future__ import annotations

import contextlib
import os
import pwd
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from workers.runner import kernel

# Numbers that no distribution and no container manager gives out (systemd.io/UIDS-GIDS: "unused").
FIRST_UNUSED, UNUSED_BYTES = 0x70000000, 3
CAPABILITIES = 64
# For others a way to what they own within, and nothing to see.
PASSED_THROUGH = 0o711
CAPABILITY_VERSION_3 = 0x20080522


@dataclass(frozen=True, slots=True)
class Identity:
    """A user and a group, by their numbers."""

    user: int
    group: int

    @classmethod
    def unused(cls) -> Self:
        """One that nobody else has; two runners of a worker get the same with a chance of one in 16 million."""
        number = FIRST_UNUSED + int.from_bytes(os.urandom(UNUSED_BYTES))
        return cls(number, number)

    @classmethod
    def named(cls, name: str) -> Self:
        """A user by name or number, with the main group; KeyError for a name that does not exist."""
        if name.isdecimal():
            return cls(int(name), int(name))
        entry = pwd.getpwnam(name)
        return cls(entry.pw_uid, entry.pw_gid)

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """What `str` gave; None for an empty text."""
        user, _, group = text.partition(":")
        return cls(int(user), int(group)) if text else None

    def __str__(self) -> str:
        return f"{self.user}:{self.group}"

    def take(self, folder: Path, needed: list[Path]) -> None:
        """Becomes this user for good, and hands over the folders in `folder`, which stays the worker's.

        Needs to be root. Raises OSError, and is who it was, where this user could not reach the folder or what is
        `needed` to go on: an interpreter in root's home, say.
        """
        parts = [folder, *sorted(folder.iterdir())]
        before = [os.stat(part) for part in parts]
        groups = os.getgroups()
        try:
            for part in parts[1:]:
                os.chown(part, self.user, self.group)
            os.chmod(folder, PASSED_THROUGH)
            os.setgroups([])
            with self._tried():
                _require([*needed, *parts[1:]])
        except OSError:
            with contextlib.suppress(PermissionError):  # it may not have been allowed to leave them either
                os.setgroups(groups)
            for part, was in zip(parts, before, strict=True):
                os.chown(part, was.st_uid, was.st_gid)
                os.chmod(part, was.st_mode)
            raise
        os.setresgid(self.group, self.group, self.group)
        os.setresuid(self.user, self.user, self.user)
        # A process that changed its user has its entries in /proc given to root, until it says so.
        kernel.prctl(kernel.PR_SET_DUMPABLE, 1)

    @contextlib.contextmanager
    def _tried(self) -> Iterator[None]:
        os.setresgid(-1, self.group, -1)
        try:
            os.setresuid(-1, self.user, -1)
            try:
                yield
            finally:
                os.setresuid(-1, 0, -1)
        finally:
            os.setresgid(-1, 0, -1)


def drop_capabilities() -> None:
    """Gives up every capability, also those that a new user namespace brought. Raises OSError."""
    for capability in range(CAPABILITIES):
        # Needs a capability itself, and ends with EINVAL at the kernel's last one.
        with contextlib.suppress(OSError):
            kernel.prctl(kernel.PR_CAPBSET_DROP, capability)
    # The version and this process; then effective, permitted and inheritable, twice 32 bits of each.
    kernel.capset(kernel.buffer(struct.pack("=Ii", CAPABILITY_VERSION_3, 0)), kernel.buffer(bytes(24)))


def _require(paths: list[Path]) -> None:
    for path in paths:
        wanted = os.R_OK | (os.X_OK if os.path.isdir(path) else 0)
        if not os.access(path, wanted, effective_ids=True):
            # Without the path: the reason is shown to whoever uploaded something.
            raise PermissionError("another user cannot reach Python, its packages or the scratch folder")
