"""Settings of a model: where and how its versions run, and what people and callers are told about it.

What workers and the queue go by (`Serving`) is read with the catalog, for every model; what describes a model may be
long and is read for one model at a time.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from sqlalchemy import Boolean, ForeignKey, ForeignKeyConstraint, Integer, String, Text, false, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from model_store.database import Base
from model_store.generation import bump_generation


class ModelSettingsRow(Base):
    """A model's settings; null is what preparation measured, or nothing."""

    __tablename__ = "model_settings"

    model: Mapped[str] = mapped_column(ForeignKey("models.name", ondelete="CASCADE"), primary_key=True)
    pool: Mapped[str | None] = mapped_column(String(64))
    pinned: Mapped[bool] = mapped_column(Boolean, default=False, server_default=false())
    max_parallelism: Mapped[int | None] = mapped_column(Integer)
    max_instances: Mapped[int | None] = mapped_column(Integer)
    description: Mapped[str | None] = mapped_column(Text)
    tags: Mapped[str | None] = mapped_column(Text)  # a JSON object of texts
    class_names: Mapped[str | None] = mapped_column(Text)  # a JSON list of texts
    input_specification: Mapped[str | None] = mapped_column(Text)  # JSON, model_store/input_specification.py
    warm_up: Mapped[str | None] = mapped_column(Text)  # a JSON list of request bodies


class VersionMetadataRow(Base):
    """What is said of one version in place of what its model's settings say; null is what they say."""

    __tablename__ = "version_metadata"
    __table_args__ = (
        ForeignKeyConstraint(["model", "version"], ["versions.model", "versions.number"], ondelete="CASCADE"),
    )

    model: Mapped[str] = mapped_column(String(128), primary_key=True)
    version: Mapped[int] = mapped_column(Integer, primary_key=True)
    description: Mapped[str | None] = mapped_column(Text)
    class_names: Mapped[str | None] = mapped_column(Text)
    input_specification: Mapped[str | None] = mapped_column(Text)


@dataclass(frozen=True, slots=True)
class Serving:
    """By what a model's versions run.

    `pool` names the workers that take it (None: all that name none), `pinned` keeps it loaded, `max_parallelism` bounds
    the slots that run one version at once (None: as preparation measured), `max_instances` those of one request (None:
    as the gateway's and the worker's settings say).
    """

    pool: str | None = None
    pinned: bool = False
    max_parallelism: int | None = None
    max_instances: int | None = None

    def parallelism(self, measured: int) -> int:
        """How many slots run a version at once, of which preparation said `measured`."""
        return measured if self.max_parallelism is None else self.max_parallelism

    def instances(self, allowed: int) -> int:
        """How many instances one request may have where the process's settings allow `allowed`."""
        return allowed if self.max_instances is None else min(allowed, self.max_instances)


ORDINARY = Serving()


@dataclass(frozen=True, slots=True)
class Metadata:
    """What describes a model or a version; None is what was not said.

    `class_names` are those of the last dimension of the output, in its order; `input_specification` is JSON.
    """

    description: str | None = None
    class_names: tuple[str, ...] | None = None
    input_specification: str | None = None


UNDESCRIBED = Metadata()


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """All settings of a model; `warm_up` are bodies of requests, as JSON, that are run before a version serves."""

    serving: Serving = ORDINARY
    metadata: Metadata = UNDESCRIBED
    tags: Mapping[str, str] = field(default_factory=dict)
    warm_up: tuple[str, ...] = ()


def settings_of(session: Session, model: str) -> ModelSettings:
    """The model's settings; those of a model that has none, or is not there, are empty."""
    row = session.get(ModelSettingsRow, model)
    if row is None:
        return ModelSettings()
    return ModelSettings(
        _serving(row),
        _metadata(row),
        {} if row.tags is None else json.loads(row.tags),
        () if row.warm_up is None else tuple(json.loads(row.warm_up)),
    )


def replace_settings(session: Session, model: str, settings: ModelSettings) -> None:
    """Replace the settings of a model, which there has to be."""
    row = session.get(ModelSettingsRow, model)
    if row is None:
        row = ModelSettingsRow(model=model)
        session.add(row)
    serving = settings.serving
    row.pool, row.pinned = serving.pool, serving.pinned
    row.max_parallelism, row.max_instances = serving.max_parallelism, serving.max_instances
    _describe(row, settings.metadata)
    row.tags = json.dumps(dict(settings.tags)) if settings.tags else None
    row.warm_up = json.dumps(settings.warm_up) if settings.warm_up else None
    session.flush()
    bump_generation(session)


def own_metadata(session: Session, model: str, version: int) -> Metadata:
    """What is said of this version alone."""
    row = session.get(VersionMetadataRow, (model, version))
    return UNDESCRIBED if row is None else _metadata(row)


def replace_metadata(session: Session, model: str, version: int, metadata: Metadata) -> None:
    """Replace what is said of one version, which there has to be; what the version computes stays as it is."""
    row = session.get(VersionMetadataRow, (model, version))
    if row is None:
        row = VersionMetadataRow(model=model, version=version)
        session.add(row)
    _describe(row, metadata)
    session.flush()
    bump_generation(session)


def metadata_of(session: Session, model: str, version: int) -> Metadata:
    """What describes a version: said of it alone, else of its model."""
    own, general = own_metadata(session, model, version), settings_of(session, model).metadata
    return Metadata(
        general.description if own.description is None else own.description,
        general.class_names if own.class_names is None else own.class_names,
        general.input_specification if own.input_specification is None else own.input_specification,
    )


def serving_of(session: Session, model: str) -> Serving:
    """By what the model's versions run."""
    row = session.get(ModelSettingsRow, model)
    return ORDINARY if row is None else _serving(row)


def load_serving(session: Session) -> dict[str, Serving]:
    """By what versions run, by model; models without settings are not among them."""
    table = ModelSettingsRow
    columns = (table.model, table.pool, table.pinned, table.max_parallelism, table.max_instances)
    return {row.model: Serving(*row[1:]) for row in session.execute(select(*columns))}


@dataclass(frozen=True, slots=True)
class Specifications:
    """The input specifications, as JSON, of models and of versions alone."""

    of_models: Mapping[str, str]
    of_versions: Mapping[tuple[str, int], str]

    def of(self, model: str, version: int) -> str | None:
        """A version's: said of it alone, else of its model."""
        return self.of_versions.get((model, version)) or self.of_models.get(model)


def load_specifications(session: Session) -> Specifications:
    """All of them; few versions have one of their own."""
    models, versions = ModelSettingsRow, VersionMetadataRow
    general = select(models.model, models.input_specification).where(models.input_specification.is_not(None))
    own = select(versions.model, versions.version, versions.input_specification)
    own = own.where(versions.input_specification.is_not(None))
    return Specifications(
        {model: text for model, text in session.execute(general) if text is not None},
        {(model, version): text for model, version, text in session.execute(own) if text is not None},
    )


def _serving(row: ModelSettingsRow) -> Serving:
    return Serving(row.pool, row.pinned, row.max_parallelism, row.max_instances)


def _metadata(row: ModelSettingsRow | VersionMetadataRow) -> Metadata:
    names = None if row.class_names is None else tuple(json.loads(row.class_names))
    return Metadata(row.description, names, row.input_specification)


def _describe(row: ModelSettingsRow | VersionMetadataRow, metadata: Metadata) -> None:
    row.description = metadata.description
    row.class_names = None if metadata.class_names is None else json.dumps(metadata.class_names)
    row.input_specification = metadata.input_specification
