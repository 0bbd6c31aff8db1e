"""Short trials: what breaks under load loses nothing. `python -m tests.chaos` runs the long ones."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.chaos import report
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
from tests.chaos.matrix import Ground, all_faults, short_faults, standing_on
from tests.chaos.message_faults import EntriesRepeated, MessagesForged
from tests.chaos.process_faults import (
    ClockMoved,
    Everything,
    GatewaysKilled,
    OneWorkerStopped,
    RollingRestart,
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
    RepliesDropped,
)
from tests.chaos.rights_faults import ChildrenSlow, ClientDisabled, DiskFull, EndlessJob, KeyRotated
from tests.chaos.runner_faults import RunnerHungry, RunnerKilled
from tests.chaos.store_faults import ModelDamaged
from tests.chaos.trial import Plan, Trial, run_trial
from tests.chaos.upload_faults import GatewayKilledInAnswer, GatewayKilledInFileUpload, GatewayKilledInModelUpload

SEED = int(os.environ.get("SLUICE_CHAOS_SEED", "1"))
RATE = 40.0
JOBS = 200
# Each starts TensorFlow in several processes, one after the other, which alone takes minutes.
WITH_TENSORFLOW: frozenset[type[Fault]] = frozenset({RunnerKilled, RunnerHungry})
SHORT_TRIALS: list[tuple[Ground, list[Fault]]] = [
    (
        Ground(postgresql=True, append_only=True),
        [
            WorkersKilled(),
            RepliesDropped(2, Mode.DROP_REPLIES),
            RedisRestarted(1),
            RedisPaused(4),
            Network(6, Mode.BLACK_HOLE),
            DatabaseKilled(3),
            DatabaseReadOnly(3),
            DatabaseNetwork(3, Mode.SLOW),
            DatabaseSlow(4),
            PoolExhausted(5),
            ClockMoved(3, "worker", "+1h"),
            OneWorkerStopped(12),
            EntriesRepeated(),
            MessagesForged(),
        ],
    ),
    (
        Ground(postgresql=False, newer=True),
        [
            RedisFlushed(),
            RedisFull(2),
            RedisReadOnly(2),
            PasswordChanged(2),
            GatewaysKilled(),
            GatewayKilledInModelUpload(),
            GatewayKilledInFileUpload(),
            GatewayKilledInAnswer(),
            DatabaseLocked(8),
            DatabaseBusy(5),
            DiskFull(3),
            ModelDamaged(damage="flipped"),
            ModelDamaged(damage="truncated"),
            EndlessJob(),
            ChildrenSlow(),
            RollingRestart(),
            ClientDisabled(),
            KeyRotated(),
        ],
    ),
    (
        Ground(postgresql=True, newer=True, sentinels=True),
        [WorkerMainKilled(), Everything(), WorkersStopped(12), Failover()],
    ),
]


def tried(folder: Path, ground: Ground, faults: list[Fault]) -> Trial:
    """A trial in which every fault fits and nothing broke; with its figures printed, for who reads a failure."""
    with standing_on(ground, folder / "trial") as on:
        on.start(hang_limit_seconds=3)
        # Only root may mount a disk to fill.
        assert {type(fault) for fault in faults if not fault.fits(on)} <= ({DiskFull} if os.geteuid() else set())
        faults = [fault for fault in faults if fault.fits(on)]
        plan = Plan(SEED, JOBS, RATE, faults, pause_seconds=0.5, open_jobs=3)
        trial = run_trial(ground.name, on, plan, lambda _: None)
        written = report.write([trial], folder / "report", SEED, "now")
    sys.stdout.write(written.read_text())
    assert trial.troubles == []
    assert trial.verdict.violations == []
    assert report.late(trial) == []
    assert trial.verdict.accepted >= JOBS
    assert trial.verdict.answered == trial.verdict.accepted
    assert len(trial.faults) == len(faults)
    return trial


@pytest.mark.long
def test_c02_c05_c10_killed_children_an_emptied_redis_and_a_killed_leader_lose_nothing(tmp_path: Path) -> None:
    trial = tried(tmp_path, Ground(postgresql=False), short_faults())
    assert trial.verdict.refused == trial.verdict.unresolved == 0
    assert (tmp_path / "report" / "trial-1.svg").stat().st_size > 0


@pytest.mark.debian
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("ground", "faults"),
    SHORT_TRIALS,
    ids=[
        "c02-c03-c04-c06-c08-c11-c12-c14-c21-c22-c23",
        "c07-c09-c10-c11-c12-c13-c15-c17-c18-c19-c20-c24",
        "c02-c21-failover",
    ],
)
def test_short_faults_lose_nothing_on(tmp_path: Path, ground: Ground, faults: list[Fault]) -> None:
    tried(tmp_path, ground, faults)


def test_every_fault_comes_in_a_short_trial() -> None:
    short = {type(fault) for faults in (short_faults(), *(faults for _, faults in SHORT_TRIALS)) for fault in faults}
    assert short == {type(fault) for fault in all_faults(long=True)} - WITH_TENSORFLOW
