"""What the filter of system calls decides, also on architectures that the tests do not run on: it is followed."""

from __future__ import annotations

import errno
import itertools

import pytest

from workers.runner import seccomp, syscalls

PROCESS, CHANNEL = 4321, 7
REFUSED, UNKNOWN = seccomp.ERRNO | errno.EPERM, seccomp.ERRNO | errno.ENOSYS
# Threads as glibc starts them: CLONE_VM, FS, FILES, SIGHAND, THREAD, SYSVSEM, SETTLS, PARENT_SETTID, CHILD_CLEARTID.
THREAD = 0x3D0F00


def decided(machine: str, number: int, *arguments: int, architecture: int | None = None) -> int:
    """What the program returns for a call."""
    data = {seccomp.NUMBER: number, seccomp.ARCHITECTURE: architecture or syscalls.AUDIT[machine]}
    data |= {seccomp.ARGUMENTS + 8 * position: value & 0xFFFFFFFF for position, value in enumerate(arguments)}
    program = seccomp.program(machine, seccomp.rules(machine, PROCESS, CHANNEL))
    register = line = 0
    while True:
        code, if_true, if_false, constant = program[line]
        line += 1
        match code:
            case seccomp.LOAD:
                register = data.get(constant, 0)
            case seccomp.AND:
                register &= constant
            case seccomp.EQUAL:
                line += if_true if register == constant else if_false
            case seccomp.GREATER:
                line += if_true if register > constant else if_false
            case seccomp.RETURN:
                return constant


# execve, fork, vfork, socket, connect, ptrace, mount, chmod, bpf, memfd_create, where the architecture has them.
FORBIDDEN = {"x86_64": (59, 57, 58, 41, 42, 101, 165, 90, 321, 319), "aarch64": (221, 198, 203, 117, 40, 53, 280, 279)}
READ = {"x86_64": 0, "aarch64": 63}


@pytest.mark.parametrize("machine", list(syscalls.AUDIT))
def test_a_call_is_decided_by_its_number_and_its_arguments(machine: str):
    named = syscalls.numbers({**syscalls.PLAIN, **syscalls.CHECKED}, machine)

    assert decided(machine, READ[machine]) == seccomp.ALLOW
    assert {decided(machine, number) for number in FORBIDDEN[machine]} == {REFUSED}
    assert decided(machine, named["clone"], THREAD) == seccomp.ALLOW
    assert decided(machine, named["clone"], 17) == REFUSED  # a process: SIGCHLD
    assert decided(machine, named["clone"], THREAD | 0x10000000) == REFUSED
    assert decided(machine, named["sendto"], CHANNEL) == seccomp.ALLOW
    assert decided(machine, named["sendto"], CHANNEL + 1) == REFUSED
    assert decided(machine, named["tgkill"], PROCESS, 1, 6) == seccomp.ALLOW
    assert decided(machine, named["tgkill"], PROCESS + 1, 1, 6) == REFUSED
    assert decided(machine, named["fcntl"], 0, 8, PROCESS) == REFUSED
    assert decided(machine, named["ioctl"], 0, 0x5412) == REFUSED  # TIOCSTI: to type into a terminal
    assert {decided(machine, number) for number in (syscalls.CLONE3, 500, 0x40000000)} == {UNKNOWN}


@pytest.mark.parametrize(("machine", "other"), list(itertools.permutations(syscalls.AUDIT, 2)))
def test_a_call_of_another_architecture_ends_the_process(machine: str, other: str):
    architecture = syscalls.AUDIT[other]
    assert decided(machine, READ[machine], architecture=architecture) == seccomp.KILL_PROCESS


@pytest.mark.parametrize("machine", list(syscalls.AUDIT))
def test_no_number_stands_twice_and_no_program_is_too_long_for_the_kernel(machine: str):
    plain = list(syscalls.numbers(syscalls.PLAIN, machine).values())
    listed = plain + list(syscalls.numbers(syscalls.CHECKED, machine).values())
    assert len(set(listed)) == len(listed)
    program = seccomp.program(machine, seccomp.rules(machine, PROCESS, CHANNEL))
    assert len(program) < 4096
    assert max(max(if_true, if_false) for _, if_true, if_false, _ in program) < 256


def test_an_unknown_architecture_gets_no_filter():
    with pytest.raises(OSError, match="not known"):
        seccomp.restrict("riscv64", PROCESS, CHANNEL)
