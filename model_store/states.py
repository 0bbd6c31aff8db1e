"""States of versions: which moves there are, and the one place that makes them."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import select
from sqlalchemy.orm import Session

from model_store.catalog import not_found
from model_store.generation import bump_generation
from model_store.tables import Model, State, Version

# What may lead where. Moves to the state it is in happen when a preparation is run again. Out of END comes only what
# was prepared and did not fail (`is_prepared`).
_BEFORE: Mapping[State, frozenset[State]] = {
    State.START: frozenset({State.START, State.LOADING}),
    State.LOADING: frozenset({State.START, State.LOADING}),
    State.AVAILABLE: frozenset({State.START, State.LOADING, State.UNLOADING, State.END}),
    State.UNLOADING: frozenset({State.AVAILABLE}),
    State.END: frozenset({State.START, State.LOADING, State.AVAILABLE, State.UNLOADING}),
}


def lock_model(session: Session, model: str) -> None:
    """Keeps every other change of the model's versions and labels waiting; taken before a version's own lock."""
    session.execute(select(Model.name).where(Model.name == model).with_for_update())


def lock_version(session: Session, model: str, number: int) -> Version:
    """The version as it is now, kept from other changes; raises ModelNotFound."""
    found = session.scalars(
        select(Version)
        .where(Version.model == model, Version.number == number)
        .with_for_update()
        .execution_options(populate_existing=True)
    ).one_or_none()
    if found is None:
        raise not_found(model, number)
    return found


def is_prepared(version: Version) -> bool:
    """Whether preparation ended well, so that workers can load it: true until it is deleted."""
    return version.variant is not None and version.error_code is None


def move(
    session: Session, version: Version, state: State, error_code: str | None = None, error_message: str | None = None
) -> bool:
    """Moves a version and says whether that happened; the generation tells gateways."""
    ended = State(version.state) in {State.UNLOADING, State.END}
    if State(version.state) not in _BEFORE[state] or (state is State.AVAILABLE and ended and not is_prepared(version)):
        return False
    version.state = state.value
    version.error_code, version.error_message = error_code, error_message
    session.flush()
    bump_generation(session)
    return True
