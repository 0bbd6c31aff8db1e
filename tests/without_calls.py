"""Runs a command where system calls are missing: `python -m tests.without_calls unshare,landlock COMMAND...`."""

from __future__ import annotations

import errno
import os
import sys

from workers.runner import kernel, landlock, seccomp, syscalls

MACHINE = os.uname().machine
NUMBERS = {
    "landlock": landlock.CREATE_RULESET,
    "seccomp": syscalls.SECCOMP[MACHINE],
    "unshare": {"x86_64": 272, "aarch64": 97}[MACHINE],
}

if __name__ == "__main__":
    missing = [NUMBERS[name] for name in sys.argv[1].split(",") if name]
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    lines = [(seccomp.LOAD, 0, 0, seccomp.NUMBER)]
    for number in missing:
        lines += [(seccomp.EQUAL, 0, 1, number), (seccomp.RETURN, 0, 0, seccomp.ERRNO | errno.ENOSYS)]
    seccomp.install(MACHINE, [*lines, (seccomp.RETURN, 0, 0, seccomp.ALLOW)])
    os.execvp(sys.argv[2], sys.argv[2:])  # noqa: S606 - the command that was asked for
