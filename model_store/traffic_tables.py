"""SQL tables of traffic: splits over versions, shadows, canaries with their moves, and the figures of both."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Float, ForeignKey, Index, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from model_store.database import Base, now_ms


class TrafficRow(Base):
    """How calls of a model by its bare name are split."""

    __tablename__ = "traffic"

    model: Mapped[str] = mapped_column(ForeignKey("models.name", ondelete="CASCADE"), primary_key=True)
    weights: Mapped[str] = mapped_column(Text)  # JSON: weight by version's number or label
    sticky: Mapped[str | None] = mapped_column(String(80))


class ShadowRow(Base):
    """The version that gets a copy of a share of a model's traffic."""

    __tablename__ = "shadows"

    model: Mapped[str] = mapped_column(ForeignKey("models.name", ondelete="CASCADE"), primary_key=True)
    # When it was set, by the database's clock: figures belong to a run, so that those of another setting are not mixed
    # in.
    run: Mapped[int] = mapped_column(BigInteger)
    version: Mapped[int] = mapped_column(Integer)
    share: Mapped[float] = mapped_column(Float)
    agree_by: Mapped[str] = mapped_column(String(16))
    absolute: Mapped[float] = mapped_column(Float)
    relative: Mapped[float] = mapped_column(Float)


class CanaryRow(Base):
    """A canary of a model: under way, or as it ended."""

    __tablename__ = "canaries"

    model: Mapped[str] = mapped_column(ForeignKey("models.name", ondelete="CASCADE"), primary_key=True)
    run: Mapped[int] = mapped_column(BigInteger)
    version: Mapped[int] = mapped_column(Integer)
    stable: Mapped[int] = mapped_column(Integer)
    sticky: Mapped[str | None] = mapped_column(String(80))
    steps: Mapped[str] = mapped_column(Text)  # JSON: percentages, each larger than the one before
    step_seconds: Mapped[float] = mapped_column(Float)
    least_requests: Mapped[int] = mapped_column(Integer)
    error_rate: Mapped[float | None] = mapped_column(Float)
    p99_seconds: Mapped[float | None] = mapped_column(Float)
    p99_ratio: Mapped[float | None] = mapped_column(Float)
    disagreement: Mapped[float | None] = mapped_column(Float)
    set_by: Mapped[str] = mapped_column(String(128))
    state: Mapped[str] = mapped_column(String(16))
    step: Mapped[int] = mapped_column(Integer)
    step_at: Mapped[int] = mapped_column(BigInteger)


class CanaryMoveRow(Base):
    """What became of a canary at one moment, why, and by whom (empty: by itself)."""

    __tablename__ = "canary_moves"
    __table_args__ = (Index("canary_moves_by_model", "model", "id"),)

    id: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True)
    model: Mapped[str] = mapped_column(ForeignKey("models.name", ondelete="CASCADE"))
    run: Mapped[int] = mapped_column(BigInteger)
    at: Mapped[int] = mapped_column(BigInteger, server_default=now_ms())
    move: Mapped[str] = mapped_column(String(16))
    percent: Mapped[float] = mapped_column(Float)
    reason: Mapped[str] = mapped_column(String(256))
    by: Mapped[str] = mapped_column(String(128))
    automatic: Mapped[bool] = mapped_column(Boolean)


class FigureRow(Base):
    """How often something was measured of a version, summed over all gateways: within one run and stage of it.

    `bucket` is that of a histogram where `measure` is one, else 0; `largest` the largest single value.
    """

    __tablename__ = "traffic_figures"

    model: Mapped[str] = mapped_column(String(128), primary_key=True)
    run: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    stage: Mapped[int] = mapped_column(Integer, primary_key=True)
    version: Mapped[int] = mapped_column(Integer, primary_key=True)
    measure: Mapped[str] = mapped_column(String(16), primary_key=True)
    bucket: Mapped[int] = mapped_column(Integer, primary_key=True)
    count: Mapped[int] = mapped_column(BigInteger)
    largest: Mapped[float] = mapped_column(Float)
