"""What is set about models' traffic, as the catalog and with it every gateway's memory holds it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from sqlalchemy.orm import Session

from model_store.canaries import Stage, load_stages
from model_store.shadows import Shadow, load_shadows
from model_store.traffic import Split, Traffic, in_force, load_traffic


@dataclass(frozen=True, slots=True)
class Watch:
    """What a gateway does with each answered prediction of a model: copy a share of them, count for a canary."""

    shadow: Shadow | None
    stage: Stage | None


@dataclass(frozen=True, slots=True)
class Course:
    """What is set for one model."""

    traffic: Traffic | None = None
    shadow: Shadow | None = None
    stage: Stage | None = None

    def split(self, available: Collection[int], labels: Mapping[str, int]) -> Split | None:
        """The split over versions that serve; None where none is set, or none of its targets serves."""
        return None if self.traffic is None else in_force(self.traffic, available, labels)

    def watch(self, available: Collection[int]) -> Watch | None:
        """None where there is nothing to do, as with most models."""
        shadow = self.shadow if self.shadow is not None and self.shadow.version in available else None
        return None if shadow is None and self.stage is None else Watch(shadow, self.stage)


NO_COURSE = Course()


def load_courses(session: Session) -> dict[str, Course]:
    """Those of all models for which anything is set."""
    splits, shadows, stages = load_traffic(session), load_shadows(session), load_stages(session)
    names = splits.keys() | shadows.keys() | stages.keys()
    return {name: Course(splits.get(name), shadows.get(name), stages.get(name)) for name in names}
