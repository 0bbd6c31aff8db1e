"""How far estimates are off: what queued jobs of clients of different weights are told, and when they really begin."""

from __future__ import annotations

import http.client
import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median, quantiles

from sqlalchemy import select

from auth.grants import GrantSpec, set_grants
from benchmarks.bench import Bench, run_apart
from benchmarks.digit_load import submissions
from benchmarks.experiment import Experiment
from benchmarks.failures import BenchmarkFailed
from benchmarks.jobs import SUCCEEDED, by_state, wait_until_ended
from benchmarks.models import DIGITS
from benchmarks.outcome import Outcome
from benchmarks.system import HOST, Options, System, read_clients
from model_store.database import transaction
from workers.tables import Job

WEIGHTS = (1.0, 2.0, 4.0)
CONNECTIONS = 32
SUBMIT_SECONDS = 120.0
DRAIN_SECONDS = 120.0
# Gateways learn of new weights within half a second.
LEARNING_SECONDS = 1.5
LOOK_SECONDS = 0.03
# Below this a look at the queue is older than the wait that it foretells.
LEAST_SECONDS = 0.5
# In which the rate is measured for the first time.
FIRST_SECONDS = 1.5
SETTINGS = {"queued_jobs_limit": "1000000"}


@dataclass(frozen=True, slots=True)
class Told:
    """What a queued job was told: at which moment (milliseconds since 1970), and of how long a wait."""

    job: str
    at: float
    wait_seconds: float


def run(bench: Bench) -> Outcome:
    outcome = Outcome()
    with bench.serving("estimates", Options(settings=SETTINGS)) as system:
        names = [f"caller-{number}" for number in range(len(WEIGHTS))]
        _weigh(bench, system, names)
        callers = [Asker(system, bench.token(system, name)) for name in names]
        system.stop_worker()
        for name in names:
            _submit(bench, system, name, bench.sizes.waiting)
        ids = _ids(bench, system, names)
        system.start_worker()
        began = time.time() * 1000
        told = _ask_while_they_run(callers, ids)
        ended = wait_until_ended(system, DRAIN_SECONDS)
        started = _starts(system)
    _note_shares(outcome, ids, started)
    if set(ended) != {SUCCEEDED}:
        outcome.problems.append(f"jobs ended as {ended}")
    errors = {one: error for one in told if (error := _error(one, started)) is not None}
    first = [error for one, error in errors.items() if one.at - began < FIRST_SECONDS * 1000]
    later = [error for one, error in errors.items() if one.at - began >= FIRST_SECONDS * 1000]
    _note(outcome, "of the first second and a half", first)
    _note(outcome, "after that", later)
    return outcome


class Asker:
    """A client that looks at jobs of its own."""

    def __init__(self, system: System, token: str) -> None:
        self._connection = http.client.HTTPConnection(HOST, system.port, timeout=30)
        self._headers = {"Authorization": f"Bearer {token}"}

    def ask(self, job: str) -> Told | None:
        """What the job is told; None once it runs."""
        at = time.time() * 1000
        self._connection.request("GET", f"/v1/jobs/{job}", headers=self._headers)
        answer = self._connection.getresponse()
        found = json.loads(answer.read())
        if answer.status != 200:
            raise BenchmarkFailed(f"a job was answered {answer.status}: {found}")
        wait = found["estimated_wait_seconds"]
        return None if found["state"] != "queued" or wait is None else Told(job, at, wait)


def _weigh(bench: Bench, system: System, names: Sequence[str]) -> None:
    clients = read_clients(bench.installation.clients_file)
    with transaction(system.sessions) as session:
        for name, weight in zip(names, WEIGHTS, strict=True):
            set_grants(session, clients[name]["client_id"], [GrantSpec(DIGITS, weight=weight)])
    time.sleep(LEARNING_SECONDS)


def _submit(bench: Bench, system: System, name: str, waiting: int) -> None:
    before = sum(by_state(system).values())
    load = submissions(bench, system.port, bench.token(system, name))(CONNECTIONS)
    done = run_apart(replace(load, seconds=SUBMIT_SECONDS, count=waiting))
    if done.errors or sum(by_state(system).values()) != before + waiting:
        raise BenchmarkFailed(f"of {waiting} jobs some were refused: {done.errors}")


def _ids(bench: Bench, system: System, names: Sequence[str]) -> list[list[str]]:
    """The jobs of each client, in their order."""
    clients = read_clients(bench.installation.clients_file)
    found = []
    with transaction(system.sessions, write=False) as session:
        for name in names:
            mine = select(Job.id).where(Job.client_id == clients[name]["client_id"]).order_by(Job.number)
            found.append(list(session.scalars(mine)))
    return found


def _ask_while_they_run(callers: Sequence[Asker], ids: Sequence[Sequence[str]]) -> list[Told]:
    """Ask for jobs anywhere in each client's lane until the last one has begun."""
    chance = random.Random(5)  # noqa: S311 - a choice of samples
    told: list[Told] = []
    until = time.monotonic() + DRAIN_SECONDS
    while time.monotonic() < until:
        for caller, mine in zip(callers, ids, strict=True):
            found = caller.ask(chance.choice(mine))
            told += [found] if found is not None else []
        if all(caller.ask(mine[-1]) is None for caller, mine in zip(callers, ids, strict=True)):
            return told
        time.sleep(LOOK_SECONDS)
    raise BenchmarkFailed("the jobs did not begin in time")


def _starts(system: System) -> dict[str, int]:
    with transaction(system.sessions, write=False) as session:
        return {row.id: row.started_at for row in session.execute(select(Job.id, Job.started_at))}


def _error(told: Told, started: dict[str, int]) -> float | None:
    """By which part of its real wait an estimate was off; None for a wait too short to be foretold."""
    real = (started[told.job] - told.at) / 1000
    return abs(told.wait_seconds - real) / real if real >= LEAST_SECONDS else None


def _note_shares(outcome: Outcome, ids: Sequence[Sequence[str]], started: dict[str, int]) -> None:
    """How many jobs of each began until the first client had none left, in jobs of the first one."""
    first_done = min(max(started[job] for job in mine) for mine in ids)
    begun = [sum(started[job] <= first_done for job in mine) for mine in ids]
    for weight, count in zip(WEIGHTS, begun, strict=True):
        outcome.facts[f"jobs of weight {weight:g} to those of weight 1"] = count / max(1, begun[0])


def _note(outcome: Outcome, when: str, errors: Sequence[float]) -> None:
    outcome.facts[f"estimates {when}"] = len(errors)
    if len(errors) > 1:
        outcome.facts[f"relative error, median, {when}"] = median(errors)
        outcome.facts[f"relative error, p90, {when}"] = quantiles(errors, n=10, method="inclusive")[-1]


ESTIMATES = Experiment(
    "estimates", "When queued jobs are told that they will begin, and when they do; three clients, 1:2:4.", run
)
