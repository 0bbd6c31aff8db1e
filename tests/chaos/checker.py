"""Proves from a history that nothing accepted was lost, doubled, wrong, stuck, or moved backwards."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from tests.chaos.history import GONE, Accepted, Asked, Event, Fault, Kept, Refused, Seen, Unknown

FINAL = frozenset({"succeeded", "failed", "canceled", "expired"})
STATES = FINAL | {"queued", "running"}
# Of float32 arithmetic.
TOLERANCE = 1e-5


class Kind(StrEnum):
    LOST = "lost"  # accepted, and then there was no such job, or its result was gone
    DOUBLED = "doubled"  # one submit became two jobs, or one job was answered twice with different results
    WRONG = "wrong"  # a result that is not the model's for this input
    BACKWARD = "backward"  # a state that comes after another was seen before it
    STUCK = "stuck"  # accepted, and never seen in a final state
    UNEXPLAINED = "unexplained"  # ended without a result and without a reason


@dataclass(frozen=True, slots=True)
class Violation:
    kind: Kind
    job: str
    text: str


@dataclass(slots=True)
class Recovery:
    """How long after a fault's end its jobs ran again: those accepted before its end that had not ended by then.

    `broken_seconds` is of those whose attempt was broken off, None where there was none.
    """

    fault: Fault
    jobs: int = 0
    first_seconds: float | None = None
    last_seconds: float | None = None
    broken_seconds: float | None = None


@dataclass(slots=True)
class Verdict:
    """What a history comes to."""

    submitted: int = 0
    accepted: int = 0
    refused: int = 0
    unresolved: int = 0  # submits of which nobody knows to the end whether they were taken
    retried: int = 0  # submits that had to be sent more than once
    answered: int = 0
    looks: int = 0
    ended: Counter[str] = field(default_factory=Counter)  # by state, or by state and code
    attempts: Counter[int] = field(default_factory=Counter)
    violations: list[Violation] = field(default_factory=list)
    recoveries: list[Recovery] = field(default_factory=list)

    @property
    def counts(self) -> Counter[Kind]:
        return Counter(violation.kind for violation in self.violations)


@dataclass(slots=True)
class _Job:
    key: str
    model: str
    row: list[float]
    accepted_at: float
    looks: list[Seen] = field(default_factory=list)


def check(events: Iterable[Event]) -> Verdict:
    """The figures of a history and everything in it that must not be."""
    return _Check().run(events)


def rank(seen: Seen) -> float:
    """Where a look stands in a job's life: later looks never stand lower.

    A fence counts the claims, so that queued under fence 2 comes after running under fence 2: it was put back. Without
    a fence, only the end is known to come after all else.
    """
    if seen.state in FINAL:
        return math.inf
    if seen.fence < 0:
        return -1
    return 2 * seen.fence + (seen.state == "queued")


class _Check:
    def __init__(self) -> None:
        self.verdict = Verdict()
        self.asked: dict[str, Asked] = {}
        self.jobs: dict[str, _Job] = {}
        self.jobs_of: defaultdict[str, set[str]] = defaultdict(set)
        self.refusals: dict[str, Refused] = {}
        self.sent_again: set[str] = set()
        self.kept: list[Kept] = []
        self.looks: list[Seen] = []
        self.faults: list[Fault] = []

    def run(self, events: Iterable[Event]) -> Verdict:
        for event in events:
            self._sort(event)
        for seen in self.looks:
            # Rows may be looked at before the caller has its 202.
            if seen.job in self.jobs:
                self.jobs[seen.job].looks.append(seen)
        self._submits()
        for name, job in self.jobs.items():
            self._life(name, job)
        if self.kept:
            self._rows()
        self.verdict.recoveries = [recovery(fault, self.jobs.values()) for fault in self.faults]
        return self.verdict

    def _sort(self, event: Event) -> None:
        match event:
            case Asked():
                self.asked[event.key] = event
            case Accepted():
                self.jobs_of[event.key].add(event.job)
                asked = self.asked[event.key]
                self.jobs.setdefault(event.job, _Job(event.key, asked.model, asked.row, event.at))
            case Refused():
                self.refusals[event.key] = event
            case Unknown():
                self.sent_again.add(event.key)
            case Seen():
                self.looks.append(event)
            case Kept():
                self.kept.append(event)
            case Fault():
                self.faults.append(event)

    def _submits(self) -> None:
        figures = self.verdict
        figures.submitted, figures.accepted = len(self.asked), len(self.jobs_of)
        figures.refused = len(self.refusals.keys() - self.jobs_of.keys())
        figures.unresolved = len(self.asked.keys() - self.jobs_of.keys() - self.refusals.keys())
        figures.retried = len(self.sent_again)
        figures.looks = len(self.looks)
        for key, names in self.jobs_of.items():
            if len(names) > 1:
                self._violated(Kind.DOUBLED, sorted(names)[0], f"submit {key} became {len(names)} jobs")
        owners: dict[str, str] = {}
        for key, names in self.jobs_of.items():
            for name in names:
                if owners.setdefault(name, key) != key:
                    self._violated(Kind.LOST, name, f"submits {owners[name]} and {key} were answered with one job")

    def _life(self, name: str, job: _Job) -> None:
        ends = [seen for seen in job.looks if seen.state in FINAL]
        if any(seen.state == GONE for seen in job.looks):
            self._violated(Kind.LOST, name, "it was accepted, and then there was no such job")
        for seen in job.looks:
            if seen.state not in STATES | {GONE}:
                self._violated(Kind.BACKWARD, name, f"it was seen in the state {seen.state!r}, which there is not")
        self._order(name, job.looks)
        if not ends:
            state = job.looks[-1].state if job.looks else "never seen"
            self._violated(Kind.STUCK, name, f"it did not end: {state}")
            return
        if len({seen.state for seen in ends}) > 1:
            self._violated(Kind.BACKWARD, name, "it ended as " + " and as ".join(sorted({e.state for e in ends})))
        self._end(name, job, ends)

    def _end(self, name: str, job: _Job, ends: Sequence[Seen]) -> None:
        answers = [seen.rows for seen in ends if seen.rows is not None]
        end = ends[-1]
        self.verdict.attempts[end.attempts] += 1
        self.verdict.ended[end.state if end.code is None else f"{end.state}: {end.code}"] += 1
        if end.state == "succeeded":
            self.verdict.answered += 1
            if not answers:
                self._violated(Kind.LOST, name, "it succeeded, and its result was never there")
        elif not end.code:
            self._violated(Kind.UNEXPLAINED, name, f"it ended as {end.state} without a reason")
        if any(answer != answers[0] for answer in answers):
            self._violated(Kind.DOUBLED, name, f"it was answered with {answers[0]} and with other results")
        for answer in answers[:1]:
            if not right(answer, job.row):
                self._violated(Kind.WRONG, name, f"{job.row} was answered with {answer}")

    def _order(self, name: str, looks: Sequence[Seen]) -> None:
        """Of two looks, one of which was over before the other began, the later may not show the earlier state."""
        highest: list[tuple[float, float, Seen]] = []
        for seen in sorted(looks, key=lambda look: look.at):
            before = [(other_rank, other) for at, other_rank, other in highest if at <= seen.since]
            for other_rank, other in before:
                known = rank(seen)
                after_end = other_rank == math.inf and seen.state not in FINAL and seen.state != GONE
                if after_end or -1 < known < other_rank:
                    self._violated(
                        Kind.BACKWARD, name, f"{seen.state} ({seen.fence}) after {other.state} ({other.fence})"
                    )
                    return
            if not highest or rank(seen) > max(entry[1] for entry in highest):
                highest.append((seen.at, rank(seen), seen))

    def _rows(self) -> None:
        known = {row.job for row in self.kept}
        for row in self.kept:
            if row.results > 1 or (row.results == 1) != (row.state == "succeeded"):
                self._violated(Kind.DOUBLED, row.job, f"it is {row.state} and has {row.results} results")
            if row.state not in FINAL:
                self._violated(Kind.STUCK, row.job, f"its row is {row.state} in the end")
        for name in self.jobs.keys() - known:
            self._violated(Kind.LOST, name, "it was accepted, and the database does not have it")
        strangers = known - self.jobs.keys()
        if len(strangers) > self.verdict.unresolved:
            text = f"{len(strangers)} rows belong to no answer, and {self.verdict.unresolved} submits are unresolved"
            self._violated(Kind.DOUBLED, sorted(strangers)[0], text)

    def _violated(self, kind: Kind, job: str, text: str) -> None:
        self.verdict.violations.append(Violation(kind, job, text))


def right(answer: list[list[float]], row: Sequence[float]) -> bool:
    """Whether an answer is what the models of the tests make of one row: twice of it."""
    if len(answer) != 1 or len(answer[0]) != len(row):
        return False
    return all(
        math.isclose(got, 2 * x, rel_tol=TOLERANCE, abs_tol=TOLERANCE) for got, x in zip(answer[0], row, strict=True)
    )


def recovery(fault: Fault, jobs: Iterable[_Job]) -> Recovery:
    """When the jobs of a fault started again after its end, by the attempt that ended them."""
    found = Recovery(fault)
    starts: list[float] = []
    broken: list[float] = []
    for job in jobs:
        end = next((seen for seen in job.looks if seen.state in FINAL and seen.started and seen.finished), None)
        if end is None or end.started is None or end.finished is None or end.created is None:
            continue
        if end.created <= fault.end < end.finished:
            starts.append(max(0.0, end.started - fault.end))
            if end.attempts > 1:
                broken.append(starts[-1])
    if starts:
        found.jobs, found.first_seconds, found.last_seconds = len(starts), min(starts), max(starts)
    found.broken_seconds = max(broken, default=None)
    return found
