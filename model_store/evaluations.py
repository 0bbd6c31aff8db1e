"""What a version answered to its model's labelled samples: how often it was right, and what it took for what."""

from __future__ import annotations

import json
from dataclasses import dataclass

from sqlalchemy import BigInteger, ForeignKeyConstraint, Integer, String, Text
from sqlalchemy.orm import Mapped, Session, mapped_column

from model_store.database import Base, clock_ms, now_ms


class EvaluationRow(Base):
    """The last evaluation of a version; `samples_digest` says on which samples."""

    __tablename__ = "evaluations"
    __table_args__ = (
        ForeignKeyConstraint(["model", "version"], ["versions.model", "versions.number"], ondelete="CASCADE"),
    )

    model: Mapped[str] = mapped_column(String(128), primary_key=True)
    version: Mapped[int] = mapped_column(Integer, primary_key=True)
    samples_digest: Mapped[str] = mapped_column(String(64))
    findings: Mapped[str] = mapped_column(Text)  # JSON
    created_at: Mapped[int] = mapped_column(BigInteger, server_default=now_ms())


@dataclass(frozen=True, slots=True)
class Evaluation:
    """`counts[i][j]` samples of class i were taken for class j; `created_at` in milliseconds since 1970.

    `counts` is empty where there are more classes than a table of them is kept for.
    """

    samples_digest: str
    instances: int
    right: int
    classes: int
    counts: tuple[tuple[int, ...], ...]
    created_at: int = 0

    @property
    def accuracy(self) -> float:
        """The share of right answers, from 0 to 1."""
        return self.right / self.instances


def evaluation_of(session: Session, model: str, version: int) -> Evaluation | None:
    """The version's last evaluation."""
    row = session.get(EvaluationRow, (model, version))
    if row is None:
        return None
    found = json.loads(row.findings)
    counts = tuple(tuple(line) for line in found["counts"])
    return Evaluation(row.samples_digest, found["instances"], found["right"], found["classes"], counts, row.created_at)


def keep_evaluation(session: Session, model: str, version: int, evaluation: Evaluation) -> None:
    """Write down what was found for a version, which there has to be, in place of what was found before."""
    row = session.get(EvaluationRow, (model, version))
    if row is None:
        row = EvaluationRow(model=model, version=version)
        session.add(row)
    row.samples_digest = evaluation.samples_digest
    row.findings = json.dumps(
        {
            "instances": evaluation.instances,
            "right": evaluation.right,
            "classes": evaluation.classes,
            "counts": evaluation.counts,
        }
    )
    row.created_at = clock_ms(session)
    session.flush()
