"""Rights that go while jobs wait, keys that change, jobs that kill, children that start slowly, disks that fill up."""

from __future__ import annotations

import contextlib
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from auth import clients
from model_store.database import transaction
from tests.chaos.callers import rows_of, signed_in, submit
from tests.chaos.fault import Fault
from tests.chaos.installation import Installation
from tests.chaos.process_faults import signalled

JOBS = 200
ENDLESS = 1e9


class ClientDisabled(Fault):
    """A client is disabled while 200 of its jobs wait: none of them runs five seconds later."""

    case = "C24"

    def begin(self, on: Installation, chance: random.Random) -> None:
        name = f"leaver-{chance.randrange(10**9)}"
        with contextlib.closing(signed_in(on, name, "slow")) as caller:
            for number in range(JOBS):
                submit(caller, "slow", float(number), 200.0)
        client_id = on.client_ids[name]
        with transaction(on.cluster.sessions) as session:
            clients.set_disabled(session, client_id, True)
        gone = on.clock()
        until = time.monotonic() + 60
        while rows := rows_of(on, client_id, "queued", "running"):
            assert time.monotonic() < until, f"{len(rows)} jobs of a disabled client are still open"
            time.sleep(0.2)
        late = [row.id for row in rows_of(on, client_id, "succeeded") if (row.started_at or 0) > 1000 * (gone + 5)]
        assert not late, f"{late} ran after their client was disabled"


class KeyRotated(Fault):
    """The signing key is called compromised and replaced."""

    case = "C24"

    def begin(self, on: Installation, chance: random.Random) -> None:  # noqa: ARG002 - there is one
        settings = on.members[on.names("gateway")[0]].settings
        command = [sys.executable, "-m", "sluice", "keys", "rotate", "--compromised"]
        environment = on.cluster.environment(**settings)
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr


class EndlessJob(Fault):
    """A job that hangs in native code kills whatever runs it, three times, and then is a dead letter."""

    case = "C17"

    def begin(self, on: Installation, chance: random.Random) -> None:
        with contextlib.closing(signed_in(on, f"poisoner-{chance.randrange(10**9)}", "poison")) as caller:
            job = submit(caller, "poison", 1.0, ENDLESS)
            until = time.monotonic() + 90
            while (found := caller.get(f"/v1/jobs/{job}").json())["state"] in ("queued", "running"):
                assert time.monotonic() < until, f"the poison job is still {found}"
                time.sleep(0.5)
        assert found["state"] == "failed", found
        assert found["error"]["code"] in ("worker_crashed", "model_quarantined"), found


class ChildrenSlow(Fault):
    """Children take six seconds to start, and all of them are killed."""

    case = "C19"

    def begin(self, on: Installation, chance: random.Random) -> None:  # noqa: ARG002 - the first worker
        member = on.members[on.names("worker")[0]]
        usual, member.command = member.command, [sys.executable, "-c", SLOW_START]
        try:
            on.restart(member.name)
        finally:
            member.command = usual
        on.wait_until_ready()
        signalled(on.children(member.name), signal.SIGKILL)


SLOW_START = """
import sys, time
from celery import signals
def slowly(**_):
    time.sleep(6)
signals.worker_process_init.connect(slowly, weak=False)
sys.argv = ["sluice", "worker"]
from sluice.cli import main
main()
"""


@dataclass(slots=True)
class DiskFull(Fault):
    """The disk of the model store, of SQLite, of logs and of scratch files is full."""

    case = "C13"
    filler: Path | None = field(default=None, init=False)

    def fits(self, on: Installation) -> bool:
        # Only on a disk of its own: the machine's is not ours to fill.
        return on.folder.is_mount()

    def begin(self, on: Installation, chance: random.Random) -> None:  # noqa: ARG002 - there is one
        self.filler = on.folder / "filler"
        with contextlib.suppress(OSError), self.filler.open("wb", buffering=0) as file:
            while file.write(bytes(shutil.disk_usage(on.folder).free or 4096)):
                continue

    def end(self, on: Installation) -> None:  # noqa: ARG002 - as it was begun
        if self.filler is not None:
            self.filler.unlink(missing_ok=True)
