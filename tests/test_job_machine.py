"""Jobs under any order of events: submitted, claimed, finished, canceled, crashed, lost and delivered twice.

A model says what each row must be after each event. Rows are on SQLite and PostgreSQL, lanes in a real Redis that is
wiped at times; time passes by changing rows.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule, run_state_machine_as_test

from auth import clients
from auth.grants import Action, GrantSpec, set_grants
from auth.scopes import Scope
from model_store.database import clock_ms, transaction
from tests.conftest import RedisServer
from tests.job_model import JobModel
from tests.job_world import FAR_MS, MODEL, UNFINISHED, World, draft
from tests.queue_kit import make_queue, worker_settings
from workers import jobs, layout
from workers.drafts import CHUNK, FILE, PREDICTION
from workers.tables import Job

# 10,000 examples in all, or as many as a build has time for. In rounds: hypothesis remembers each example of one.
ROUNDS, EXAMPLES = (10, 500) if os.environ.get("SLUICE_TEST_ALL") else (1, 6)
STEPS = 40
WORKERS = ("default:a:1", "default:b:1", "default:b:2")

WORKER = st.sampled_from(WORKERS)
# Most of what happens happens to one client, so that much happens to each of its jobs.
LANE = st.sampled_from([0, 0, 0, 1])
SELDOM = st.sampled_from([False, False, False, True])
ANY = st.integers(0, 30)
FEW = st.integers(1, 3)


class JobMachine(JobModel):
    """Each rule makes one event happen to the rows and to the model; the invariants compare them."""

    @initialize(attempts=FEW)
    def begin(self, attempts: int) -> None:
        """Each example begins with a job that runs, one that waits, and a file that runs and has a chunk."""
        self.submit(0, 1, attempts, 3, False)
        self.deliver(0, WORKERS[0], 1, True)
        self.submit(0, 1, attempts, 3, False)
        self.submit_file(0, attempts)
        self.claim_file(0, WORKERS[1])
        self.submit_chunk(0, attempts, 3)

    @rule(lane=LANE, count=FEW, attempts=FEW, ahead=st.integers(0, 3), lost=SELDOM)
    def submit(self, lane: int, count: int, attempts: int, ahead: int, lost: bool) -> None:
        """`lost`: the gateway dies before it laid anything out."""
        self.accept([draft(self.world.lanes[lane], PREDICTION, attempts) for _ in range(count)], ahead, lost=lost)

    @rule(lane=LANE, attempts=FEW)
    def submit_file(self, lane: int, attempts: int) -> None:
        self.accept([draft(self.world.lanes[lane], FILE, attempts)], 3)

    @precondition(lambda self: self.of(FILE))
    @rule(which=ANY, attempts=FEW, ahead=st.integers(0, 3))
    def submit_chunk(self, which: int, attempts: int, ahead: int) -> None:
        file = self.of(FILE)[which % len(self.of(FILE))]
        self.accept([draft(file.draft.lane, CHUNK, attempts, file.number)], ahead)

    @rule(lane=LANE, limit=st.integers(0, 5))
    def lay_out(self, lane: int, limit: int) -> None:
        name = self.world.lanes[lane].name
        queued = [job for job in self.in_lane(name) if job.state == "queued"]
        room = max(0, limit - sum(job.laid_out for job in queued))
        expected = [job for job in queued if not job.laid_out and not job.resting][:room]
        with transaction(self.world.sessions) as session:
            numbers = layout.lay_out(session, name, limit)
        assert numbers == [job.number for job in expected]
        for job in expected:
            job.laid_out = True
        self.laid_out(name, numbers)

    @rule(lane=LANE, worker=WORKER, most=FEW, settled=st.booleans())
    def deliver(self, lane: int, worker: str, most: int, settled: bool) -> None:
        """Where the entries are not settled, the worker dies before it could, or is slow."""
        name = self.world.lanes[lane].name
        entries = self.world.read(name, worker, most)
        self.claim([number for _, number in entries], worker)
        if settled:
            self.world.settle(name, entries)

    @rule(lane=LANE, worker=WORKER, settled=st.booleans())
    def redeliver(self, lane: int, worker: str, settled: bool) -> None:
        name = self.world.lanes[lane].name
        entries = self.world.read_again(name, worker)
        self.claim([number for _, number in entries], worker)
        if settled:
            self.world.settle(name, entries)

    @precondition(lambda self: self.jobs)
    @rule(lane=LANE, which=ANY)
    def forge_an_entry(self, lane: int, which: int) -> None:
        for entry in self.world.lay_out(self.world.lanes[lane].name, [self.any_job(which).number]):
            self.moments[entry] = self.moment

    @precondition(lambda self: self.of(FILE))
    @rule(which=ANY, worker=WORKER)
    def claim_file(self, which: int, worker: str) -> None:
        job = self.of(FILE)[which % len(self.of(FILE))]
        with transaction(self.world.sessions) as session:
            claimed = jobs.claim_file(session, job.number, worker)
        assert (claimed is not None) == (job.due and self.permitted(job))
        if job.due:
            self.taken([job], worker, [] if claimed is None else [claimed])

    @rule(worker=WORKER, done=st.integers(0, 1))
    def heartbeat(self, worker: str, done: int) -> None:
        believed = sorted({run.number for holder, run in self.runs if holder == worker})
        held = [job for job in self.known(believed) if job.state == "running" and job.worker == worker]
        with transaction(self.world.sessions) as session:
            assert jobs.renew(session, believed, worker, dict.fromkeys(believed[:1], done)) == {j.number for j in held}
        for job in held:
            job.lease_over = False
            job.done = done if job.number in believed[:1] else job.done

    @precondition(lambda self: self.runs)
    @rule(which=ANY)
    def succeed(self, which: int) -> None:
        self.finish(self.runs[-1 - which % len(self.runs)][1], None)

    @precondition(lambda self: self.runs)
    @rule(which=ANY, code=st.sampled_from(["prediction_failed", "input_invalid", "runner_crashed", "store_full"]))
    def fail(self, which: int, code: str) -> None:
        self.finish(self.runs[-1 - which % len(self.runs)][1], code)

    @precondition(lambda self: self.runs)
    @rule(which=ANY)
    def retry(self, which: int) -> None:
        _, run = self.runs[-1 - which % len(self.runs)]
        job = self.jobs.get(run.number)
        again = job is not None and job.holds(run) and job.attempt < job.draft.max_attempts
        with transaction(self.world.sessions) as session:
            since = clock_ms(session)
            assert jobs.retry(session, run) == again
        if job is not None and again:
            job.back(job.attempt, resting=True)
            self.rest([job], since)

    @precondition(lambda self: self.runs)
    @rule(which=ANY, done=st.integers(0, 3))
    def progress(self, which: int, done: int) -> None:
        _, run = self.runs[-1 - which % len(self.runs)]
        job = self.jobs.get(run.number)
        with transaction(self.world.sessions) as session:
            held = jobs.progress(session, run.number, run.fence, done, 3)
        assert held == (job is not None and job.holds(run))
        if job is not None and held:
            job.attempt = 1 if done > job.done else job.attempt
            job.done, job.instances, job.lease_over = done, 3, False

    @rule(worker=WORKER)
    def put_back(self, worker: str) -> None:
        believed = sorted({run.number for holder, run in self.runs if holder == worker})
        with transaction(self.world.sessions) as session:
            jobs.put_back(session, believed, worker)
        for job in self.known(believed):
            if job.state == "running" and job.worker == worker:
                job.back(job.attempt - 1, resting=False)

    @precondition(lambda self: self.jobs)
    @rule(which=ANY)
    def cancel(self, which: int) -> None:
        job = self.any_job(which)
        with transaction(self.world.sessions) as session:
            assert jobs.cancel(session, session.get_one(Job, job.number)) == (job.state in UNFINISHED)
        self.end([job], "canceled")

    @precondition(lambda self: self.jobs)
    @rule(which=ANY)
    def deadline_passes(self, which: int) -> None:
        job = self.any_job(which)
        self.world.change([job.number], deadline=1)
        job.late = True

    @precondition(lambda self: self.jobs)
    @rule()
    def back_off_ends(self) -> None:
        self.world.change(self.jobs, not_before=0)
        for job in self.jobs.values():
            job.resting = False

    @rule(lane=LANE, worker=WORKER, alive=st.booleans())
    def take_over(self, lane: int, worker: str, alive: bool) -> None:
        """All leases run out, as where a worker stands still: another gets the jobs, and the first one wakes up."""
        self.leases_end(list(self.jobs.values()))
        self.recover(frozenset(WORKERS) if alive else frozenset())
        self.back_off_ends()
        self.lay_out(lane, 100)
        self.deliver(lane, worker, 100, True)
        for place in range(len(self.of(FILE))):
            self.claim_file(place, worker)

    @rule(worker=WORKER)
    def crash(self, worker: str) -> None:
        self.leases_end([job for job in self.jobs.values() if job.worker == worker])

    @rule(alive=st.frozensets(WORKER))
    def recover(self, alive: frozenset[str]) -> None:
        lost = [job for job in self.jobs.values() if job.state == "running" and job.lease_over]
        counted = {job.number: job.attempt - (job.worker in alive) for job in lost}
        dead = [job for job in lost if counted[job.number] >= job.draft.max_attempts]
        with transaction(self.world.sessions) as session:
            since = clock_ms(session)
            back, ended = jobs.recover(session, alive)
        for job in dead:
            job.dead, job.attempt = True, counted[job.number]
        self.end(dead, "failed")
        # Chunks of a file that failed just now are canceled, not given back.
        again = [job for job in lost if job.state == "running"]
        assert (back, sorted(ended)) == (len(again), sorted(job.draft.id for job in dead))
        for job in again:
            job.back(counted[job.number], resting=True)
        self.rest(again, since)

    @rule()
    def expire(self) -> None:
        late = [
            job
            for job in self.jobs.values()
            if job.late and (job.state == "queued" or (job.kind == FILE and job.state == "running"))
        ]
        with transaction(self.world.sessions) as session:
            assert sorted(jobs.expire(session)) == sorted(job.draft.id for job in late)
        self.end(late, "expired")

    @rule()
    def end_orphans(self) -> None:
        with transaction(self.world.sessions) as session:
            jobs.end_orphans(session)
        orphans = [job for job in self.of(CHUNK) if self.parent_ended(job)]
        for job in orphans:
            if job.state in UNFINISHED:
                job.state = "canceled"
            else:
                self.forgotten(job)

    @rule()
    def forget(self) -> None:
        ended = [job for job in self.jobs.values() if job.state not in UNFINISHED]
        with transaction(self.world.sessions) as session:
            jobs.forget(session, [job.number for job in ended])
        for job in ended:
            self.forgotten(job)

    @rule(lane=LANE)
    def withdraw_or_give_rights(self, lane: int) -> None:
        self.allowed[lane] = not self.allowed[lane]
        self.world.allow(self.world.lanes[lane].client_id, self.allowed[lane])

    @rule()
    def wipe_redis(self) -> None:
        self.world.redis.flushall()

    @rule(lane=LANE)
    def find_lost(self, lane: int) -> None:
        self.look_for_lost(self.world.lanes[lane].name)

    @rule()
    def everything_ends(self) -> None:
        """Whatever happened before: once nothing is in the way any more, each job comes to its end."""
        for lane in (0, 1):
            if not self.allowed[lane]:
                self.withdraw_or_give_rights(lane)
        for _ in range(2):
            self.leases_end(list(self.jobs.values()))
            self.recover(frozenset(WORKERS))
            self.back_off_ends()
            self.end_orphans()
            self.expire()
            for place in range(len(self.of(FILE))):
                self.claim_file(place, WORKERS[0])
            for lane in (0, 1):
                self.world.redis.delete(self.world.keys.lane(self.world.lanes[lane]))
                self.look_for_lost(self.world.lanes[lane].name)
                self.lay_out(lane, 100)
                self.deliver(lane, WORKERS[0], 100, settled=True)
            for _, run in list(self.runs):
                self.finish(run, None)
        assert [job for job in self.jobs.values() if job.state in UNFINISHED] == []

    # What must hold after each event

    @invariant()
    def rows_are_as_the_model_says(self) -> None:
        self.world.steps += 1
        rows = self.world.rows()
        assert rows == [job.row() for job in self.jobs.values()]
        fences = {number: fence for number, _, fence, *_ in rows}
        assert all(fence >= self.fences.get(number, 0) for number, fence in fences.items()), "a fence only grows"
        self.fences = fences

    @invariant()
    def an_end_never_changes(self) -> None:
        ends = self.world.ends()
        for number, end in ends.items():
            assert self.ends.setdefault(number, end) == end
        self.ends = ends

    @invariant()
    def lanes_are_counted(self) -> None:
        kept, counted = self.world.counts()
        assert kept == counted

    @invariant()
    def results_belong_to_those_that_succeeded(self) -> None:
        expected = {job.number: job.result for job in self.jobs.values() if job.state == "succeeded"}
        assert self.world.results() == expected

    @invariant()
    def each_fence_was_given_once(self) -> None:
        given = [(run.number, run.fence) for _, run in self.runs]
        assert len(given) == len(set(given))


@pytest.fixture
def world(
    redis_server: RedisServer, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[World]:
    queue = make_queue(worker_settings(redis_server.url, database_url, tmp_path), tmp_path)
    with transaction(queue.sessions) as session:
        other, _ = clients.create(session, "other", frozenset({Scope.JOBS}), b"p" * 32)
        set_grants(session, other.id, [GrantSpec(MODEL, actions=frozenset(Action))])
    # An example takes less than a lease, but not always on every machine: leases end where the machine says so.
    monkeypatch.setattr(jobs, "LEASE_MILLISECONDS", FAR_MS)
    yield World(queue.sessions, queue.client, queue.keys, [queue.client_id, other.id])
    queue.close()


@pytest.mark.timeout(180 if ROUNDS == 1 else 7200)
def test_no_order_of_events_makes_an_illegal_move(world: World):
    machine = type("Machine", (JobMachine,), {"world": world})
    bounds = settings(
        max_examples=EXAMPLES,
        stateful_step_count=STEPS,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    for _ in range(ROUNDS):
        run_state_machine_as_test(machine, settings=bounds)  # type: ignore[no-untyped-call] # hypothesis leaves it so
    assert world.steps > ROUNDS * EXAMPLES
