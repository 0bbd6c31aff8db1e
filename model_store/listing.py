"""Reading models and versions for administration: rows, in a stable order, a page at a time."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session, load_only

from model_store.catalog import not_found
from model_store.signature import Signature
from model_store.tables import Label, Model, Variant, Version

PAGE_ROWS = 1000


def find_model(session: Session, name: str) -> Model:
    """Raises ModelNotFound."""
    found = session.get(Model, name)
    if found is None:
        raise not_found(name)
    return found


def find_version(session: Session, model: str, number: int) -> Version:
    """Raises ModelNotFound."""
    found = session.get(Version, (model, number))
    if found is None:
        raise not_found(model, number)
    return found


def models_after(session: Session, name: str, limit: int, seen: Callable[[str], bool]) -> Sequence[Model]:
    """At most `limit` models in the order of their names, beginning after `name`: those whose names are `seen`."""
    found: list[Model] = []
    while True:
        page = session.scalars(select(Model).where(Model.name > name).order_by(Model.name).limit(PAGE_ROWS)).all()
        found += [model for model in page if seen(model.name)]
        if len(page) < PAGE_ROWS or len(found) >= limit:
            return found[:limit]
        name = page[-1].name


def versions_of(session: Session, models: Collection[str]) -> Sequence[Version]:
    """The models' versions by number; without what is long (report, signature), which is read when it is asked for."""
    short = load_only(
        Version.model, Version.number, Version.state, Version.format, Version.created_at, Version.available_at,
        Version.error_code, Version.error_message,
    )  # fmt: skip
    wanted = select(Version).options(short).where(Version.model.in_(models))
    return session.scalars(wanted.order_by(Version.model, Version.number)).all()


def labels_of(session: Session, models: Collection[str]) -> Sequence[Label]:
    """The models' labels by name."""
    return session.scalars(select(Label).where(Label.model.in_(models)).order_by(Label.model, Label.name)).all()


def variants_of(session: Session, model: str, number: int) -> Sequence[Variant]:
    """A version's variants by name."""
    wanted = select(Variant).where(Variant.model == model, Variant.version == number)
    return session.scalars(wanted.order_by(Variant.name)).all()


def newest_signature(session: Session, model: str) -> Signature | None:
    """The signature of the model's newest version that was ever prepared."""
    wanted = select(Version.signature).where(Version.model == model, Version.signature.is_not(None))
    found = session.scalar(wanted.order_by(Version.number.desc()).limit(1))
    return None if found is None else Signature.from_json(found)
