"""Shadows: a copy of a share of a model's traffic goes to another version, and what came of comparing the answers."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import select
from sqlalchemy.orm import Session

from model_store.database import clock_ms
from model_store.errors import SluiceError, VersionNotAvailable
from model_store.generation import bump_generation
from model_store.traffic import RUNNING, TrafficHeld, available_versions, lock_traffic
from model_store.traffic_figures import Figures, Histogram, Measure, read_figures, summed
from model_store.traffic_tables import CanaryRow, ShadowRow

QUANTILES = (0.5, 0.9, 0.99)


class AgreeBy(StrEnum):
    """When two answers agree: all numbers within the tolerance, or the largest output at the same place."""

    TOLERANCE = "tolerance"
    TOP1 = "top1"


class ShadowNotFound(SluiceError):
    """As a thing of its own, a shadow that is not there is not found."""

    status = 404
    code = "shadow_not_found"


@dataclass(frozen=True, slots=True)
class Shadow:
    """What is copied, a share from 0 to 1, to which version, and when two answers agree.

    Numbers agree within `absolute + relative * |y|`. `run` is when it was set, in milliseconds since 1970.
    """

    version: int
    share: float = 0.1
    agree_by: AgreeBy = AgreeBy.TOLERANCE
    absolute: float = 1e-5
    relative: float = 1e-4
    run: int = 0


@dataclass(frozen=True, slots=True)
class Distribution:
    """Of seconds or of differences; quantiles are a tenth off at most, None of nothing.

    `histogram` counts values up to each upper bound that are above the one before.
    """

    count: int
    median: float | None
    p90: float | None
    p99: float | None
    largest: float | None
    histogram: tuple[tuple[float, int], ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """What was found with one stable version, or with all of them."""

    compared: int
    agreed: int
    within: int
    instances: int
    top1: int
    unlike: int
    failed: int
    dropped: int
    difference: Distribution
    stable_seconds: Distribution
    shadow_seconds: Distribution

    @property
    def agreement(self) -> float | None:
        """The share of copies that agree: one that the shadow fails on disagrees. None of nothing."""
        judged = self.compared + self.failed
        return self.agreed / judged if judged else None


def shadow_of(session: Session, model: str) -> Shadow:
    """The model's shadow; raises ShadowNotFound."""
    row = session.get(ShadowRow, model)
    if row is None:
        raise ShadowNotFound(f"model {model} has no shadow")
    return _shadow(row)


def load_shadows(session: Session) -> dict[str, Shadow]:
    """All shadows by model."""
    return {row.model: _shadow(row) for row in session.scalars(select(ShadowRow))}


def set_shadow(session: Session, model: str, shadow: Shadow) -> Shadow:
    """Replaces the shadow of a model, which there has to be; its figures begin anew.

    Raises VersionNotAvailable, and TrafficHeld while a canary is under way that judges by it.
    """
    _check_unused(session, model)
    if shadow.version not in available_versions(session, model):
        raise VersionNotAvailable(f"version {shadow.version} is not AVAILABLE; traffic is copied to such a one only")
    row = ShadowRow(
        model=model, run=clock_ms(session), version=shadow.version, share=shadow.share,
        agree_by=shadow.agree_by.value, absolute=shadow.absolute, relative=shadow.relative,
    )  # fmt: skip
    kept = session.merge(row)
    session.flush()
    bump_generation(session)
    return _shadow(kept)


def clear_shadow(session: Session, model: str) -> None:
    """Ends it, and forgets its figures; raises ShadowNotFound, TrafficHeld while a canary is under way by it."""
    _check_unused(session, model)
    row = session.get(ShadowRow, model)
    if row is None:
        raise ShadowNotFound(f"model {model} has no shadow")
    session.delete(row)
    session.flush()
    bump_generation(session)


def begin_anew(session: Session, model: str, version: int) -> None:
    """Leaves what was found so far behind, where this version is the shadow: it answers by another artifact now."""
    row = session.get(ShadowRow, model)
    if row is not None and row.version == version:
        row.run = clock_ms(session)
        session.flush()
        bump_generation(session)


def compared(session: Session, model: str, shadow: Shadow) -> dict[int, Comparison]:
    """What was found so far, by stable version; gateways write what they found once a second."""
    return {version: _comparison(figures) for version, figures in read_figures(session, model, shadow.run).items()}


def compared_with_all(session: Session, model: str, shadow: Shadow) -> Comparison:
    """The same with all stable versions together."""
    return _comparison(summed(read_figures(session, model, shadow.run).values()))


def agreement(session: Session, model: str, version: int) -> tuple[int, float]:
    """How many live requests were compared with this version as the model's shadow, and the share that agreed.

    (0, 0.0) where it is not the shadow. A copy that it failed on counts, and does not agree.
    """
    row = session.get(ShadowRow, model)
    if row is None or row.version != version:
        return 0, 0.0
    found = compared_with_all(session, model, _shadow(row))
    return found.compared + found.failed, found.agreement or 0.0


def _comparison(figures: Figures) -> Comparison:
    return Comparison(
        compared=figures.count(Measure.COMPARED),
        agreed=figures.count(Measure.AGREED),
        within=figures.count(Measure.WITHIN),
        instances=figures.count(Measure.INSTANCES),
        top1=figures.count(Measure.TOP1),
        unlike=figures.count(Measure.UNLIKE),
        failed=figures.count(Measure.FAILED),
        dropped=figures.count(Measure.DROPPED),
        difference=distribution(figures.histogram(Measure.DIFFERENCE)),
        stable_seconds=distribution(figures.histogram(Measure.STABLE_SECONDS)),
        shadow_seconds=distribution(figures.histogram(Measure.SHADOW_SECONDS)),
    )


def distribution(histogram: Histogram) -> Distribution:
    """Its figures."""
    median, p90, p99 = (histogram.quantile(share) for share in QUANTILES)
    largest = histogram.largest if histogram.counts else None
    return Distribution(histogram.total, median, p90, p99, largest, tuple(histogram.bounds()))


def _check_unused(session: Session, model: str) -> None:
    lock_traffic(session, model)
    canary = session.get(CanaryRow, model, populate_existing=True)
    if canary is not None and canary.state == RUNNING and canary.disagreement is not None:
        raise TrafficHeld(f"a canary of version {canary.version} judges by the shadow; end it first")


def _shadow(row: ShadowRow) -> Shadow:
    return Shadow(row.version, row.share, AgreeBy(row.agree_by), row.absolute, row.relative, row.run)
