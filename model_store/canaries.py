"""Canaries: a version that gets more and more of a model's traffic, until it has all of it or is taken back.

What is kept here is the plan, where it stands and what became of it; workers/canaries.py decides.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from model_store import traffic
from model_store.database import clock_ms
from model_store.errors import SluiceError, VersionNotAvailable
from model_store.further_signatures import FurtherSignatures
from model_store.signature import Signature
from model_store.tables import Version
from model_store.traffic import RUNNING, Traffic, TrafficInvalid
from model_store.traffic_tables import CanaryMoveRow, CanaryRow, ShadowRow

MOST_STEPS = 20
# The last so many moves of a model are kept.
MOST_MOVES = 200
WHOLE = 100.0


class CanaryNotFound(SluiceError):
    status = 404
    code = "canary_not_found"


class CanaryEnded(SluiceError):
    """What is asked for can be done only before its end."""

    status = 409
    code = "canary_ended"


class CanaryState(StrEnum):
    """Where a canary is."""

    RUNNING = RUNNING
    PROMOTED = "promoted"
    ROLLED_BACK = "rolled_back"


class Move(StrEnum):
    """What became of it at one moment."""

    BEGUN = "begun"
    STEPPED = "stepped"
    PROMOTED = "promoted"
    ROLLED_BACK = "rolled_back"


@dataclass(frozen=True, slots=True)
class Conditions:
    """What may not be exceeded; None is not asked about.

    Shares of requests from 0 to 1, seconds, and how many times the stable version's p99.
    """

    error_rate: float | None = None
    p99_seconds: float | None = None
    p99_ratio: float | None = None
    disagreement: float | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """The shares that a version gets one after the other, in percent, and what it has to keep to at each."""

    version: int
    stable: int
    steps: tuple[float, ...]
    step_seconds: float
    least_requests: int
    conditions: Conditions
    sticky: str | None = None


@dataclass(frozen=True, slots=True)
class Canary:
    """A plan and where it stands; times in milliseconds since 1970 by the database's clock."""

    model: str
    plan: Plan
    run: int
    state: CanaryState
    step: int
    step_at: int
    set_by: str

    @property
    def percent(self) -> float:
        """The share of traffic that the version has by it."""
        if self.state is CanaryState.RUNNING:
            return self.plan.steps[self.step]
        return WHOLE if self.state is CanaryState.PROMOTED else 0.0


@dataclass(frozen=True, slots=True)
class Stage:
    """A canary that is under way, as gateways count for it."""

    run: int
    step: int
    version: int
    stable: int


@dataclass(frozen=True, slots=True)
class Moved:
    """By whom, and why; nobody where it was by itself."""

    reason: str
    by: str = ""


def canary_of(session: Session, model: str, *, lock: bool = False) -> Canary:
    """The model's last canary; raises CanaryNotFound."""
    if lock:
        traffic.lock_traffic(session, model)
    row = session.get(CanaryRow, model, with_for_update=lock, populate_existing=True)
    if row is None:
        raise CanaryNotFound(f"model {model} has no canary")
    return _canary(row)


def running(session: Session) -> list[Canary]:
    """All that are under way."""
    return [_canary(row) for row in session.scalars(select(CanaryRow).where(CanaryRow.state == RUNNING))]


def load_stages(session: Session) -> dict[str, Stage]:
    """Those under way by model, for the catalog."""
    return {one.model: Stage(one.run, one.step, one.plan.version, one.plan.stable) for one in running(session)}


def moves_of(session: Session, model: str) -> Sequence[CanaryMoveRow]:
    """What became of the model's canaries, the newest last."""
    wanted = select(CanaryMoveRow).where(CanaryMoveRow.model == model).order_by(CanaryMoveRow.id)
    return session.scalars(wanted).all()


def stable_version(session: Session, model: str, version: int) -> int:
    """What a canary of this version compares with where nothing else is said.

    The one to which all of the model's traffic goes by its split, else the highest AVAILABLE one beside it. Raises
    TrafficInvalid where there is none, or the split has none or several.
    """
    split = traffic.current_split(session, model)
    if split is not None:
        targets = [number for number, _ in split.shares if number != version]
        if not targets:
            raise TrafficInvalid("all of the model's traffic goes to this version already: say which is the stable one")
        if len(targets) != 1:
            raise TrafficInvalid("the model's traffic is split over several versions: say which is the stable one")
        return targets[0]
    others = traffic.available_versions(session, model) - {version}
    if not others:
        raise TrafficInvalid("there is no other AVAILABLE version to compare with")
    return max(others)


def begin(session: Session, model: str, plan: Plan, by: str) -> Canary:
    """Gives the version its first share of the model's traffic, instead of whatever split there was.

    Raises TrafficHeld while another one is under way, VersionNotAvailable, and TrafficInvalid for a plan that could
    not be judged by.
    """
    traffic.check_free(session, model)
    _check(session, model, plan)
    now = clock_ms(session)
    row = CanaryRow(
        model=model, run=now, version=plan.version, stable=plan.stable, sticky=plan.sticky,
        steps=json.dumps(plan.steps), step_seconds=plan.step_seconds, least_requests=plan.least_requests,
        error_rate=plan.conditions.error_rate, p99_seconds=plan.conditions.p99_seconds,
        p99_ratio=plan.conditions.p99_ratio, disagreement=plan.conditions.disagreement,
        set_by=by, state=RUNNING, step=0, step_at=now,
    )  # fmt: skip
    canary = _canary(session.merge(row))
    _note(session, canary, Move.BEGUN, Moved(f"version {plan.version} beside version {plan.stable}", by))
    _share_out(session, canary)
    return canary


def step_on(session: Session, canary: Canary, moved: Moved) -> Canary:
    """The next larger share, or promoted after the last one; `canary` was read with a lock in this transaction."""
    if canary.step + 1 >= len(canary.plan.steps):
        return promote(session, canary, moved)
    return _move(session, canary, Move.STEPPED, CanaryState.RUNNING, moved, canary.step + 1)


def promote(session: Session, canary: Canary, moved: Moved) -> Canary:
    """All traffic to the version, and the end; raises CanaryEnded, and VersionNotAvailable where it has left."""
    if canary.state is not CanaryState.RUNNING:
        raise CanaryEnded(f"the canary is {canary.state} already")
    if canary.plan.version not in traffic.available_versions(session, canary.model):
        raise VersionNotAvailable(f"version {canary.plan.version} is not AVAILABLE")
    return _move(session, canary, Move.PROMOTED, CanaryState.PROMOTED, moved, canary.step)


def roll_back(session: Session, canary: Canary, moved: Moved) -> Canary:
    """All traffic to the stable version, also after a promotion; raises CanaryEnded where it went there already."""
    if canary.state is CanaryState.ROLLED_BACK:
        raise CanaryEnded("the canary is rolled back already")
    if moved.by and canary.plan.stable not in traffic.available_versions(session, canary.model):
        raise VersionNotAvailable(f"version {canary.plan.stable} is not AVAILABLE; there is nothing to go back to")
    return _move(session, canary, Move.ROLLED_BACK, CanaryState.ROLLED_BACK, moved, canary.step)


def forget(session: Session, model: str) -> None:
    """Forgets an ended canary with its history; traffic stays as it is. Raises CanaryNotFound, TrafficHeld."""
    canary_of(session, model, lock=True)
    traffic.check_free(session, model)
    session.execute(delete(CanaryMoveRow).where(CanaryMoveRow.model == model))
    session.execute(delete(CanaryRow).where(CanaryRow.model == model))


def _check(session: Session, model: str, plan: Plan) -> None:
    available = traffic.available_versions(session, model)
    for number in (plan.version, plan.stable):
        if number not in available:
            raise traffic.unavailable(session, model, number)
    if plan.version == plan.stable:
        raise TrafficInvalid("a canary compares two versions, not one with itself")
    rising = all(before < after for before, after in zip((0.0, *plan.steps), plan.steps, strict=False))
    if not 1 <= len(plan.steps) <= MOST_STEPS or not rising or plan.steps[-1] > WHOLE:
        raise TrafficInvalid(f"steps are 1 to {MOST_STEPS} shares in percent, each larger than the one before")
    by_stable = plan.conditions.p99_ratio is not None or plan.conditions.disagreement is not None
    if by_stable and plan.steps[0] >= WHOLE:
        raise TrafficInvalid("p99_ratio and disagreement need a first step below 100: the stable version must answer")
    if not _takes_as(session, model, plan):
        raise TrafficInvalid(
            f"version {plan.version} takes other inputs than version {plan.stable}: callers would fail"
        )
    if plan.conditions.disagreement is not None:
        shadow = session.get(ShadowRow, model)
        if shadow is None or shadow.version != plan.version:
            raise TrafficInvalid(f"disagreement is found by a shadow: make version {plan.version} the model's shadow")


def _takes_as(session: Session, model: str, plan: Plan) -> bool:
    rows = session.execute(
        select(Version.number, Version.signature, Version.further_signatures).where(
            Version.model == model, Version.number.in_([plan.version, plan.stable]), Version.signature.is_not(None)
        )
    )
    found = {
        row.number: (FurtherSignatures.from_json(row.further_signatures), Signature.from_json(row.signature))
        for row in rows
    }
    if len(found) < 2:
        return False
    (own, default), (stable, its) = found[plan.version], found[plan.stable]
    known = own.by_name(default)
    asked = {"": its} | {one.signature.name: one.signature for one in stable.listed}
    return all(name in known and known[name].takes_as(signature) for name, signature in asked.items())


def _move(session: Session, canary: Canary, move: Move, state: CanaryState, moved: Moved, step: int) -> Canary:
    row = session.get_one(CanaryRow, canary.model)
    row.state, row.step, row.step_at = state.value, step, clock_ms(session)
    after = _canary(row)
    _note(session, after, move, moved)
    _share_out(session, after)
    return after


def _share_out(session: Session, canary: Canary) -> None:
    plan = canary.plan
    shares = {str(plan.stable): WHOLE - canary.percent, str(plan.version): canary.percent}
    # What ended is pinned: a version that is uploaded next must not take the traffic by being the highest.
    kept = {name: share for name, share in shares.items() if share > 0}
    traffic.write_traffic(session, canary.model, Traffic(kept, plan.sticky))


def _note(session: Session, canary: Canary, move: Move, moved: Moved) -> None:
    session.add(
        CanaryMoveRow(
            model=canary.model, run=canary.run, move=move.value, percent=canary.percent, reason=moved.reason[:256],
            by=moved.by, automatic=not moved.by,
        )
    )  # fmt: skip
    session.flush()
    newest = select(CanaryMoveRow.id).where(CanaryMoveRow.model == canary.model).order_by(CanaryMoveRow.id.desc())
    oldest_kept = session.scalar(newest.offset(MOST_MOVES - 1).limit(1))
    if oldest_kept is not None:
        session.execute(
            delete(CanaryMoveRow).where(CanaryMoveRow.model == canary.model, CanaryMoveRow.id < oldest_kept)
        )


def _canary(row: CanaryRow) -> Canary:
    conditions = Conditions(row.error_rate, row.p99_seconds, row.p99_ratio, row.disagreement)
    plan = Plan(
        row.version, row.stable, tuple(json.loads(row.steps)), row.step_seconds, row.least_requests, conditions,
        row.sticky,
    )  # fmt: skip
    return Canary(row.model, plan, row.run, CanaryState(row.state), row.step, row.step_at, row.set_by)
