"""How fast jobs are accepted, each with its row committed, and that every one of them succeeds."""

from __future__ import annotations

import contextlib

from benchmarks.bench import Bench
from benchmarks.bodies import digits
from benchmarks.digit_load import digit_requests, predictions, submissions
from benchmarks.experiment import Experiment
from benchmarks.jobs import SUCCEEDED, by_state, wait_until_ended
from benchmarks.models import DIGITS
from benchmarks.outcome import Outcome
from benchmarks.postgresql import postgresql
from benchmarks.system import Options
from benchmarks.verification import verify

SYNCHRONOUS = "predictions"
ENDING_SECONDS = 90.0
SETTINGS = {"queued_jobs_limit": "1000000"}
DATABASES = ("SQLite", "PostgreSQL")


def run(bench: Bench) -> Outcome:
    outcome = Outcome()
    for database in DATABASES:
        with contextlib.ExitStack() as stack:
            url = stack.enter_context(postgresql(bench.installation)) if database == "PostgreSQL" else None
            _measure(bench, database, Options(database_url=url, settings=SETTINGS), outcome)
    return outcome


def _measure(bench: Bench, database: str, options: Options, outcome: Outcome) -> None:
    connections = bench.sizes.pair[0]
    waited_for, submitted = f"{SYNCHRONOUS}, {database}", f"submits, {database}"
    with bench.serving(f"submits-{database}", options) as system:
        token = bench.token(system)
        verify(system, DIGITS, digits(64), token, connections=8)
        predict, submit = predictions(bench, system.port, digit_requests(token)), submissions(bench, system.port, token)
        # Not in turns: what is accepted is worked off afterwards, and would take from the predictions' time.
        bench.compare({waited_for: predict}, [connections], outcome)
        bench.compare({submitted: submit}, [connections], outcome)
        waiting = sum(count for state, count in by_state(system).items() if state != SUCCEEDED)
        found = wait_until_ended(system, ENDING_SECONDS)
    outcome.facts[f"submits to predictions, {database}"] = outcome.ratio(submitted, waited_for, connections)
    outcome.facts[f"jobs waiting at the end of the submits, {database}"] = waiting
    outcome.facts[f"jobs that succeeded, {database}"] = found.get(SUCCEEDED, 0)
    accepted = sum(one.measured.requests for one in outcome.rounds if one.what == submitted)
    if set(found) != {SUCCEEDED} or found[SUCCEEDED] < accepted:
        outcome.problems.append(f"of {accepted} accepted jobs on {database}, {found} ended")


SUBMITS = Experiment("submits", "Jobs accepted while the worker works them off, none of them lost.", run)
