"""Labels: movable names for versions, what each pointed to before, and the gates that a move has to pass."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import ForeignKey, String, Text, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from model_store.database import Base
from model_store.errors import LabelMissing, LabelMoved, NoVersionBefore, VersionNotAvailable
from model_store.generation import bump_generation
from model_store.line_up import restore, settle
from model_store.names import check_name
from model_store.states import lock_model, lock_version
from model_store.tables import Label, State
from model_store.traffic import require_unnamed


class LabelGates(Base):
    """What a label demands of a version that it is to point to; kept whether or not the label is there."""

    __tablename__ = "label_gates"

    model: Mapped[str] = mapped_column(ForeignKey("models.name", ondelete="CASCADE"), primary_key=True)
    label: Mapped[str] = mapped_column(String(128), primary_key=True)
    gates: Mapped[str] = mapped_column(Text)  # JSON, written and read by gateways


@dataclass(frozen=True, slots=True)
class Seen:
    """Where a label points, where it pointed before, and what it demands, as JSON; all None where nothing does."""

    version: int | None = None
    previous: int | None = None
    gates: str | None = None


def look(session: Session, model: str, label: str) -> Seen:
    """The label at this moment."""
    found, demands = session.get(Label, (model, label)), session.get(LabelGates, (model, label))
    gates = None if demands is None else demands.gates
    return Seen(None, None, gates) if found is None else Seen(found.version, found.previous, gates)


def set_label(session: Session, model: str, label: str, version: int, *, seen: Seen | None = None) -> Seen:
    """Points a label, new or not, to an AVAILABLE version; returns where it points and pointed.

    The version that it leaves may leave the line-up. Raises NameInvalid, ModelNotFound, VersionNotAvailable, and
    LabelMoved where the label is not as it was `seen` when its gates were passed, or demands gates by now without any
    having been.
    """
    check_name(label, "label")
    # Of two at once that make the same label, the second finds the row of the first.
    lock_model(session, model)
    state = lock_version(session, model, version).state
    if state != State.AVAILABLE:
        raise VersionNotAvailable(f"version {version} is {state}; a label points to an AVAILABLE version only")
    if seen is not None:
        _require_unmoved(session, model, label, seen)
    elif look(session, model, label).gates is not None:
        raise LabelMoved(f"label {label} demands gates now; try again")
    found = _point(session, model, label, version)
    settle(session, model)
    bump_generation(session)
    return Seen(found.version, found.previous)


def roll_back(session: Session, model: str, label: str, *, seen: Seen) -> Seen:
    """Points a label to what it pointed to before, which comes back if it had left; a second time is forth again.

    Asks no gate: what served before is what one rolls back to. Raises LabelMissing, NoVersionBefore,
    VersionNotAvailable, and LabelMoved where the label is not as it was `seen`.
    """
    lock_model(session, model)
    previous = version_before(seen, model, label)
    _require_unmoved(session, model, label, seen)
    restore(session, model, [previous])
    found = _point(session, model, label, previous)
    settle(session, model)
    bump_generation(session)
    return Seen(found.version, found.previous)


def version_before(seen: Seen, model: str, label: str) -> int:
    """What a label pointed to before; raises LabelMissing, NoVersionBefore."""
    if seen.version is None:
        raise label_missing(model, label)
    if seen.previous is None:
        raise NoVersionBefore(f"label {label} of model {model} pointed to no other version before, or that is deleted")
    return seen.previous


def delete_label(session: Session, model: str, label: str) -> None:
    """Raises LabelMissing, and VersionInUse where the model's split names it.

    The version that only the label held may leave the line-up; the label's gates stay.
    """
    lock_model(session, model)
    found = session.get(Label, (model, label))
    if found is None:
        raise label_missing(model, label)
    require_unnamed(session, model, label)
    session.delete(found)
    session.flush()
    settle(session, model)
    bump_generation(session)


def set_gates(session: Session, model: str, label: str, gates: str | None) -> None:
    """What the label, there or not, demands from now on; None is nothing. Raises NameInvalid."""
    check_name(label, "label")
    lock_model(session, model)
    found = session.get(LabelGates, (model, label), populate_existing=True)
    if gates is None:
        if found is not None:
            session.delete(found)
    elif found is None:
        session.add(LabelGates(model=model, label=label, gates=gates))
    else:
        found.gates = gates
    session.flush()


def forget_version(session: Session, model: str, number: int) -> None:
    """No label can be rolled back to a version that is deleted."""
    session.execute(
        update(Label)
        .where(Label.model == model, Label.previous == number)
        .values(previous=None)
        .execution_options(synchronize_session="fetch")
    )


def label_missing(model: str, label: str) -> LabelMissing:
    return LabelMissing(f"model {model} has no label {label}")


def _require_unmoved(session: Session, model: str, label: str, seen: Seen) -> None:
    session.expire_all()
    if look(session, model, label) != seen:
        raise LabelMoved(f"label {label} was moved, or its gates were changed, at the same time; look, and try again")


def _point(session: Session, model: str, label: str, version: int) -> Label:
    found = session.get(Label, (model, label), populate_existing=True)
    if found is None:
        found = Label(model=model, name=label, version=version)
        session.add(found)
    elif found.version != version:
        found.previous, found.version = found.version, version
    session.flush()
    return found
