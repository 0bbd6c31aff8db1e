"""The child side of a runner: `python -m workers.runner <descriptor> <limits> <user>`, started by process.py."""

from __future__ import annotations

import socket
import sys
from collections.abc import Mapping
from pathlib import Path

import workers
from workers.runner import lockdown
from workers.runner.identity import Identity
from workers.runner.limits import Limits
from workers.runner.lockdown import Place


def main(commands: Mapping[str, str] | None = None) -> None:
    """Tell the parent how far this process is locked down, then answer calls on the inherited socket until it closes.

    `commands` replaces the product's list.
    """
    descriptor, limits, wanted = int(sys.argv[1]), Limits.from_json(sys.argv[2]), Identity.parse(sys.argv[3])
    limits.apply()
    with socket.socket(fileno=descriptor) as channel:
        place = Place(Path(workers.__file__).parents[1], Path.cwd().parent, descriptor, sys.stdin.fileno())
        got = lockdown.enter(place, wanted)

        # Only now: these import numpy, whose libraries start threads and map memory.
        from workers.runner.calls import serve
        from workers.runner.commands import COMMANDS
        from workers.runner.frames import encode, send

        send(channel, encode({"lockdown": got.to_json()}, {}))
        serve(channel, COMMANDS if commands is None else commands, limits.answer_bytes)


if __name__ == "__main__":
    main()
