"""One trial: an installation under load, one fault after the other, and the proof that nothing was lost."""

from __future__ import annotations

import contextlib
import json
import math
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from sqlalchemy import func, select

from model_store.database import transaction
from model_store.errors import DatabaseUnavailable
from tests.chaos.checker import Verdict, check
from tests.chaos.fault import Fault
from tests.chaos.footprints import Sample, Scales
from tests.chaos.history import Event, Journal, Kept, Seen, read
from tests.chaos.history import Fault as FaultEvent
from tests.chaos.installation import Installation
from tests.chaos.recorder import WAVE_SECONDS, Orders
from workers.tables import Job, JobResult

# After a fault, its jobs have this long until the next one begins.
RECOVERY_SECONDS = 60
LOOK_SECONDS = 0.25
LOOKED_AT = 60
WARM_UP_SECONDS = 2


@dataclass(frozen=True, slots=True)
class Plan:
    """What a trial does; at least `jobs` are submitted, and as many more as fit into the faults."""

    seed: int
    jobs: int
    rate: float
    faults: Iterable[Fault]
    # Faults begin only within this time.
    seconds: float = math.inf
    slow_share: float = 0.05
    pause_seconds: float = 3.0
    # So many jobs shall be open when a fault begins.
    open_jobs: int = 12
    patience_seconds: float = 120.0


@dataclass(slots=True)
class Trial:
    """What came of a trial; `faults` did begin and end."""

    name: str
    verdict: Verdict
    folder: Path
    seconds: float
    faults: list[FaultEvent] = field(default_factory=list)
    # What a fault itself found wrong.
    troubles: list[str] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)

    def events(self) -> Iterator[Event]:
        for name in ("callers.jsonl", "rows.jsonl", "faults.jsonl"):
            yield from read(self.folder / name)


class Recording:
    """The recorder's process, and how far it said it is."""

    def __init__(self, orders: Orders) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.recorder"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdin is not None
        with self.process.stdin as pipe:
            pipe.write(orders.to_json())
        self.progress = {"asked": 0, "accepted": 0, "refused": 0, "ended": 0}
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as pipe:
            for said in pipe:
                self.progress = json.loads(said)

    def finish(self, seconds: float) -> None:
        """Let it submit no more, and wait until it has seen all ends."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(seconds)
        finally:
            self.process.kill()
            self.process.wait()
            self._thread.join(5)
        assert self.process.returncode == 0, f"the recorder ended with {self.process.returncode}"


class Lookout(threading.Thread):
    """Looks at rows of jobs as they change: their fences are to be seen nowhere else."""

    def __init__(self, on: Installation, journal: Journal) -> None:
        super().__init__(name="lookout", daemon=True)
        self._on = on
        self._journal = journal
        self._ends = threading.Event()

    def run(self) -> None:
        while not self._ends.wait(LOOK_SECONDS):
            with contextlib.suppress(DatabaseUnavailable):
                self.look()

    def look(self) -> None:
        columns = (Job.id, Job.state, Job.attempt, Job.fence, Job.error_code)
        newest = select(*columns).order_by(Job.number.desc()).limit(LOOKED_AT)
        running = select(*columns).where(Job.state == "running").limit(LOOKED_AT)
        since = time.time()
        with transaction(self._on.sessions, write=False) as session:
            rows = {*session.execute(newest), *session.execute(running)}
        at = time.time()
        for name, state, attempt, fence, code in rows:
            self._journal.note(Seen(since, at, name, state, attempt, fence, code=code))

    def close(self) -> None:
        self._ends.set()
        self.join(30)
        self._journal.close()


def run_trial(name: str, on: Installation, plan: Plan, tell: Callable[[str], None]) -> Trial:
    """Run a plan on a started installation; what was seen is in its folder afterwards."""
    client_id, secret = on.client("recorder", "double", "slow")
    orders = Orders(
        urls=on.urls, client_id=client_id, secret=secret, journal=str(on.histories / "callers.jsonl"), seed=plan.seed,
        rate=plan.rate, jobs=sys.maxsize, slow_share=plan.slow_share, patience_seconds=plan.patience_seconds,
    )  # fmt: skip
    began = time.monotonic()
    lookout = Lookout(on, Journal(on.histories / "rows.jsonl"))
    recording = Recording(orders)
    lookout.start()
    troubles: list[str] = []
    scales = Scales(on)
    scales.start()
    try:
        faults = list(_faults(on, plan, recording, tell, troubles))
        while recording.progress["accepted"] < plan.jobs and recording.process.poll() is None:
            tell(_line(name, recording, "submitting the rest"))
            time.sleep(0.5)
        tell(_line(name, recording, "waiting for the last ends"))
    finally:
        recording.finish(2 * plan.patience_seconds)
        lookout.close()
        scales.close()
    troubles += [f"left running: {command}" for command in on.orphans()]
    _write(on.histories / "faults.jsonl", faults)
    with (on.histories / "footprints.jsonl").open("w") as file:
        file.writelines(json.dumps(asdict(sample)) + "\n" for sample in scales.samples)
    rows = list(kept(on))
    _write(on.histories / "kept.jsonl", rows)
    trial = Trial(name, Verdict(), on.histories, time.monotonic() - began, faults, troubles, scales.samples)
    trial.verdict = check([*trial.events(), *rows])
    return trial


def _faults(
    on: Installation, plan: Plan, recording: Recording, tell: Callable[[str], None], troubles: list[str]
) -> Iterator[FaultEvent]:
    chance = random.Random(plan.seed)  # noqa: S311 - repeatable, not secret
    time.sleep(WARM_UP_SECONDS)
    until = time.monotonic() + plan.seconds
    for number, fault in enumerate(plan.faults, 1):
        if recording.process.poll() is not None or time.monotonic() > until:
            return
        tell(_line(f"fault {number}", recording, f"{fault.case} {fault.name}"))
        yield bring_about(fault, on, plan.open_jobs, chance, troubles)
        time.sleep(plan.pause_seconds)


def bring_about(
    fault: Fault, on: Installation, open_jobs: int, chance: random.Random, troubles: list[str]
) -> FaultEvent:
    """Break something, mend it, and wait until the jobs that were accepted by then have ended, or should have."""
    begin = time.time()
    try:
        fault.prepare(on)
        wait_for_work(on, open_jobs)
        begin = time.time()
        fault.begin(on, chance)
        if fault.seconds and not fault.over:
            time.sleep(fault.seconds)
    except Exception as error:  # noqa: BLE001 - whatever it is, the run goes on, and its report says so
        troubles.append(f"{fault.case} {fault.name}: {type(error).__name__}: {error}")
    try:
        fault.end(on)
    except Exception as error:  # noqa: BLE001 - as above
        troubles.append(f"{fault.case} {fault.name}: it could not be ended: {type(error).__name__}: {error}")
    end = time.time()
    until = time.monotonic() + RECOVERY_SECONDS
    while time.monotonic() < until:
        with contextlib.suppress(DatabaseUnavailable):
            if on.open_jobs(accepted_before=end) == 0:
                break
        time.sleep(0.1)
    return FaultEvent(fault.case, fault.name, begin, end)


def wait_for_work(on: Installation, jobs: int) -> None:
    """Wait for a wave of submits: what breaks shall meet jobs that wait and jobs that run."""
    until = time.monotonic() + 2 * WAVE_SECONDS
    while time.monotonic() < until:
        with contextlib.suppress(DatabaseUnavailable):
            if on.open_jobs() >= jobs:
                return
        time.sleep(0.02)


def kept(on: Installation) -> Iterator[Kept]:
    """What the database holds in the end of the recorder's client."""
    results = select(func.count()).select_from(JobResult).where(JobResult.job == Job.number).scalar_subquery()
    query = select(Job.id, Job.state, results, Job.result_stored).where(Job.client_id == _recorder(on))
    with transaction(on.sessions, write=False) as session:
        for name, state, count, stored in session.execute(query):
            yield Kept(name, state, count + int(stored))


def _recorder(on: Installation) -> str:
    return on.client_ids["recorder"]


def _write(path: Path, events: Sequence[Event]) -> None:
    journal = Journal(path)
    for event in events:
        journal.note(event)
    journal.close()


def _line(where: str, recording: Recording, what: str) -> str:
    said = recording.progress
    return f"{where}: {said['accepted']:,} accepted, {said['ended']:,} ended; {what}"
