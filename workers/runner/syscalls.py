"""Numbers of the system calls that a runner may make, from the kernel's tables for x86_64 and aarch64 (Linux 6.10)."""

from __future__ import annotations

# What seccomp calls an architecture (linux/audit.h): the ELF machine, 64 bits, little-endian.
AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
# Later calls are answered as by a kernel that does not know them yet, so that a C library falls back on older ones.
NEWEST = 462
SECCOMP = {"x86_64": 317, "aarch64": 277}
_X86_64, _AARCH64 = 0, 1
_COLUMN = {"x86_64": _X86_64, "aarch64": _AARCH64}

_Row = tuple[int | None, int | None]

# Whatever the arguments. Paths are Landlock's business; nothing here changes owners, modes, times or attributes, makes
# a link, or looks at another process.
PLAIN: dict[str, _Row] = {
    # Files that are open
    "read": (0, 63), "write": (1, 64), "close": (3, 57), "fstat": (5, 80), "lseek": (8, 62), "pread64": (17, 67),
    "pwrite64": (18, 68), "readv": (19, 65), "writev": (20, 66), "sendfile": (40, 71), "flock": (73, 32),
    "fsync": (74, 82), "fdatasync": (75, 83), "ftruncate": (77, 46), "getdents": (78, None), "getdents64": (217, 61),
    "fstatfs": (138, 44), "readahead": (187, 213), "fadvise64": (221, 223), "sync_file_range": (277, 84),
    "fallocate": (285, 47), "preadv": (295, 69), "pwritev": (296, 70), "copy_file_range": (326, 285),
    "preadv2": (327, 286), "pwritev2": (328, 287), "close_range": (436, 436),
    # Files by their paths
    "open": (2, None), "stat": (4, None), "lstat": (6, None), "access": (21, None), "getcwd": (79, 17),
    "chdir": (80, 49), "fchdir": (81, 50), "rename": (82, None), "mkdir": (83, None), "rmdir": (84, None),
    "creat": (85, None), "unlink": (87, None), "readlink": (89, None), "umask": (95, 166), "statfs": (137, 43),
    "openat": (257, 56), "mkdirat": (258, 34), "newfstatat": (262, 79), "unlinkat": (263, 35), "renameat": (264, 38),
    "readlinkat": (267, 78), "faccessat": (269, 48), "renameat2": (316, 276), "statx": (332, 291),
    "openat2": (437, 437), "faccessat2": (439, 439),
    # Descriptors and waiting for them
    "poll": (7, None), "pipe": (22, None), "select": (23, None), "dup": (32, 23), "dup2": (33, None),
    "epoll_create": (213, None), "epoll_wait": (232, None), "epoll_ctl": (233, 21), "pselect6": (270, 72),
    "ppoll": (271, 73), "epoll_pwait": (281, 22), "eventfd": (284, None), "eventfd2": (290, 19),
    "epoll_create1": (291, 20), "dup3": (292, 24), "pipe2": (293, 59), "epoll_pwait2": (441, 441),
    # Memory
    "mmap": (9, 222), "mprotect": (10, 226), "munmap": (11, 215), "brk": (12, 214), "mremap": (25, 216),
    "msync": (26, 227), "mincore": (27, 232), "madvise": (28, 233), "mlock": (149, 228), "munlock": (150, 229),
    "membarrier": (324, 283), "mlock2": (325, 284), "map_shadow_stack": (453, 453), "mseal": (462, 462),
    # Threads of its own and their signals
    "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139), "sched_yield": (24, 124),
    "pause": (34, None), "getitimer": (36, 102), "alarm": (37, None), "setitimer": (38, 103), "exit": (60, 93),
    "wait4": (61, 260), "rt_sigpending": (127, 136), "rt_sigtimedwait": (128, 137), "rt_sigsuspend": (130, 133),
    "sigaltstack": (131, 132), "arch_prctl": (158, None), "futex": (202, 98), "set_tid_address": (218, 96),
    "restart_syscall": (219, 128), "exit_group": (231, 94), "waitid": (247, 95), "set_robust_list": (273, 99),
    "get_robust_list": (274, 100), "rseq": (334, 293), "futex_waitv": (449, 449), "futex_wake": (454, 454),
    "futex_wait": (455, 455), "futex_requeue": (456, 456),
    # Time
    "nanosleep": (35, 101), "gettimeofday": (96, 169), "times": (100, 153), "time": (201, None),
    "clock_gettime": (228, 113), "clock_getres": (229, 114), "clock_nanosleep": (230, 115),
    # What it is told about itself and the machine
    "getpid": (39, 172), "uname": (63, 160), "getrlimit": (97, 163), "getrusage": (98, 165), "sysinfo": (99, 179),
    "getuid": (102, 174), "getgid": (104, 176), "geteuid": (107, 175), "getegid": (108, 177), "getppid": (110, 173),
    "getpgrp": (111, None), "getgroups": (115, 158), "getresuid": (118, 148), "getresgid": (120, 150),
    "getpgid": (121, 155), "getsid": (124, 156), "capget": (125, 90), "sched_getparam": (143, 121),
    "sched_getscheduler": (145, 120), "sched_get_priority_max": (146, 125), "sched_get_priority_min": (147, 126),
    "gettid": (186, 178), "sched_getaffinity": (204, 123), "getcpu": (309, 168), "getrandom": (318, 278),
}  # fmt: skip

# Only with certain arguments: seccomp.py says which.
CHECKED: dict[str, _Row] = {
    "ioctl": (16, 29), "sendto": (44, 206), "recvfrom": (45, 207), "clone": (56, 220), "kill": (62, 129),
    "fcntl": (72, 25), "prctl": (157, 167), "sched_setaffinity": (203, 122), "tgkill": (234, 131),
    "prlimit64": (302, 261),
}  # fmt: skip
CLONE3 = 435


def numbers(table: dict[str, _Row], machine: str) -> dict[str, int]:
    """The calls of a table that an architecture has, by name; KeyError for an architecture that is not known."""
    column = _COLUMN[machine]
    return {name: number for name, row in table.items() if (number := row[column]) is not None}
