"""The line-up: which of a model's versions serve, and every change of it that is not a new version's own.

A version that was AVAILABLE leaves by way of UNLOADING, in which jobs that were submitted to it still run, and comes
back until it is deleted. Whoever calls these functions has loaded what comes back before.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

from sqlalchemy import select
from sqlalchemy.orm import Session

from model_store.database import clock_ms
from model_store.errors import NoVersionBefore, VersionInUse, VersionNotAvailable, VersionUnwanted
from model_store.generation import bump_generation
from model_store.states import is_prepared, lock_model, lock_version, move
from model_store.tables import Label, State, Version
from model_store.traffic import current_split, require_dispensable, targets_of
from model_store.version_policies import VersionPolicy, policy_of, set_policy

SERVABLE = frozenset({State.AVAILABLE, State.UNLOADING, State.END})


@dataclass(frozen=True, slots=True)
class Line:
    """A prepared version as the line-up sees it; `withdrawn` where an administrator took it out of the line."""

    number: int
    available: bool
    withdrawn: bool = False


@dataclass(frozen=True, slots=True)
class Moves:
    """Versions that are to come back, and those that are to leave after that."""

    restore: tuple[int, ...] = ()
    leave: tuple[int, ...] = ()


def moves(policy: VersionPolicy, lines: Iterable[Line], held: Collection[int]) -> Moves:
    """What a policy asks for. Versions that are `held` stay, and all do where none that it wants can serve."""
    lines = list(lines)
    available = {line.number for line in lines if line.available}
    wanted = policy.wanted([line.number for line in lines if not line.withdrawn])
    leave = available - wanted - frozenset(held) if wanted else ()
    return Moves(tuple(sorted(wanted - available)), tuple(sorted(leave)))


def lines_of(session: Session, model: str) -> list[Line]:
    """The model's prepared versions."""
    found = session.scalars(select(Version).where(Version.model == model).order_by(Version.number))
    return [
        Line(version.number, version.state == State.AVAILABLE, version.withdrawn)
        for version in found
        if _served(version)
    ]


def _served(version: Version) -> bool:
    """Whether it serves or did: one that warms up is prepared, but nobody's yet."""
    return is_prepared(version) and version.state in SERVABLE


def held(session: Session, model: str) -> frozenset[int]:
    """Versions that no policy takes away: labels point to them, or traffic goes to them."""
    return targets_of(session, model).union(held_by(session, model))


def held_by(session: Session, model: str) -> dict[int, list[str]]:
    """By version, the labels that point to it."""
    found: dict[int, list[str]] = {}
    for label in session.scalars(select(Label).where(Label.model == model).order_by(Label.name)):
        found.setdefault(label.version, []).append(label.name)
    return found


def settle(session: Session, model: str) -> tuple[int, ...]:
    """Lets go what the policy does not want, once something that it wants serves; returns the numbers that leave.

    To be called wherever the line-up changed; brings nothing back.
    """
    lock_model(session, model)
    serving = [line for line in lines_of(session, model) if line.available]
    gone = moves(policy_of(session, model), serving, held(session, model)).leave
    for number in gone:
        move(session, lock_version(session, model, number), State.UNLOADING)
    return gone


def planned(session: Session, model: str, policy: VersionPolicy, without: int | None = None) -> Moves:
    """What a policy asks for: what it names comes back though it was withdrawn, but nothing that is to go."""
    named = policy.specific or frozenset()
    lines = [
        replace(line, withdrawn=line.withdrawn and line.number not in named)
        for line in lines_of(session, model)
        if line.number != without
    ]
    return moves(policy, lines, held(session, model))


def follow(session: Session, model: str, policy: VersionPolicy) -> Moves:
    """Makes a policy the model's own and does what it asks for; returns what came back and what leaves."""
    lock_model(session, model)
    plan = planned(session, model, policy)
    set_policy(session, model, policy)
    for number in policy.specific or ():
        lock_version(session, model, number).withdrawn = False
    restore(session, model, plan.restore)
    left = settle(session, model)
    bump_generation(session)
    return Moves(plan.restore, left)


def kept(session: Session, model: str, policy: VersionPolicy) -> dict[int, list[str]]:
    """By version that serves though the policy does not want it: what keeps it, labels by name, and `traffic`."""
    lines = lines_of(session, model)
    wanted = policy.wanted([line.number for line in lines if line.available and not line.withdrawn])
    labels, targets = held_by(session, model), targets_of(session, model)
    return {
        line.number: [f"label {name}" for name in labels.get(line.number, ())]
        + (["traffic"] if line.number in targets else [])
        for line in lines
        if line.available and line.number not in wanted
    }


def restore(session: Session, model: str, numbers: Collection[int]) -> None:
    """Brings versions back that were AVAILABLE before, and into the line if they were withdrawn.

    Raises ModelNotFound, and VersionNotAvailable for one that never was.
    """
    lock_model(session, model)
    for number in sorted(numbers):
        version = lock_version(session, model, number)
        version.withdrawn = False
        version.available_at = version.available_at or clock_ms(session)
        if version.state != State.AVAILABLE and not (_served(version) and move(session, version, State.AVAILABLE)):
            raise VersionNotAvailable(f"version {number} is {version.state} and never was AVAILABLE")
    session.flush()


def require_restorable(session: Session, model: str, number: int) -> None:
    """Raises ModelNotFound, VersionNotAvailable, and VersionUnwanted where the policy would take it away at once."""
    version = lock_version(session, model, number)
    if not _served(version):
        raise VersionNotAvailable(f"version {number} is {version.state} and never was AVAILABLE")
    policy = policy_of(session, model)
    willing = {line.number for line in lines_of(session, model) if not line.withdrawn} | {number}
    if number not in policy.wanted(willing) and number not in held(session, model):
        raise VersionUnwanted(
            f"the model's policy is {policy.text}, by which version {number} would leave again; change the policy, or"
            " roll back"
        )


def retire(
    session: Session, model: str, number: int, *, waited_for: bool = False, successors: Collection[int] = ()
) -> bool:
    """Takes a version out of the line; False if it had left already. One that waits for preparation ends at once.

    It is UNLOADING while it is `waited_for`, by jobs, and else in END. Of its `successors`, which were loaded before
    this transaction, those come back that the policy wants now: others may have retired them meanwhile. Raises
    ModelNotFound, and VersionInUse while a label points to it, or all of a split's traffic goes to it: callers by that
    label, or by the bare name, would fail.
    """
    lock_model(session, model)
    version = lock_version(session, model, number)
    labels = held_by(session, model).get(number)
    if labels:
        raise VersionInUse(f"labels point to version {number}: {', '.join(labels)}; move or delete them first")
    require_dispensable(session, model, number)
    version.withdrawn = True
    if waited_for:
        left = version.state == State.AVAILABLE and move(session, version, State.UNLOADING)
    else:
        left = move(session, version, State.END)
    if left and successors:
        wanted = planned(session, model, policy_of(session, model), without=number).restore
        restore(session, model, set(successors).intersection(wanted))
    return left


def end(session: Session, model: str, number: int) -> bool:
    """Ends a version that is UNLOADING, for which no jobs wait any more; False where it came back meanwhile."""
    lock_model(session, model)
    version = lock_version(session, model, number)
    return version.state == State.UNLOADING and move(session, version, State.END)


def leaving(session: Session, most: int, after: tuple[str, int] = ("", 0)) -> list[tuple[str, int]]:
    """A page of the versions in UNLOADING, in the order of model and number, those `after` the given one."""
    model, number = after
    later = (Version.model > model) | ((Version.model == model) & (Version.number > number))
    rows = session.execute(
        select(Version.model, Version.number)
        .where(Version.state == State.UNLOADING.value, later)
        .order_by(Version.model, Version.number)
        .limit(most)
    )
    return [(row.model, row.number) for row in rows]


@dataclass(frozen=True, slots=True)
class StepBack:
    """What a bare name means, what it is to mean, and which versions have to come back for that."""

    version: int
    to: int
    restore: tuple[int, ...]


def step_back(session: Session, model: str) -> StepBack:
    """The version before the one that a bare name means, as the model's policy has it.

    Raises NoVersionBefore, and VersionInUse where traffic is split: that says what a bare name means.
    """
    if current_split(session, model) is not None:
        raise VersionInUse(f"traffic of model {model} is split; change that, or remove it first")
    lines = lines_of(session, model)
    in_line = [line.number for line in lines if line.available and not line.withdrawn]
    if not in_line:
        raise NoVersionBefore(f"no version of model {model} serves")
    current = max(in_line)
    left = [line for line in lines if line.number != current and not line.withdrawn]
    policy = policy_of(session, model)
    candidates = policy.wanted([line.number for line in left]) | {line.number for line in left if line.available}
    before = [number for number in candidates if number < current]
    if not before:
        raise NoVersionBefore(
            f"model {model} has no version before {current} that can serve by its policy, {policy.text}"
        )
    return StepBack(current, max(before), moves(policy, left, ()).restore)


def roll_back(session: Session, model: str, step: StepBack) -> None:
    """Makes the step; raises VersionInUse where the line-up changed since it was worked out.

    The version that is left stays AVAILABLE, for its labels, where there are any; a bare name does not mean it.
    """
    lock_model(session, model)
    if step_back(session, model) != step:
        raise VersionInUse("the model's versions changed at the same time; look, and try again")
    restore(session, model, step.restore)
    version = lock_version(session, model, step.version)
    version.withdrawn = True
    session.flush()
    if step.version not in held(session, model):
        move(session, version, State.UNLOADING)
    settle(session, model)
