"""The judge of canaries: by the figures of all gateways, the next step, the promotion or the way back.

Run once a second by the dispatcher that leads. Each decision is a transaction of its own, with its entry in the audit
log.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass

from sqlalchemy.orm import Session

from auth.audit import Entry, record
from model_store import canaries, shadows, traffic
from model_store.canaries import Canary, CanaryState, Move, Moved, Plan
from model_store.database import Sessions, clock_ms, transaction
from model_store.errors import DatabaseUnavailable
from model_store.traffic_figures import Figures, Measure, read_figures
from monitoring import metrics

log = logging.getLogger(__name__)

ACT = "move_canary"
# As callers of the log know who did it, where nobody did.
SYSTEM = "sluice"


@dataclass(frozen=True, slots=True)
class Standing:
    """How a canary does at its present step: `requests` and `errors` of its version, and its p99 in seconds.

    The p99 is of all that were `timed`: also of those whose callers did not wait for the answer.
    The stable version's are of all steps, since it gets nothing at the last one; answers are compared by the shadow.
    What is None is not known yet, or not asked about.
    """

    requests: int
    errors: int
    timed: int
    p99_seconds: float | None
    stable_requests: int
    stable_p99_seconds: float | None
    compared: int
    disagreement: float | None
    seconds_left: float


def judge_all(sessions: Sessions) -> None:
    """Look at every canary that is under way, and move those that are due; raises DatabaseUnavailable."""
    shown: dict[tuple[object, ...], float] = {}
    with transaction(sessions, write=False) as session:
        found = canaries.running(session)
    for one in found:
        try:
            shown[one.model, one.plan.version] = one.percent / 100
            _judge_if_due(sessions, one)
        except DatabaseUnavailable:
            raise
        except Exception:  # one canary's edge: all jobs, and all other canaries, wait for the thread that asks
            log.exception("the canary of model %s could not be judged", one.model)
    metrics.show(metrics.CANARY_SHARE, shown)


def _judge_if_due(sessions: Sessions, canary: Canary) -> None:
    with transaction(sessions, write=False) as session:
        due = _verdict(session, canary) is not None
    if due:
        with transaction(sessions) as session:
            judge(session, canary.model)


def judge(session: Session, model: str) -> Canary | None:
    """Move a model's canary where that is due; the canary after it, else None."""
    canary = canaries.canary_of(session, model, lock=True)
    if canary.state is not CanaryState.RUNNING:
        return None
    verdict = _verdict(session, canary)
    if verdict is None:
        return None
    move, reason = verdict
    moved = Moved(reason)
    after = (
        canaries.roll_back(session, canary, moved)
        if move is Move.ROLLED_BACK
        else canaries.step_on(session, canary, moved)
    )
    done = move if after.state is CanaryState.RUNNING else Move(after.state.value)
    detail = {"move": done.value, "percent": f"{after.percent:g}", "reason": reason, "set_by": canary.set_by}
    record(session, Entry(ACT, name=SYSTEM, model=model, version=canary.plan.version, detail=detail))
    metrics.CANARY_MOVES.labels(model, done.value).inc()
    log.info("canary of %s version %d: %s, %s", model, canary.plan.version, done.value, reason)
    return after


def standing(session: Session, canary: Canary) -> Standing:
    """How it does, by what gateways wrote down so far."""
    plan = canary.plan
    figures = read_figures(session, canary.model, canary.run)
    own = figures.get(plan.version, Figures())
    seconds = own.histogram(Measure.SECONDS, canary.step)
    stable = figures.get(plan.stable, Figures()).histogram(Measure.SECONDS)
    compared, disagreement = 0, None
    if plan.conditions.disagreement is not None:
        compared, agreed = shadows.agreement(session, canary.model, plan.version)
        disagreement = 1 - agreed if compared else None
    return Standing(
        requests=own.count(Measure.REQUESTS, canary.step),
        errors=own.count(Measure.ERRORS, canary.step),
        timed=seconds.total,
        p99_seconds=seconds.quantile(0.99),
        stable_requests=stable.total,
        stable_p99_seconds=stable.quantile(0.99),
        compared=compared,
        disagreement=disagreement,
        seconds_left=max(0.0, canary.step_at / 1000 + plan.step_seconds - clock_ms(session) / 1000),
    )


def broken(plan: Plan, found: Standing) -> str | None:
    """The condition that it breaks, in words; None where it keeps all of them so far.

    Shares are judged at once where they could not come right any more if all else that is awaited went well; a p99
    once so many were timed as the plan asks for requests.
    """
    asked, least = plan.conditions, plan.least_requests
    if asked.error_rate is not None and _above(found.errors, asked.error_rate, max(found.requests, least)):
        return f"{found.errors} of {found.requests} requests failed, above the error rate of {asked.error_rate:g}"
    if asked.disagreement is not None and found.disagreement is not None:
        disagreed = round(found.disagreement * found.compared)
        if _above(disagreed, asked.disagreement, max(found.compared, least)):
            return f"{disagreed} of {found.compared} answers disagreed, above {asked.disagreement:g}"
    p99, stable = found.p99_seconds, found.stable_p99_seconds
    if p99 is None or found.timed < least:
        return None
    if asked.p99_seconds is not None and p99 > asked.p99_seconds:
        return f"p99 of {p99:.4g} s, above {asked.p99_seconds:g} s"
    enough = found.stable_requests >= least
    if asked.p99_ratio is not None and stable is not None and enough and p99 > asked.p99_ratio * stable:
        return f"p99 of {p99:.4g} s, above {asked.p99_ratio:g} times {stable:.4g} s of the stable version"
    return None


def _above(counted: int, share: float, of: int) -> bool:
    # 29 of 100 are not more than 0.29, though 0.29 * 100 is less than 29 for a computer.
    return counted > share * of + 1e-9 * of


def awaited(plan: Plan, found: Standing) -> str | None:
    """What is missing before it may go on, in words."""
    missing = {
        "requests": plan.least_requests - found.requests,
        "requests to the stable version": plan.least_requests - found.stable_requests,
        "compared answers": plan.least_requests - found.compared,
        "seconds": math.ceil(found.seconds_left),
    }
    if plan.conditions.p99_ratio is None:
        del missing["requests to the stable version"]
    if plan.conditions.disagreement is None:
        del missing["compared answers"]
    return ", ".join(f"{number} more {what}" for what, number in missing.items() if number > 0) or None


def _verdict(session: Session, canary: Canary) -> tuple[Move, str] | None:
    if canary.plan.version not in traffic.available_versions(session, canary.model):
        return Move.ROLLED_BACK, f"version {canary.plan.version} does not serve any more"
    found = standing(session, canary)
    wrong = broken(canary.plan, found)
    if wrong is not None:
        return Move.ROLLED_BACK, wrong
    if awaited(canary.plan, found) is not None:
        return None
    return Move.STEPPED, f"{found.requests} requests at {canary.percent:g} % met every condition"
