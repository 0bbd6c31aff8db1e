"""Runs a program that cannot outlive the process that started it: `leash.py PARENT_PID PROGRAM ARGUMENTS…`.

`sluice up` may be killed with SIGKILL, and then can end nothing itself; Linux does it instead (PR_SET_PDEATHSIG,
prctl(2)). The request survives exec, so this file turns itself into the program. It runs as a file of its own,
without site-packages, because the alternative, `preexec_fn`, is unsafe in a process with threads.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    """Become `arguments[1:]`, to be killed when the process `arguments[0]` ends."""
    parent, command = int(arguments[0]), arguments[1:]
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    # The parent may have ended before the request stood: then nobody would ever send the signal.
    if os.getppid() != parent:
        sys.exit(1)
    os.execvp(command[0], command)  # noqa: S606 - turning into the given program is this file's purpose


if __name__ == "__main__":
    main(sys.argv[1:])
