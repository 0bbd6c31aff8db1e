"""The child side of a runner, `python -m workers.runner <descriptor> <limits>`: started by workers/runner/process."""

from __future__ import annotations

import socket
import sys
from collections.abc import Mapping

from workers.runner import lifeline
from workers.runner.limits import Limits


def main(commands: Mapping[str, str] | None = None) -> None:
    """Answer calls on the inherited socket until the parent closes it; `commands` replaces the product's list."""
    descriptor, limits = int(sys.argv[1]), Limits.from_json(sys.argv[2])
    limits.apply()
    lifeline.hold(sys.stdin.fileno())

    # Only under the limits: these import numpy, whose libraries start threads and map memory.
    from workers.runner.calls import serve
    from workers.runner.commands import COMMANDS

    with socket.socket(fileno=descriptor) as channel:
        serve(channel, COMMANDS if commands is None else commands, limits.answer_bytes)


if __name__ == "__main__":
    main()
