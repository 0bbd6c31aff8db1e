"""Draining what waits: jobs per second over the length of the backlog, and what Redis does meanwhile."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from statistics import median

from benchmarks.bench import Bench, run_apart
from benchmarks.digit_load import digit_requests, predictions, submissions
from benchmarks.experiment import Experiment
from benchmarks.failures import BenchmarkFailed
from benchmarks.jobs import SUCCEEDED, Drained, by_state, clock, drained, wait_until_ended
from benchmarks.outcome import Outcome
from benchmarks.postgresql import postgresql
from benchmarks.redis_watch import RedisTimes, slowdown, watched
from benchmarks.system import Options, System

SYNCHRONOUS = "predictions"
SUBMIT_SECONDS = 120.0
DRAIN_SECONDS = 120.0
CONNECTIONS = 32
# A short backlog is gone in a moment: it is drained some times.
SHORT = 5_000
SETTINGS = {"queued_jobs_limit": "1000000"}


def run_sqlite(bench: Bench) -> Outcome:
    return _run(bench, "SQLite")


def run_postgresql(bench: Bench) -> Outcome:
    return _run(bench, "PostgreSQL")


def _run(bench: Bench, database: str) -> Outcome:
    outcome = Outcome()
    connections = bench.sizes.pair[0]
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(postgresql(bench.installation)) if database == "PostgreSQL" else None
        options = Options(database_url=url, settings=SETTINGS)
        system = stack.enter_context(bench.serving(f"backlog-{database}", options))
        predict = predictions(bench, system.port, digit_requests(bench.token(system)))
        bench.compare({SYNCHRONOUS: predict}, [connections], outcome)
        synchronous = outcome.figures(SYNCHRONOUS, connections).per_second
        times = []
        for waiting in bench.sizes.backlogs:
            found, of_redis = _drain(bench, system, waiting, outcome)
            times.append(of_redis)
            outcome.facts[f"jobs/s from {waiting}"] = found
            outcome.facts[f"jobs/s from {waiting} to predictions/s"] = found / synchronous
            print(f"       {waiting:,} waiting: {found:,.0f} jobs/s, predictions {synchronous:,.0f}/s", flush=True)
    small, large = (outcome.facts[f"jobs/s from {waiting}"] for waiting in bench.sizes.backlogs)
    outcome.facts["jobs/s, long backlog to short"] = large / small
    _note_redis(times[0], times[-1], outcome)
    return outcome


def _drain(bench: Bench, system: System, waiting: int, outcome: Outcome) -> tuple[float, RedisTimes]:
    """Let that many jobs wait while nobody works, then start the worker; jobs per second and Redis's times."""
    rates = []
    for _ in range(bench.sizes.rounds if waiting <= SHORT else 1):
        system.stop_worker()
        since = clock(system)
        _submit(bench, system, waiting, since)
        with watched(system) as times:
            system.start_worker()
            ended = wait_until_ended(system, DRAIN_SECONDS, since)
        if ended != {SUCCEEDED: waiting}:
            outcome.problems.append(f"of {waiting} jobs {ended} ended")
        found = drained(system, since)
        rates.append(found.per_second)
        if waiting > SHORT:
            _note_fifths(found, outcome)
    return median(rates), times


def _submit(bench: Bench, system: System, waiting: int, since: int) -> None:
    """Exactly so many jobs over HTTP; raises BenchmarkFailed where they are not all there."""
    load = submissions(bench, system.port, bench.token(system))(CONNECTIONS)
    done = run_apart(replace(load, seconds=SUBMIT_SECONDS, count=waiting))
    found = by_state(system, since)
    if done.errors or sum(found.values()) != waiting:
        raise BenchmarkFailed(f"of {waiting} jobs {found} are there, and {done.errors} were refused")


def _note_fifths(found: Drained, outcome: Outcome) -> None:
    outcome.facts["jobs/s in the first fifth"] = found.first_per_second
    outcome.facts["jobs/s in the last fifth"] = found.last_per_second


def _note_redis(small: RedisTimes, large: RedisTimes, outcome: Outcome) -> None:
    command, times = slowdown(small, large)
    outcome.facts["Redis commands over 2 ms"] = len(large.slow)
    outcome.facts["Redis PING, p50 ms"] = large.ping_p50
    outcome.facts["Redis PING, longest ms"] = large.ping_longest
    outcome.facts["times as long, the Redis command that grew most"] = times
    outcome.notes["the Redis command that grew most"] = (
        f"{command}: {small.by_command.get(command, 0):.1f} to {large.by_command.get(command, 0):.1f} µs"
    )
    outcome.notes["Redis commands over 2 ms"] = ", ".join(large.slow) or "none"


BACKLOG = Experiment(
    "backlog", "Jobs that wait on SQLite, from the start of the worker to the last commit.", run_sqlite
)
BACKLOG_POSTGRESQL = Experiment("backlog-postgresql", "The same on PostgreSQL.", run_postgresql)
