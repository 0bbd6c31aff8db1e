"""The lifeline: a runner dies with its parent, also within a native call that holds the interpreter's lock."""

from __future__ import annotations

import fcntl
import os
import select
import signal


def hold(descriptor: int) -> None:
    """Have the kernel kill this process when the last writer of the pipe `descriptor` is gone.

    The parent holds the pipe's other end and never writes. PR_SET_PDEATHSIG would not do: it fires when the *thread*
    that started the runner ends. A thread here that reads the pipe would not do either: it may never get the
    interpreter's lock.
    """
    fcntl.fcntl(descriptor, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(descriptor, fcntl.F_SETFL, fcntl.fcntl(descriptor, fcntl.F_GETFL) | os.O_ASYNC)
    poll = select.poll()
    poll.register(descriptor, 0)
    if poll.poll(0):  # the parent died before the kernel was asked
        os.kill(os.getpid(), signal.SIGKILL)
