"""Version policies: which of a model's prepared versions serve, in TensorFlow Serving's three kinds.

Source: tensorflow_serving/config/file_system_storage_path_source.proto, ServableVersionPolicy (latest, all, specific).
What is different here: the default is `all`, since versions are loaded on demand and an idle one costs nothing; a
version that a label points to never leaves; and no policy ever takes away what serves last.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import ForeignKey, Integer, Text
from sqlalchemy.orm import Mapped, Session, mapped_column

from model_store.database import Base

MOST_SPECIFIC = 1000


class VersionPolicyRow(Base):
    """A model's policy where it is not `all`; one of the two columns is set."""

    __tablename__ = "version_policies"

    model: Mapped[str] = mapped_column(ForeignKey("models.name", ondelete="CASCADE"), primary_key=True)
    latest: Mapped[int | None] = mapped_column(Integer)
    specific: Mapped[str | None] = mapped_column(Text)  # a list of numbers, JSON


@dataclass(frozen=True, slots=True)
class VersionPolicy:
    """The `latest` so many, the `specific` ones named, or, where neither is given, all."""

    latest: int | None = None
    specific: frozenset[int] | None = None

    def wanted(self, numbers: Collection[int]) -> frozenset[int]:
        """Those of these versions that are to serve."""
        if self.latest is not None:
            return frozenset(sorted(numbers)[-self.latest :])
        return frozenset(numbers) if self.specific is None else self.specific.intersection(numbers)

    @property
    def text(self) -> str:
        """For people and for the audit log."""
        if self.latest is not None:
            return f"latest {self.latest}"
        return "all" if self.specific is None else f"specific {', '.join(map(str, sorted(self.specific)))}"


ALL = VersionPolicy()


def policy_of(session: Session, model: str) -> VersionPolicy:
    """The model's policy."""
    row = session.get(VersionPolicyRow, model)
    if row is None:
        return ALL
    return VersionPolicy(row.latest, None if row.specific is None else frozenset(json.loads(row.specific)))


def set_policy(session: Session, model: str, policy: VersionPolicy) -> None:
    """Writes down the policy of a model, which there has to be; nothing moves by that alone."""
    row = session.get(VersionPolicyRow, model)
    if policy == ALL:
        if row is not None:
            session.delete(row)
            session.flush()
        return
    if row is None:
        row = VersionPolicyRow(model=model)
        session.add(row)
    row.latest = policy.latest
    row.specific = None if policy.specific is None else json.dumps(sorted(policy.specific))
    session.flush()
