"""Deleting a model with all that belongs to it, in two steps, and which version numbers its name has used up.

Gateways hear within the first step's second that nothing of it serves any more; the second one forgets it. A failure
between the two leaves a model of ended versions, which a second deletion finishes.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Integer, String, delete, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from model_store import imports, partial_uploads
from model_store.catalog import not_found
from model_store.database import Base, now_ms
from model_store.errors import VersionInUse
from model_store.generation import bump_generation
from model_store.partial_uploads import Partial
from model_store.states import move
from model_store.tables import Label, Model, State, Version
from model_store.traffic_tables import CanaryRow, ShadowRow, TrafficRow


class DeletedModel(Base):
    """A name that is free again: receipts, jobs and the audit log still say which of its versions they mean."""

    __tablename__ = "deleted_models"

    name: Mapped[str] = mapped_column(String(128), primary_key=True)
    last_version: Mapped[int] = mapped_column(Integer)
    deleted_at: Mapped[int] = mapped_column(BigInteger, server_default=now_ms())


def withdraw(session: Session, model: str) -> list[Partial]:
    """Ends every version, whatever led to it, and what would bring in others; returns uploads whose parts are left.

    Nothing but a deletion, or a new upload, follows. Raises ModelNotFound.
    """
    _lock(session, model)
    gone = _forget_arrivals(session, model)
    for table in (TrafficRow, ShadowRow, CanaryRow, Label):
        session.execute(delete(table).where(table.model == model).execution_options(synchronize_session=False))
    session.expire_all()
    for version in _versions(session, model):
        version.withdrawn = True
        move(session, version, State.END)
    session.flush()
    bump_generation(session)
    return gone


def forget(session: Session, model: str) -> list[Partial]:
    """Deletes a withdrawn model and all that belongs to it; returns uploads whose parts are left.

    Its bytes stay until the next sweep of the store, and its version numbers are not used again. Raises ModelNotFound,
    and VersionInUse where a version came in, or back, since it was withdrawn.
    """
    found = _lock(session, model)
    living = [version.number for version in _versions(session, model) if version.state != State.END]
    if living:
        raise VersionInUse(f"version {living[0]} came in, or back, at the same time; look, and delete the model again")
    gone = _forget_arrivals(session, model)
    session.merge(DeletedModel(name=model, last_version=found.last_version))
    # All else refers to one of these two, and goes with it.
    for table, column in ((Version, Version.model), (Model, Model.name)):
        session.execute(delete(table).where(column == model).execution_options(synchronize_session=False))
    session.expire_all()
    bump_generation(session)
    return gone


def take_up(session: Session, name: str) -> int:
    """The last version number that a name had used up when its model was deleted, else 0: it is a model's again."""
    found = session.get(DeletedModel, name)
    if found is None:
        return 0
    session.delete(found)
    return found.last_version


def _forget_arrivals(session: Session, model: str) -> list[Partial]:
    imports.forget_all(session, model)
    return partial_uploads.forget_all(session, model)


def _lock(session: Session, model: str) -> Model:
    wanted = select(Model).where(Model.name == model).with_for_update().execution_options(populate_existing=True)
    found = session.scalars(wanted).one_or_none()
    if found is None:
        raise not_found(model)
    return found


def _versions(session: Session, model: str) -> list[Version]:
    wanted = select(Version).where(Version.model == model).order_by(Version.number).with_for_update()
    return list(session.scalars(wanted.execution_options(populate_existing=True)))
