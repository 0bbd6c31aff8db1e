"""The system calls that a process may make, as a seccomp filter: what is not listed is refused (seccomp(2))."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterable
from dataclasses import dataclass

from workers.runner import syscalls
from workers.runner.kernel import system_call

KILL_PROCESS, ERRNO, ALLOW = 0x80000000, 0x00050000, 0x7FFF0000
SET_MODE_FILTER, FLAG_TSYNC = 1, 1
# Classic BPF: load a word, compare with a constant, mask, return.
LOAD, EQUAL, GREATER, AND, RETURN = 0x20, 0x15, 0x25, 0x54, 0x06
# Offsets in `struct seccomp_data`.
NUMBER, ARCHITECTURE, ARGUMENTS = 0, 4, 16

CLONE_THREAD = 0x00010000
# Every flag that takes a new namespace: mount, cgroup, UTS, IPC, user, process, network, time.
CLONE_NAMESPACES = 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000 | 0x80
# TCGETS and TCGETS2 (is it a terminal?), TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX.
IOCTLS = (0x5401, 0x802C542A, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)
# F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_GETLK, F_SETLK, F_SETLKW, F_OFD_GETLK, F_OFD_SETLK, F_OFD_SETLKW,
# F_DUPFD_CLOEXEC. Not F_SETOWN and F_SETSIG: with them the kernel sends any signal to any process of the same user.
FCNTLS = (0, 1, 2, 3, 4, 5, 6, 7, 36, 37, 38, 1030)
# PR_GET_DUMPABLE, PR_SET_NAME, PR_GET_NAME, PR_GET_SECCOMP, PR_GET_NO_NEW_PRIVS, PR_SET_VMA.
PRCTLS = (3, 15, 16, 21, 39, 0x53564D41)

Instruction = tuple[int, int, int, int]  # code, steps over if true, steps over if false, constant


@dataclass(frozen=True, slots=True)
class Rule:
    """One call: allowed where argument `argument`, masked, is one of `values`; whatever they are, where None."""

    number: int
    argument: int = 0
    values: tuple[int, ...] | None = None
    mask: int = 0xFFFFFFFF


def restrict(machine: str, process: int, channel: int) -> None:
    """Confines this process, for good, to the calls of a runner; `process` is its id, `channel` its only socket.

    Needs no_new_privs. Raises OSError where the kernel has no seccomp filters, or the architecture is not known.
    """
    if machine not in syscalls.AUDIT:
        raise OSError(errno.EOPNOTSUPP, f"the architecture {machine} is not known")
    install(machine, program(machine, rules(machine, process, channel)))


def rules(machine: str, process: int, channel: int) -> list[Rule]:
    """What a runner needs: files, memory, threads, time, and the socket that it was given."""
    checked = syscalls.numbers(syscalls.CHECKED, machine)
    # Arguments are 64 bits wide, but the kernel itself reads only the lower half of these.
    found = [
        Rule(checked["sendto"], 0, (channel,)),
        Rule(checked["recvfrom"], 0, (channel,)),
        Rule(checked["clone"], 0, (CLONE_THREAD,), CLONE_THREAD | CLONE_NAMESPACES),
        Rule(checked["ioctl"], 1, IOCTLS),
        Rule(checked["fcntl"], 1, FCNTLS),
        Rule(checked["prctl"], 0, PRCTLS),
        # 0 is the caller itself; abort(3) signals its own thread.
        Rule(checked["prlimit64"], 0, (0, process)),
        Rule(checked["sched_setaffinity"], 0, (0, process)),
        Rule(checked["kill"], 0, (process,)),
        Rule(checked["tgkill"], 0, (process,)),
    ]
    return found + [Rule(number) for number in sorted(syscalls.numbers(syscalls.PLAIN, machine).values())]


def program(machine: str, allowed: Iterable[Rule]) -> list[Instruction]:
    """The filter. Another architecture's calls end the process; calls that are not allowed answer EPERM.

    Numbers above the known ones answer ENOSYS, among them those of x32, which have bit 30 set; so does clone3, whose
    flags lie in memory where a filter cannot look, so that the C library uses clone.
    """
    lines: list[Instruction] = [
        (LOAD, 0, 0, ARCHITECTURE),
        (EQUAL, 1, 0, syscalls.AUDIT[machine]),
        (RETURN, 0, 0, KILL_PROCESS),
        (LOAD, 0, 0, NUMBER),
        (GREATER, 0, 1, syscalls.NEWEST),
        (RETURN, 0, 0, ERRNO | errno.ENOSYS),
        (EQUAL, 0, 1, syscalls.CLONE3),
        (RETURN, 0, 0, ERRNO | errno.ENOSYS),
    ]
    for rule in allowed:
        lines += _lines(rule)
    return [*lines, (RETURN, 0, 0, ERRNO | errno.EPERM)]


def install(machine: str, lines: list[Instruction]) -> None:
    """Has the kernel run the filter on every call of every thread from now on. Raises OSError."""
    code = b"".join(struct.pack("=HBBI", *line) for line in lines)
    content = ctypes.create_string_buffer(code, len(code))
    # `struct sock_fprog`: a count and a pointer.
    described = struct.pack("@HP", len(lines), ctypes.addressof(content))
    buffer = ctypes.create_string_buffer(described, len(described))
    stray = system_call(syscalls.SECCOMP[machine], SET_MODE_FILTER, FLAG_TSYNC, buffer)
    if stray:
        raise OSError(errno.EBUSY, f"thread {stray} has another filter: {os.strerror(errno.EBUSY)}")


def _lines(rule: Rule) -> list[Instruction]:
    if rule.values is None:
        return [(EQUAL, 0, 1, rule.number), (RETURN, 0, 0, ALLOW)]
    body = [(LOAD, 0, 0, ARGUMENTS + 8 * rule.argument), (AND, 0, 0, rule.mask)]
    for value in rule.values:
        body += [(EQUAL, 0, 1, value), (RETURN, 0, 0, ALLOW)]
    body.append((RETURN, 0, 0, ERRNO | errno.EPERM))
    return [(EQUAL, 0, len(body), rule.number), *body]
