"""Calls to the kernel that Python's standard library does not wrap; each raises OSError where it is refused."""

from __future__ import annotations

import ctypes
import os

PR_SET_DUMPABLE, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 4, 24, 38

_libc = ctypes.CDLL(None, use_errno=True)


def system_call(number: int, *arguments: int | ctypes.Array[ctypes.c_char] | None) -> int:
    """Makes a system call by its number; buffers are passed by their address, None is a null pointer."""
    passed = [ctypes.c_long(argument) if isinstance(argument, int) else argument for argument in arguments]
    return _checked(_libc.syscall(ctypes.c_long(number), *passed))


def prctl(option: int, argument: int = 0) -> int:
    """prctl(2) with one argument; the three that are unused must be 0."""
    return _checked(_libc.prctl(option, *(ctypes.c_ulong(value) for value in (argument, 0, 0, 0))))


def unshare(flags: int) -> None:
    """Leaves the namespaces that `flags` (CLONE_NEW*) name for new ones; unshare(2)."""
    _checked(_libc.unshare(flags))


def capset(header: ctypes.Array[ctypes.c_char], data: ctypes.Array[ctypes.c_char]) -> None:
    """Sets this thread's capabilities; capset(2)."""
    _checked(_libc.capset(header, data))


def buffer(content: bytes) -> ctypes.Array[ctypes.c_char]:
    """A copy whose address can be passed to the kernel."""
    return ctypes.create_string_buffer(content, len(content))


def _checked(result: int) -> int:
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
