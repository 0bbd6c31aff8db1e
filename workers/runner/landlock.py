"""Landlock: which files a process may reach, whoever owns them, and no TCP port at all (kernel.org/doc, userspace-api).

Reading attributes (stat), changing them (chmod, chown, utime, xattr) and locks are beyond it: seccomp.py refuses the
changes.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterable
from pathlib import Path

from workers.runner.kernel import buffer, system_call

# The same numbers on every architecture.
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
VERSION, PATH_BENEATH = 1, 1
# Below 2 (Linux 5.19) no file can be moved between folders, and TensorFlow writes every SavedModel that way.
LEAST_ABI = 2

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR, REMOVE_DIR, REMOVE_FILE = (1 << bit for bit in range(6))
MAKE_DIR, MAKE_REG, REFER, TRUNCATE = 1 << 7, 1 << 8, 1 << 13, 1 << 14
READ = READ_FILE | READ_DIR
# No links, pipes, sockets or devices: the parent reads what a runner leaves in its folder.
WRITE = READ | WRITE_FILE | REMOVE_DIR | REMOVE_FILE | MAKE_DIR | MAKE_REG | REFER | TRUNCATE
ON_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE


def abi() -> int:
    """The kernel's version of Landlock; OSError where it has none, or where it is switched off."""
    return system_call(CREATE_RULESET, None, 0, VERSION)


def restrict(readable: Iterable[Path], writable: Iterable[Path]) -> list[int]:
    """Confines this process, for good, to these files and folders; what does not exist is left out.

    Needs no_new_privs. Returns descriptors to be kept open as long as the process lives. Raises OSError where Landlock
    is missing or too old.
    """
    version = abi()
    if version < LEAST_ABI:
        raise OSError(errno.EOPNOTSUPP, f"version {version} is older than {LEAST_ABI}")
    attributes = _attributes(version)
    handled = struct.unpack_from("=Q", attributes)[0]
    ruleset = system_call(CREATE_RULESET, buffer(attributes), len(attributes), 0)
    try:
        kept = [_add(ruleset, path, READ & handled) for path in readable]
        kept += [_add(ruleset, path, WRITE & handled) for path in writable]
        system_call(RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)
    return [descriptor for descriptor in kept if descriptor is not None]


def _attributes(version: int) -> bytes:
    """`struct landlock_ruleset_attr`: every right that this version knows is refused unless a rule allows it."""
    files = 13 + (version >= 2) + (version >= 3) + (version >= 5)
    fields = [(1 << files) - 1]
    if version >= 4:
        fields.append(0b11)  # TCP: bind, connect
    if version >= 6:
        fields.append(0b11)  # abstract Unix sockets and signals: only within the confinement
    return struct.pack(f"={len(fields)}Q", *fields)


def _add(ruleset: int, path: Path, rights: int) -> int | None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except (FileNotFoundError, PermissionError):
        return None
    allowed = rights if path.is_dir() else rights & ON_FILES
    try:
        # `struct landlock_path_beneath_attr`, which is packed.
        system_call(ADD_RULE, ruleset, PATH_BENEATH, buffer(struct.pack("=Qi", allowed, descriptor)), 0)
    except BaseException:  # closed and raised again
        os.close(descriptor)
        raise
    if path.is_relative_to("/proc"):
        # The rule is on an inode that /proc forgets under memory pressure unless somebody holds it.
        return descriptor
    os.close(descriptor)
    return None
