"""SQL tables of models, versions, variants and labels, and the generation number that tells caches to look again."""

from __future__ import annotations

from enum import StrEnum

from sqlalchemy import BigInteger, Boolean, ForeignKey, ForeignKeyConstraint, Index, Integer, String, Text, false
from sqlalchemy.orm import Mapped, mapped_column

from model_store.database import Base, now_ms


class State(StrEnum):
    """Where a version is, in TensorFlow Serving's words (get_model_status.proto)."""

    START = "START"  # uploaded; waiting for preparation
    LOADING = "LOADING"  # being prepared
    AVAILABLE = "AVAILABLE"  # serves
    UNLOADING = "UNLOADING"  # leaving: new calls no longer mean it, jobs that were submitted to it still run
    END = "END"  # has left, or its preparation failed: then error_code says why, and it never comes back


class Model(Base):
    """A named line of versions."""

    __tablename__ = "models"

    name: Mapped[str] = mapped_column(String(128), primary_key=True)
    # Numbers are never used twice, also after a version was deleted.
    last_version: Mapped[int] = mapped_column(Integer, default=0)
    created_at: Mapped[int] = mapped_column(BigInteger, server_default=now_ms())


class Version(Base):
    """One immutable uploaded artifact of a model and what preparation found out about it."""

    __tablename__ = "versions"
    __table_args__ = (
        Index("versions_by_digest", "model", "digest"),
        Index("versions_by_state", "state", "model", "number"),
    )

    model: Mapped[str] = mapped_column(ForeignKey("models.name"), primary_key=True)
    number: Mapped[int] = mapped_column(Integer, primary_key=True)
    state: Mapped[str] = mapped_column(String(16), default=State.START.value)
    error_code: Mapped[str | None] = mapped_column(String(64))
    error_message: Mapped[str | None] = mapped_column(Text)
    format: Mapped[str] = mapped_column(String(16))  # see formats.py
    options: Mapped[str | None] = mapped_column(Text)  # UploadOptions.to_json()
    digest: Mapped[str] = mapped_column(String(64))  # SHA-256 of the upload
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    uploaded_by: Mapped[str] = mapped_column(String(128))
    signed_by: Mapped[str | None] = mapped_column(String(64))  # id of the upload key that signed the file
    created_at: Mapped[int] = mapped_column(BigInteger, server_default=now_ms())
    available_at: Mapped[int | None] = mapped_column(BigInteger)
    signature: Mapped[str | None] = mapped_column(Text)  # Signature.to_json()
    further_signatures: Mapped[str | None] = mapped_column(Text)  # FurtherSignatures.to_json()
    variant: Mapped[str | None] = mapped_column(String(32))  # name of the chosen variant
    max_batch: Mapped[int] = mapped_column(Integer, default=64)
    max_parallelism: Mapped[int] = mapped_column(Integer, default=2)
    batch_seconds: Mapped[float | None] = mapped_column()  # measured at max_batch; decides where a batch runs
    report: Mapped[str | None] = mapped_column(Text)  # the preparation report, JSON
    source: Mapped[str | None] = mapped_column(Text)  # what it was imported from, JSON
    golden: Mapped[str | None] = mapped_column(String(64))  # digest of the golden samples (golden.py)
    environment: Mapped[str | None] = mapped_column(Text)  # Environment.to_json(): what it was prepared with
    # Taken out of the line by an administrator: retired, or rolled back from. No policy brings it back.
    withdrawn: Mapped[bool] = mapped_column(Boolean, default=False, server_default=false())


class Variant(Base):
    """A converted form of a version that passed its proof; `runtime` names what executes it."""

    __tablename__ = "variants"
    __table_args__ = (
        ForeignKeyConstraint(["model", "version"], ["versions.model", "versions.number"], ondelete="CASCADE"),
    )

    model: Mapped[str] = mapped_column(String(128), primary_key=True)
    version: Mapped[int] = mapped_column(Integer, primary_key=True)
    name: Mapped[str] = mapped_column(String(32), primary_key=True)  # one of variant_policies.NAMES
    runtime: Mapped[str] = mapped_column(String(16))  # onnx, tensorflow, litert
    digest: Mapped[str] = mapped_column(String(64))
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    memory_bytes: Mapped[int] = mapped_column(BigInteger)  # resident memory that loading it takes
    # What was measured, as in the report that it was accepted in; JSON.
    figures: Mapped[str | None] = mapped_column(Text)


class Label(Base):
    """A movable name for a version."""

    __tablename__ = "labels"
    __table_args__ = (ForeignKeyConstraint(["model", "version"], ["versions.model", "versions.number"]),)

    model: Mapped[str] = mapped_column(String(128), primary_key=True)
    name: Mapped[str] = mapped_column(String(128), primary_key=True)
    version: Mapped[int] = mapped_column(Integer)
    # What it pointed to before, for a roll-back; nothing keeps that one from being deleted.
    previous: Mapped[int | None] = mapped_column(Integer)


class Generation(Base):
    """One row, counted up by every change of rights or of what is served; every gateway reads it twice a second."""

    __tablename__ = "generation"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    value: Mapped[int] = mapped_column(BigInteger, default=0)
