"""Commands that try to get out of a runner, executed as `python -m tests.lockdown_commands`; all but harmless ones.

Whatever succeeds does no damage: signal 0, attributes set to what they are, empty calls.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import inspect
import mmap
import os
import signal
import socket
import struct
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from model_store.signature import Tensors
from tests.runner_commands import TEST_COMMANDS
from workers.runner.__main__ import main
from workers.runner.commands import COMMANDS

State = dict[str, Any]
Answer = tuple[State, Tensors]
Attempt = Callable[..., object]

libc = ctypes.CDLL(None, use_errno=True)
X86_64 = os.uname().machine == "x86_64"


def called(result: int) -> int:
    if result == -1:
        raise OSError(ctypes.get_errno(), "refused")
    return result


def raw(x86_64: int, aarch64: int, *arguments: object) -> int:
    return called(libc.syscall(ctypes.c_long(x86_64 if X86_64 else aarch64), *arguments))


def fork() -> int:
    child = os.fork()
    if child == 0:
        os._exit(0)
    return child


def run_from_memory() -> None:
    descriptor = os.memfd_create("program")
    os.write(descriptor, b"#!/bin/sh\nexit 0\n")
    os.execve(descriptor, ["program"], {})  # noqa: S606 - it must not come to that


def pass_a_descriptor(channel: int) -> None:
    with socket.socket(fileno=os.dup(channel)) as copy:
        copy.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", 0))])


def send_to_another_descriptor() -> int:
    return called(libc.send(0, b"x", 1, 0))


def read_parent(name: str) -> bytes:
    return Path(f"/proc/{os.getppid()}/{name}").read_bytes()


def own(descriptor: int, command: int) -> None:
    fcntl.fcntl(descriptor, command, os.getppid())


def own_by_ioctl(channel: int) -> None:
    fcntl.ioctl(channel, 0x8901, struct.pack("i", os.getppid()))


def bind_port() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))


def connect(port: int) -> None:
    with socket.socket() as caller:
        caller.connect(("127.0.0.1", port))


OUT: dict[str, Attempt] = {
    # Processes
    "fork": fork,
    "vfork": lambda: os.posix_spawn("/bin/true", ["true"], {}),
    "clone3": lambda: raw(435, 435, 0, 0),
    "exec": lambda: os.execv("/bin/true", ["true"]),  # noqa: S606 - likewise
    "exec_from_memory": run_from_memory,
    "session": lambda: os.setsid(),
    # The network
    "inet": lambda: socket.socket(),
    "inet6": lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM),
    "unix": lambda: socket.socket(socket.AF_UNIX),
    "netlink": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0),
    "socketpair": lambda: socket.socketpair(),
    "bind": bind_port,
    "connect": connect,
    "pass_a_descriptor": pass_a_descriptor,
    "send_elsewhere": send_to_another_descriptor,
    # Files
    "read_hostname": lambda: Path("/etc/hostname").read_bytes(),
    "read_passwd": lambda: Path("/etc/passwd").read_bytes(),
    "read_neighbour": lambda neighbour: (Path(neighbour) / "upload.keras").read_bytes(),
    "list_neighbour": lambda neighbour: os.listdir(neighbour),
    "list_scratch": lambda neighbour: os.listdir(Path(neighbour).parents[1]),
    "read_store": lambda stored: Path(stored).read_bytes(),
    "read_source": lambda source: (Path(source) / "pyproject.toml").read_bytes(),
    "list_root": lambda: os.listdir("/"),
    "list_source": lambda source: os.listdir(source),
    "write_neighbour": lambda neighbour: (Path(neighbour) / "planted").write_bytes(b""),
    "write_store": lambda stored: Path(stored).write_bytes(b"x"),
    "write_above": lambda neighbour: (Path(neighbour).parents[2] / "planted").write_bytes(b""),
    "write_shared_memory": lambda: Path("/dev/shm/sluice-planted").write_bytes(b""),  # noqa: S108 - likewise
    "write_package": lambda source: (Path(source) / "workers" / "planted.py").write_bytes(b""),
    "write_beside": lambda: Path("../planted").write_bytes(b""),
    "rename_out": lambda neighbour: Path("legit").rename(Path(neighbour) / "planted"),
    "truncate": lambda stored: os.truncate(stored, 0),
    "chmod": lambda stored: os.chmod(stored, 0o600),
    "chown": lambda stored: os.chown(stored, -1, -1),
    "utime": lambda stored: os.utime(stored),
    "set_attribute": lambda stored: os.setxattr(stored, "user.planted", b"x"),
    "hard_link": lambda stored: os.link(stored, "linked"),
    "symbolic_link": lambda stored: os.symlink(stored, "linked"),
    "pipe_in_the_way": lambda: os.mkfifo("pipe"),
    "device": lambda: os.mknod("device"),
    "watch": lambda: called(libc.inotify_init1(0)),
    "by_handle": lambda: called(libc.open_by_handle_at(-1, None, 0)),
    # Other processes
    "environment_of_parent": lambda: read_parent("environ"),
    "command_of_parent": lambda: read_parent("cmdline"),
    "memory_of_parent": lambda: read_parent("maps"),
    "environment_of_init": lambda: Path("/proc/1/environ").read_bytes(),
    "list_processes": lambda: os.listdir("/proc"),
    "signal_parent": lambda: os.kill(os.getppid(), 0),
    "signal_group": lambda: os.killpg(0, 0),
    "signal_thread": lambda: raw(234, 131, os.getppid(), os.getppid(), 0),
    "queue_signal": lambda: raw(129, 138, os.getppid(), 0, struct.pack("=3i116x", 0, 0, -1)),
    "signal_by_owner": lambda: own(0, fcntl.F_SETOWN),
    "signal_chosen": lambda: fcntl.fcntl(0, fcntl.F_SETSIG, signal.SIGUSR1),
    "signal_by_ioctl": own_by_ioctl,
    "process_descriptor": lambda: os.pidfd_open(os.getppid()),
    "trace": lambda: called(libc.ptrace(0x4206, os.getppid(), None, None)),
    "read_memory": lambda: called(libc.process_vm_readv(os.getppid(), None, 0, None, 0, 0)),
    "compare": lambda: raw(312, 272, os.getpid(), os.getpid(), 0, 0, 0),
    "limit_parent": lambda: called(libc.prlimit(os.getppid(), 7, None, ctypes.create_string_buffer(16))),
    "slow_parent": lambda: os.setpriority(os.PRIO_PROCESS, os.getppid(), 19),
    "pin_parent": lambda: os.sched_setaffinity(os.getppid(), os.sched_getaffinity(0)),
    # The kernel
    "unshare_user": lambda: called(libc.unshare(0x10000000)),
    "unshare_mount": lambda: called(libc.unshare(0x00020000)),
    "setns": lambda: called(libc.setns(0, 0)),
    "mount": lambda: called(libc.mount(b"none", b".", b"tmpfs", 0, None)),
    "chroot": lambda: os.chroot("."),
    "become_root": lambda: os.setresuid(0, 0, 0),
    "personality": lambda: called(libc.personality(0x0040000)),
    "memory_file": lambda: os.memfd_create("x"),
    "io_uring": lambda: raw(425, 425, 1, bytes(120)),
    "bpf": lambda: raw(321, 280, 0, bytes(120), 120),
    "keys": lambda: raw(250, 219, 0, -3, 0),
    "performance": lambda: raw(298, 241, bytes(128), 0, -1, -1, 0),
    "page_faults": lambda: raw(323, 282, 1),
    "shared_memory": lambda: called(libc.shmget(0, 4096, 0o1600)),
    "seccomp": lambda: raw(317, 277, 2, 0, bytes(4)),
    "landlock": lambda: raw(444, 444, None, 0, 1),
    "dumpable": lambda: called(libc.prctl(4, 0, 0, 0, 0)),
    "other_abi": lambda: raw(0x40000000 + 39, 1000),
    "call_of_tomorrow": lambda: raw(900, 900),
}


def legitimate() -> dict[str, bool]:
    """What a model's libraries do all the time."""
    Path("folder").mkdir()
    Path("folder/a").write_bytes(b"x" * 5000)
    Path("folder/a").rename(Path(os.environ["TMPDIR"]) / "a")
    (Path(os.environ["TMPDIR"]) / "a").rename("legit")
    with open("legit", "r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        fcntl.flock(file, fcntl.LOCK_EX)
        mapped[0:1] = b"y"
        file.truncate(10)
    os.rmdir("folder")
    answers: list[int] = []
    thread = threading.Thread(target=answers.append, args=(1,))
    thread.start()
    thread.join()
    Path(os.devnull).write_bytes(b"x")
    return {
        "file": Path("legit").read_bytes() == b"y" + b"x" * 9,
        "thread": answers == [1],
        "home": (Path.home() / "cache").write_bytes(b"x") == 1,
        "random": len(Path("/dev/urandom").open("rb").read(4)) == 4,
        "self": "VmRSS" in Path("/proc/self/status").read_text(),
        "machine": bool(Path("/proc/meminfo").read_text()) and bool(Path("/proc/cpuinfo").read_text()),
        "signal_to_itself": os.kill(os.getpid(), 0) is None,
    }


def get_out(_held: State, arguments: State, _tensors: Tensors) -> Answer:
    """Tries everything with the arguments that it takes; answers what is legitimate, and each attempt's outcome."""
    known = {**arguments, "channel": int(sys.argv[1])}
    allowed = legitimate()
    return {"legitimate": allowed, "outcomes": {name: _outcome(attempt, known) for name, attempt in OUT.items()}}, {}


def _outcome(attempt: Attempt, known: State) -> str:
    try:
        attempt(*(known[name] for name in inspect.signature(attempt).parameters))
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, "unknown")
    return "done"


def call_as_a_foreign_machine(_held: State, _arguments: State, _tensors: Tensors) -> Answer:
    """Asks for its process id as a 32-bit program would; where there is no such way, dies as if it had."""
    if not X86_64:
        os.kill(os.getpid(), signal.SIGSYS)
    with mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC) as page:
        page.write(b"\xb8\x14\x00\x00\x00\xcd\x80\xc3")  # mov eax, 20; int 0x80; ret
        address = ctypes.addressof(ctypes.c_char.from_buffer(page))
        return {"pid": ctypes.CFUNCTYPE(ctypes.c_int)(address)()}, {}


def load_layer(_held: State, arguments: State, _tensors: Tensors) -> Answer:
    """Does what a Keras file can make Keras do: load the SavedModel at a path that the file names."""
    import keras

    return {"name": keras.layers.TFSMLayer(arguments["path"], call_endpoint="serving_default").name}, {}


LOCKDOWN_COMMANDS = {
    command.__name__: f"tests.lockdown_commands:{command.__name__}"
    for command in (get_out, call_as_a_foreign_machine, load_layer)
}

if __name__ == "__main__":
    main({**COMMANDS, **TEST_COMMANDS, **LOCKDOWN_COMMANDS})
