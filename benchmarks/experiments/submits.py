"""How fast jobs are accepted, each with its row committed, and that every one of them succeeds."""

from __future__ import annotations

import contextlib

from benchmarks.bench import Bench
from benchmarks.bodies import digits
from benchmarks.digit_load import digit_requests, predictions, submissions
from benchmarks.experiment import Experiment
from benchmarks.jobs import SUCCEEDED, wait_until_ended
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
    waited_for, busy, alone = (f"{what}, {database}" for what in (SYNCHRONOUS, "submits, worked off", "submits"))
    with bench.serving(f"submits-{database}", options) as system:
        token = bench.token(system)
        verify(system, DIGITS, digits(64), token, connections=8)
        predict, submit = predictions(bench, system.port, digit_requests(token)), submissions(bench, system.port, token)
        # Not in turns: what is accepted is worked off afterwards, and would take from the predictions' time.
        bench.compare({waited_for: predict}, [connections], outcome)
        bench.compare({busy: submit}, [connections], outcome)
        wait_until_ended(system, ENDING_SECONDS)
        system.stop_worker()
        bench.compare({alone: submit}, [connections], outcome)
        system.start_worker()
        found = wait_until_ended(system, ENDING_SECONDS)
    outcome.facts[f"submits to predictions, {database}"] = outcome.ratio(alone, waited_for, connections)
    outcome.facts[f"submits while jobs run to predictions, {database}"] = outcome.ratio(busy, waited_for, connections)
    outcome.facts[f"jobs that succeeded, {database}"] = found.get(SUCCEEDED, 0)
    accepted = sum(one.measured.requests for one in outcome.rounds if one.what in (busy, alone))
    if set(found) != {SUCCEEDED} or found[SUCCEEDED] < accepted:
        outcome.problems.append(f"of {accepted} accepted jobs on {database}, {found} ended")


SUBMITS = Experiment(
    "submits", "Jobs accepted, while they are worked off and without a worker; none of them lost.", run
)
