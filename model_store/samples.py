"""Samples that administrators upload for a model, as npz archives in the store; of each kind a model has one."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from sqlalchemy import BigInteger, ForeignKey, Integer, String, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from model_store.database import Base, clock_ms, now_ms
from model_store.errors import SluiceError


class Kind(StrEnum):
    """What samples are for."""

    CALIBRATION = "calibration"  # inputs by which static quantisation finds its ranges
    LABELLED = "labelled"  # inputs, and in the array `labels` the number of each one's class
    INPUTS = "inputs"  # inputs as callers send them: for comparisons and for warming up


class SamplesMissing(SluiceError):
    status = 404
    code = "samples_not_found"


class ModelSamples(Base):
    """An archive of one array for each input, all of `instances` rows."""

    __tablename__ = "model_samples"

    model: Mapped[str] = mapped_column(ForeignKey("models.name", ondelete="CASCADE"), primary_key=True)
    kind: Mapped[str] = mapped_column(String(16), primary_key=True)
    digest: Mapped[str] = mapped_column(String(64))
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    instances: Mapped[int] = mapped_column(Integer)
    uploaded_by: Mapped[str] = mapped_column(String(128))
    created_at: Mapped[int] = mapped_column(BigInteger, server_default=now_ms())


def find(session: Session, model: str, kind: str) -> str | None:
    """The digest of the model's samples of this kind."""
    return session.scalar(select(ModelSamples.digest).where(ModelSamples.model == model, ModelSamples.kind == kind))


def samples_of(session: Session, model: str) -> Sequence[ModelSamples]:
    """All of a model, by kind."""
    return session.scalars(select(ModelSamples).where(ModelSamples.model == model).order_by(ModelSamples.kind)).all()


def get(session: Session, model: str, kind: str) -> ModelSamples:
    """Raises SamplesMissing."""
    found = session.get(ModelSamples, (model, kind))
    if found is None:
        raise SamplesMissing(f"model {model} has no samples of the kind {kind}")
    return found


def keep(
    session: Session, model: str, kind: Kind, *, digest: str, size_bytes: int, instances: int, uploaded_by: str
) -> ModelSamples:
    """Make an archive in the store the samples of a model, which there has to be, in place of those before."""
    row = session.get(ModelSamples, (model, kind.value))
    if row is None:
        row = ModelSamples(model=model, kind=kind.value)
        session.add(row)
    row.digest, row.size_bytes, row.instances, row.uploaded_by = digest, size_bytes, instances, uploaded_by
    row.created_at = clock_ms(session)
    session.flush()
    return row


def remove(session: Session, model: str, kind: str) -> None:
    """Forget samples; the bytes stay until the next sweep of the store. Raises SamplesMissing."""
    session.delete(get(session, model, kind))
    session.flush()
