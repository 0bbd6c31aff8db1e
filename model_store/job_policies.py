"""Policies: what a model's jobs may take of time and attempts; read by gateways with the catalog."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Float, ForeignKey, Integer, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from model_store.database import Base
from model_store.generation import bump_generation


class JobPolicyRow(Base):
    """A model's policy; null is what the settings say."""

    __tablename__ = "job_policies"

    model: Mapped[str] = mapped_column(ForeignKey("models.name", ondelete="CASCADE"), primary_key=True)
    deadline_seconds: Mapped[float | None] = mapped_column(Float)
    max_attempts: Mapped[int | None] = mapped_column(Integer)
    queue_seconds: Mapped[float | None] = mapped_column(Float)


@dataclass(frozen=True, slots=True)
class JobPolicy:
    """How long a model's jobs may take to begin, how often each is tried, and how long they may be expected to wait.

    None is what the settings say, and for `queue_seconds` no bound: jobs that would wait longer are not accepted.
    """

    deadline_seconds: float | None = None
    max_attempts: int | None = None
    queue_seconds: float | None = None


NO_POLICY = JobPolicy()


def policy_of(session: Session, model: str) -> JobPolicy:
    """The model's policy."""
    row = session.get(JobPolicyRow, model)
    return NO_POLICY if row is None else _policy(row)


def set_policy(session: Session, model: str, policy: JobPolicy) -> None:
    """Replace the policy of a model, which there has to be; `NO_POLICY` removes it."""
    row = session.get(JobPolicyRow, model)
    if policy == NO_POLICY:
        if row is not None:
            session.delete(row)
    elif row is None:
        session.add(JobPolicyRow(model=model, **_columns(policy)))
    else:
        for name, value in _columns(policy).items():
            setattr(row, name, value)
    session.flush()
    bump_generation(session)


def load_policies(session: Session) -> dict[str, JobPolicy]:
    """All policies by model."""
    return {row.model: _policy(row) for row in session.scalars(select(JobPolicyRow))}


def _policy(row: JobPolicyRow) -> JobPolicy:
    return JobPolicy(row.deadline_seconds, row.max_attempts, row.queue_seconds)


def _columns(policy: JobPolicy) -> dict[str, float | int | None]:
    return {
        "deadline_seconds": policy.deadline_seconds,
        "max_attempts": policy.max_attempts,
        "queue_seconds": policy.queue_seconds,
    }
