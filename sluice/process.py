"""One process of the system, by its kind: `python -m sluice.process gateway`, or `worker`, `prepare-worker` and so on.

It imports what this process needs and nothing of the command line: typer, rich and httpx would stay in its memory for
as long as it lives, 8 MB of each gateway, and take 0.1 s of its start.
"""

from __future__ import annotations

import ctypes
import os
import sys
from typing import NoReturn

from model_store.errors import SluiceError
from sluice.failures import CommandFailed

# Of malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
ARENAS = 2
MAPPED_BYTES = 1024**2
TRIMMED_BYTES = 8 * 1024**2


# Imported where they are needed: each process carries its own parts, not those of the other kinds.
def gateway() -> None:
    from gateway.server import serve
    from gateway.settings import GatewaySettings
    from sluice.configuration import settings_of

    serve(settings_of(GatewaySettings))


def worker() -> None:
    from sluice.configuration import settings_of
    from workers.settings import WorkerSettings
    from workers.worker import serve

    serve(settings_of(WorkerSettings))


def prepare_worker() -> None:
    from sluice.configuration import settings_of
    from workers.settings import WorkerSettings
    from workers.worker import prepare

    prepare(settings_of(WorkerSettings))


def background_worker() -> None:
    from sluice.configuration import settings_of
    from workers.background import serve
    from workers.settings import BackgroundSettings

    serve(settings_of(BackgroundSettings))


KINDS = {
    "gateway": gateway,
    "worker": worker,
    "prepare-worker": prepare_worker,
    "background-worker": background_worker,
}


def command_of(kind: str) -> list[str]:
    """The command that runs such a process."""
    # -P: the folder in which it runs, a data folder perhaps, is no place to import from.
    return [sys.executable, "-P", "-m", "sluice.process", kind]


def become(kind: str) -> NoReturn:
    """Turn this process into one of this kind, with the same number, environment and open files."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, command_of(kind))  # noqa: S606 - turning into our own program is the purpose


def give_memory_back() -> None:
    """Let what is freed go back to the system, where the C library is glibc.

    It gives each thread an arena and keeps there what was freed: after 60,000 jobs a prediction process held 7 MB more.
    And it learns from the first large block that is freed to keep others of its size: with 500 models that take turns
    in 1 GiB, a process held 1.5 GiB, and holds 0.63 GiB where blocks of 1 MiB and more are always mapped.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_ARENA_MAX, ARENAS)
        mallopt(M_MMAP_THRESHOLD, MAPPED_BYTES)
        mallopt(M_TRIM_THRESHOLD, TRIMMED_BYTES)


def main(arguments: list[str]) -> None:
    """Run until told to stop; what is expected to go wrong ends with its reason and exit code 1."""
    if len(arguments) != 1 or arguments[0] not in KINDS:
        sys.exit(f"usage: python -m sluice.process {'|'.join(KINDS)}")
    give_memory_back()
    try:
        KINDS[arguments[0]]()
    except (CommandFailed, SluiceError) as error:
        sys.exit(f"Error: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])
