"""Traffic: which of a model's versions a call by its bare name goes to; read by gateways with the catalog."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

from sqlalchemy import select
from sqlalchemy.orm import Session

from model_store.errors import LabelMissing, SluiceError, VersionInUse, VersionNotAvailable
from model_store.generation import bump_generation
from model_store.tables import Label, Model, State, Version
from model_store.traffic_tables import CanaryRow, ShadowRow, TrafficRow

MOST_TARGETS = 16
CLIENT = "client"
HEADER = "header:"
RUNNING = "running"

Shares = Sequence[tuple[int, float]]
"""Versions by number, each with its weight."""


class TrafficInvalid(SluiceError):
    """What should be split over is nothing that can be: no target with a weight, or too many."""

    status = 422
    code = "traffic_invalid"


class TrafficHeld(SluiceError):
    """A canary is under way, which decides about the model's traffic."""

    status = 409
    code = "canary_running"


@dataclass(frozen=True, slots=True)
class Traffic:
    """A split as it was set: weights by a version's number or by a label, and by what a caller stays where it is."""

    weights: Mapping[str, float]
    sticky: str | None = None


@dataclass(frozen=True, slots=True)
class Split:
    """A split as it is in force: over AVAILABLE versions only, the largest share first; there is at least one."""

    shares: tuple[tuple[int, float], ...]
    sticky: str | None = None

    @property
    def main(self) -> int:
        """The version with the largest share, the highest of several."""
        return self.shares[0][0]


def chosen(shares: Shares, model: str, subject: bytes | None) -> int:
    """The version that a caller gets: by chance, or where there is a subject the same one for it at every gateway.

    Weighted rendezvous hashing (Thaler and Ravishankar 1998, "Using name-based mappings to increase hit rates"; the
    score -w/ln(h) is Schindelhauer's and Schomaker's, 2005): a subject moves only from a version whose share shrinks,
    and to one whose share grows. About 1 µs for each target.
    """
    if subject is None:
        point = random.random() * sum(weight for _, weight in shares)  # noqa: S311 - a share of traffic, not a secret
        for number, weight in shares:
            point -= weight
            if point < 0:
                return number
        return shares[0][0]
    beginning = model.encode()
    return max(shares, key=lambda share: (_score(beginning, share, subject), share[0]))[0]


def in_force(traffic: Traffic, available: Collection[int], labels: Mapping[str, int]) -> Split | None:
    """The split over those of its targets that are AVAILABLE; None where none is."""
    weights: dict[int, float] = {}
    for name, weight in traffic.weights.items():
        number = int(name) if name.isdigit() else labels.get(name)
        if number in available and number is not None and weight > 0:
            weights[number] = weights.get(number, 0.0) + weight
    shares = sorted(weights.items(), key=lambda share: (-share[1], -share[0]))
    return Split(tuple(shares), traffic.sticky) if shares else None


def traffic_of(session: Session, model: str) -> Traffic | None:
    """The split that was set for a model."""
    row = session.get(TrafficRow, model)
    return None if row is None else _traffic(row)


def load_traffic(session: Session) -> dict[str, Traffic]:
    """All splits by model."""
    return {row.model: _traffic(row) for row in session.scalars(select(TrafficRow))}


def set_traffic(session: Session, model: str, traffic: Traffic) -> None:
    """Replaces the split of a model, which there has to be.

    Raises TrafficInvalid, TrafficHeld while a canary is under way, LabelMissing, and VersionNotAvailable for a target
    that is not AVAILABLE now.
    """
    check_free(session, model)
    if not 1 <= len(traffic.weights) <= MOST_TARGETS or not sum(traffic.weights.values()) > 0:
        raise TrafficInvalid(f"traffic goes to 1 to {MOST_TARGETS} versions or labels, with a weight above 0 for one")
    labels, available = _known(session, model)
    for name in traffic.weights:
        if not name.isdigit() and name not in labels:
            raise LabelMissing(f"model {model} has no label {name}")
        number = int(name) if name.isdigit() else labels[name]
        if number not in available:
            raise unavailable(session, model, number)
    write_traffic(session, model, traffic)


def clear_traffic(session: Session, model: str) -> None:
    """A bare name means the highest AVAILABLE version again; raises TrafficHeld while a canary is under way."""
    check_free(session, model)
    row = session.get(TrafficRow, model)
    if row is not None:
        session.delete(row)
        session.flush()
        bump_generation(session)


def write_traffic(session: Session, model: str, traffic: Traffic) -> None:
    """The same without asking: for a canary, which moves traffic itself."""
    session.merge(TrafficRow(model=model, weights=json.dumps(dict(traffic.weights)), sticky=traffic.sticky))
    session.flush()
    bump_generation(session)


def current_split(session: Session, model: str) -> Split | None:
    """The split that is in force by what this transaction sees."""
    traffic = traffic_of(session, model)
    if traffic is None:
        return None
    labels, available = _known(session, model)
    return in_force(traffic, available, labels)


def targets_of(session: Session, model: str) -> frozenset[int]:
    """The versions that a split, a shadow or a canary under way uses: no policy takes them away."""
    split, found = current_split(session, model), set[int]()
    if split is not None:
        found.update(number for number, _ in split.shares)
    shadow, canary = session.get(ShadowRow, model), session.get(CanaryRow, model)
    if shadow is not None:
        found.add(shadow.version)
    if canary is not None and canary.state == RUNNING:
        found |= {canary.version, canary.stable}
    return frozenset(found)


def require_dispensable(session: Session, model: str, number: int) -> None:
    """Raises VersionInUse for a version that callers by the bare name would miss.

    That is one to which all of a split's traffic goes, or with which a canary that is under way compares. Any other
    target may leave: its share goes to the others.
    """
    split = current_split(session, model)
    if split is not None and [target for target, _ in split.shares] == [number]:
        raise VersionInUse(f"all traffic of {model} goes to version {number}; change it first")
    canary = session.get(CanaryRow, model)
    if canary is not None and canary.state == RUNNING and canary.stable == number:
        raise VersionInUse(f"a canary compares with version {number}; promote it or roll it back first")


def require_unnamed(session: Session, model: str, label: str) -> None:
    """Raises VersionInUse for a label that the model's split names."""
    traffic = traffic_of(session, model)
    if traffic is not None and label in traffic.weights:
        raise VersionInUse(f"traffic of {model} goes to label {label}; change it first")


def lock_traffic(session: Session, model: str) -> None:
    """Keeps every other change of the model's traffic waiting; taken before any other lock, as by changes of versions.

    The first of these would else be the row of a canary for some, and for others that of the model: a deadlock.
    """
    session.execute(select(Model.name).where(Model.name == model).with_for_update())


def check_free(session: Session, model: str) -> None:
    """Locks the model's traffic for this transaction; raises TrafficHeld while a canary is under way."""
    lock_traffic(session, model)
    canary = session.get(CanaryRow, model, populate_existing=True)
    if canary is not None and canary.state == RUNNING:
        raise TrafficHeld(f"a canary of version {canary.version} is under way; promote it or roll it back first")


def available_versions(session: Session, model: str) -> frozenset[int]:
    """The numbers of a model's AVAILABLE versions; those that a roll back withdrew are none for traffic."""
    return _known(session, model)[1]


def unavailable(session: Session, model: str, number: int) -> VersionNotAvailable:
    """Why no traffic can go to a version, and whether it can be brought back."""
    found = session.get(Version, (model, number))
    if found is None:
        return VersionNotAvailable(f"version {number} is not AVAILABLE: model {model} has no such version")
    if found.state == State.AVAILABLE:
        return VersionNotAvailable(f"version {number} was rolled back: restore it first")
    prepared = found.available_at is not None and found.error_code is None
    if prepared and found.state in {State.UNLOADING, State.END}:
        return VersionNotAvailable(f"version {number} is not AVAILABLE but {found.state}: restore it first")
    return VersionNotAvailable(f"version {number} is not AVAILABLE but {found.state}")


def _known(session: Session, model: str) -> tuple[dict[str, int], frozenset[int]]:
    labels = session.execute(select(Label.name, Label.version).where(Label.model == model))
    available = session.scalars(
        select(Version.number).where(
            Version.model == model, Version.state == State.AVAILABLE.value, Version.withdrawn.is_(False)
        )
    )
    return {row.name: row.version for row in labels}, frozenset(available)


def _traffic(row: TrafficRow) -> Traffic:
    return Traffic(json.loads(row.weights), row.sticky)


def _score(beginning: bytes, share: tuple[int, float], subject: bytes) -> float:
    number, weight = share
    digest = blake2b(b"%b\0%d\0%b" % (beginning, number, subject), digest_size=8).digest()
    # 53 bits are what a float holds; a half more keeps both ends of the interval out.
    point = ((int.from_bytes(digest) >> 11) + 0.5) / 2**53
    return -weight / math.log(point)
