"""Samples that administrators upload for a model, as npz archives in the store; of each kind a model has one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum

from sqlalchemy import BigInteger, ForeignKey, Integer, String, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Mapped, Session, mapped_column

from model_store.database import Base, clock_ms, now_ms
from model_store.errors import SluiceError


class Kind(StrEnum):
    """What samples are for."""

    CALIBRATION = "calibration"  # inputs by which static quantisation finds its ranges
    LABELLED = "labelled"  # inputs, and in the array `labels` the number of each one's class
    INPUTS = "inputs"  # inputs as callers send them: for comparisons and for warming up


@dataclass(frozen=True, slots=True)
class StoredExample:
    """The example that came with an upload, as an archive in the store."""

    digest: str
    size_bytes: int
    instances: int


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
    version: Mapped[int | None] = mapped_column(Integer)  # whose upload brought them; none where they were uploaded


def find(session: Session, model: str, kind: str, *, uploaded: bool = False) -> str | None:
    """The digest of the model's samples of this kind; with `uploaded`, not of those that a version brought along.

    What judges a version must not be chosen by whoever made it.
    """
    wanted = select(ModelSamples.digest).where(ModelSamples.model == model, ModelSamples.kind == kind)
    return session.scalar(wanted.where(ModelSamples.version.is_(None)) if uploaded else wanted)


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
    row.created_at, row.version = clock_ms(session), None
    session.flush()
    return row


def keep_example(session: Session, model: str, version: int, example: StoredExample, uploaded_by: str) -> bool:
    """Make the example in a version's upload, which is in the store, the model's inputs; returns whether it is.

    It is not where an administrator uploaded some, or a newer version brought others.
    """
    known = session.get(ModelSamples, (model, Kind.INPUTS.value), with_for_update=True)
    if known is not None and (known.version is None or known.version > version):
        return False
    try:
        with session.begin_nested():
            row = keep(session, model, Kind.INPUTS, uploaded_by=uploaded_by, **asdict(example))
            row.version = version
    except IntegrityError:
        # Somebody uploaded the first ones at the same moment.
        return False
    return True


def remove(session: Session, model: str, kind: str) -> None:
    """Forget samples; the bytes stay until the next sweep of the store. Raises SamplesMissing."""
    session.delete(get(session, model, kind))
    session.flush()
