"""The checker refuses histories in which something was lost, doubled, wrong, backward or stuck, and only those."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.chaos.checker import Kind, check
from tests.chaos.history import GONE, Accepted, Asked, Event, Fault, Journal, Kept, Refused, Seen, Unknown, read

History = list[Event]


def look(since: float, state: str, *, job: str = "a", fence: int = -1, rows: list[list[float]] | None = None) -> Seen:
    times = {"created": 0.0, "started": 1.0, "finished": 2.0} if rows is not None else {}
    return Seen(since, since + 0.1, job, state, 1, fence, rows, **times)  # type: ignore[arg-type] # floats all of them


def honest() -> History:
    """One job that was put back once, one submit that was sent twice, one that was refused."""
    return [
        Asked(0, "k", "double", [1.0, 2.0]),
        Unknown(0.1, "k", "TimeoutError"),
        Accepted(0.2, "k", "a"),
        Asked(0, "l", "double", [3.0, 4.0]),
        Refused(0.2, "l", "400"),
        look(0.3, "queued", fence=0),
        look(0.5, "running", fence=1),
        look(0.7, "queued", fence=1),
        look(0.9, "running", fence=2),
        look(1.1, "queued"),
        look(2.1, "succeeded", rows=[[2.0, 4.0]]),
        look(2.5, "succeeded", rows=[[2.0, 4.0]]),
        Kept("a", "succeeded", 1),
    ]


def kinds(history: History) -> set[Kind]:
    return {violation.kind for violation in check(history).violations}


def without(history: History, *kinds_of: type) -> History:
    return [event for event in history if not isinstance(event, kinds_of)]


def test_an_honest_history_is_accepted_and_counted() -> None:
    verdict = check(honest())
    assert verdict.violations == []
    figures = (verdict.submitted, verdict.accepted, verdict.refused, verdict.answered, verdict.retried)
    assert figures == (2, 1, 1, 1, 1)
    assert verdict.ended == {"succeeded": 1}


FORGED: dict[str, tuple[Kind, Callable[[History], History]]] = {
    "the job is gone": (Kind.LOST, lambda h: [*h, look(3, GONE)]),
    "the row is gone": (Kind.LOST, lambda h: [*without(h, Kept), Kept("b", "succeeded", 1)]),
    "one job for two submits": (Kind.LOST, lambda h: [*without(h, Refused), Accepted(1, "l", "a")]),
    "success without a result": (Kind.LOST, lambda h: [replace(e, rows=None) if isinstance(e, Seen) else e for e in h]),
    "two jobs of one submit": (Kind.DOUBLED, lambda h: [*h, Accepted(1, "k", "b"), look(3, "succeeded", job="b")]),
    "another result later": (Kind.DOUBLED, lambda h: [*h, look(3, "succeeded", rows=[[2.0, 4.1]])]),
    "two results in the end": (Kind.DOUBLED, lambda h: [*without(h, Kept), Kept("a", "succeeded", 2)]),
    "a result of a canceled job": (Kind.DOUBLED, lambda h: [*without(h, Kept), Kept("a", "canceled", 1)]),
    "a job that nobody submitted": (Kind.DOUBLED, lambda h: [*h, Kept("b", "succeeded", 1)]),
    "another's result": (
        Kind.WRONG,
        lambda h: [*without(h, Seen), look(2, "succeeded", rows=[[6.0, 8.0]])],
    ),
    "a second result inside": (
        Kind.WRONG,
        lambda h: [*without(h, Seen), look(2, "succeeded", rows=[[2.0, 4.0], [2.0, 4.0]])],
    ),
    "queued after its end": (Kind.BACKWARD, lambda h: [*h, look(3, "queued")]),
    "failed after success": (Kind.BACKWARD, lambda h: [*h, look(3, "failed")]),
    "running again under its fence": (Kind.BACKWARD, lambda h: [*h[:8], look(0.9, "running", fence=1), *h[9:]]),
    "a lower fence": (Kind.BACKWARD, lambda h: [*h[:9], look(1.05, "running", fence=1), *h[9:]]),
    "a state that there is not": (Kind.BACKWARD, lambda h: [*h, look(0.2, "pending")]),
    "never in a final state": (Kind.STUCK, lambda h: [*h[:10]]),
    "never looked at": (Kind.STUCK, lambda h: without(h, Seen, Kept)),
    "still queued in its row": (Kind.STUCK, lambda h: [*h[:10], Kept("a", "queued", 0)]),
    "failed and nobody says why": (Kind.UNEXPLAINED, lambda h: [*h[:10], look(2, "failed"), Kept("a", "failed", 0)]),
}


@pytest.mark.parametrize("forged", FORGED)
def test_a_forged_history_is_refused(forged: str) -> None:
    kind, forge = FORGED[forged]
    assert kind in kinds(forge(honest()))


def test_looks_that_overlap_may_be_written_down_in_any_order() -> None:
    # The look at "queued" went out before the end, and its answer came later than that of the look at the end.
    late = Seen(2.0, 9.0, "a", "queued")
    assert kinds([*honest(), late]) == set()


def test_a_submit_of_which_nobody_knows_may_have_become_a_job() -> None:
    lost_answer: History = [Asked(0, "m", "double", [5.0, 6.0]), Unknown(1, "m", "EOFError"), Kept("c", "succeeded", 1)]
    verdict = check([*honest(), *lost_answer])
    assert (verdict.violations, verdict.unresolved) == ([], 1)


def test_a_fault_is_over_for_the_jobs_that_it_met_when_the_last_of_them_started_again() -> None:
    def ended(job: str, created: float, started: float, attempts: int = 1) -> list[Event]:
        seen = Seen(50, 50, job, "succeeded", attempts, -1, [[2.0]], None, created, started, started + 0.5)
        return [Asked(created, job, "double", [1.0]), Accepted(created, job, job), seen]

    # Ended before, met twice, accepted afterwards.
    history: History = [*ended("a", 1, 2), *ended("b", 9, 23, 2), *ended("c", 11, 27), *ended("d", 21, 48)]
    [recovery] = check([*history, Fault("C05", "restarted empty", 10, 20)]).recoveries
    assert (recovery.jobs, recovery.first_seconds, recovery.last_seconds) == (2, 3, 7)
    assert recovery.broken_seconds == 3


def test_a_journal_is_read_as_it_was_written_but_for_a_line_that_was_cut_off(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j.jsonl")
    for event in honest():
        journal.note(event)
    journal.close()
    with (tmp_path / "j.jsonl").open("a") as file:
        file.write('{"what":"seen","since":1')
    assert list(read(tmp_path / "j.jsonl")) == honest()
