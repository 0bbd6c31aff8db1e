"""A model of jobs beside the rows: what each must say after each event, and the events that several rules share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hypothesis.stateful import RuleBasedStateMachine
from sqlalchemy import select

from auth.standing import Standing
from model_store.database import clock_ms, transaction
from tests.job_world import FAR_MS, MODEL, UNFINISHED, VERSION, Expected, World
from workers import jobs, layout
from workers.drafts import CHUNK, FILE, NO_LANE, Kind
from workers.tables import Job


class JobModel(RuleBasedStateMachine):
    """The model of one example, whose rows and lanes lie in `world`."""

    world: World

    def __init__(self) -> None:
        super().__init__()
        self.world.empty()
        self.jobs: dict[int, Expected] = {}
        self.runs: list[tuple[str, jobs.Claimed]] = []
        self.ends: dict[int, tuple[object, ...]] = {}
        self.fences: dict[int, int] = {}
        self.allowed = [True, True]
        self.last_number = 0
        self.moment = 0
        self.moments: dict[bytes, int] = {}

    def of(self, kind: Kind) -> list[Expected]:
        return [job for job in self.jobs.values() if job.kind == kind]

    def any_job(self, which: int) -> Expected:
        found = list(self.jobs.values())
        return found[-1 - which % len(found)]

    def known(self, numbers: Iterable[int]) -> list[Expected]:
        return [self.jobs[number] for number in sorted(set(numbers)) if number in self.jobs]

    def in_lane(self, name: str) -> list[Expected]:
        return [job for job in self.jobs.values() if job.lane == name]

    def permitted(self, job: Expected) -> bool:
        return self.allowed[self.world.lanes.index(job.draft.lane)]

    def parent_ended(self, chunk: Expected) -> bool:
        parent = self.jobs.get(chunk.draft.parent or 0)
        return parent is None or parent.state not in UNFINISHED

    def accept(self, drafts: Sequence[jobs.Draft], ahead: int, *, lost: bool = False) -> None:
        lane = drafts[0].lane
        with transaction(self.world.sessions) as session:
            laid_out = jobs.accept(session, drafts, ahead)
            found = session.execute(select(Job.id, Job.number).where(Job.id.in_([one.id for one in drafts])))
            numbers = dict(iter(found))
        new = [Expected(one, numbers[one.id], NO_LANE if one.kind == FILE else lane.name) for one in drafts]
        before = [job for job in self.in_lane(lane.name) if job.state == "queued"]
        # None is laid out ahead of an older one that still waits.
        room = 0 if not all(job.laid_out for job in before) else max(0, ahead - len(before))
        expected = [job for job in new if job.kind != FILE][:room]
        assert laid_out == [(lane, job.number) for job in expected]
        for job in new:
            assert job.number > self.last_number, "a number is never given again"
            self.last_number = job.number
            self.jobs[job.number] = job
            job.laid_out = job in expected
        self.laid_out(lane.name, [job.number for job in expected], lost=lost)

    def laid_out(self, lane: str, numbers: Sequence[int], *, lost: bool = False) -> None:
        """Put entries into the lane, at a moment of their own: rows and entries of one example are the same again."""
        self.moment += 1
        self.world.change(numbers, dispatched_at=self.moment)
        for entry in () if lost else self.world.lay_out(lane, numbers):
            self.moments[entry] = self.moment

    def claim(self, numbers: Sequence[int], worker: str) -> None:
        due = [job for job in self.known(numbers) if job.due and job.kind != FILE]
        ended: list[str] = []
        with transaction(self.world.sessions) as session:
            claimed = jobs.claim(session, numbers, (MODEL, VERSION), worker, Standing(), ended)
        assert ended == [job.draft.id for job in due if not self.permitted(job)]
        self.taken(due, worker, claimed)

    def taken(self, due: Sequence[Expected], worker: str, claimed: Sequence[jobs.Claimed]) -> None:
        for job in due:
            job.taken(worker)
        permitted = [job for job in due if self.permitted(job)]
        told = [(run.number, run.id, run.fence, run.attempt, run.max_attempts, run.input) for run in claimed]
        assert told == [
            (job.number, job.draft.id, job.fence, job.attempt, job.draft.max_attempts, b"input") for job in permitted
        ]
        self.end([job for job in due if not self.permitted(job)], "canceled")
        self.runs += [(worker, run) for run in claimed]

    def finish(self, run: jobs.Claimed, code: str | None) -> None:
        job = self.jobs.get(run.number)
        result = None if code else b"%d by fence %d" % (run.number, run.fence)
        with transaction(self.world.sessions) as session:
            written = jobs.finish(session, [jobs.Ending(run.number, run.fence, result, error_code=code)])
        if job is None or not job.holds(run):
            assert written == [], "who lost its fence writes nothing"
            return
        assert written == [run.number]
        job.state = "failed" if code else "succeeded"
        job.dead = code in ("runner_crashed", "store_full")
        job.result, job.done = result, job.done if code else job.instances

    def end(self, ended: Sequence[Expected], state: str) -> None:
        unfinished = [job for job in ended if job.state in UNFINISHED]
        for job in unfinished:
            job.state = state
        files = [job.number for job in unfinished if job.kind == FILE]
        for chunk in self.of(CHUNK):
            if chunk.draft.parent in files and chunk.state in UNFINISHED:
                chunk.state = "canceled"

    def forgotten(self, job: Expected) -> None:
        del self.jobs[job.number]

    def leases_end(self, holding: Sequence[Expected]) -> None:
        running = [job for job in holding if job.state == "running"]
        self.world.change([job.number for job in running], lease_until=1)
        for job in running:
            job.lease_over = True

    def rest(self, resting: Sequence[Expected], since_ms: int) -> None:
        """See how long these rest, counted from a moment just before, and let no time pass until a rule says so."""
        with transaction(self.world.sessions) as session:
            until_ms = clock_ms(session)
            query = select(Job.number, Job.not_before).where(Job.number.in_([job.number for job in resting]))
            ends = dict(iter(session.execute(query)))
        for job in resting:
            pause_ms = (1000, 4000, 16000)[min(max(job.attempt, 1), 3) - 1]
            assert since_ms + pause_ms <= ends[job.number] <= until_ms + pause_ms
        self.world.change([job.number for job in resting], not_before=FAR_MS)

    def look_for_lost(self, name: str) -> None:
        """As the dispatcher does: what was laid out before the lane's oldest entry is not there any more."""
        entries = self.world.redis.xrange(self.world.keys.lane(name), count=1)
        before_ms = self.moments[entries[0][0]] if entries else FAR_MS
        lost = select(Job.number).where(Job.lane == name, Job.state == "queued", Job.dispatched_at < before_ms)
        with transaction(self.world.sessions) as session:
            numbers = list(session.scalars(lost))
            assert layout.take_back_lost(session, name, before_ms) == len(numbers)
        for job in self.known(numbers):
            job.laid_out = False
