"""A model as a whole out of service, and back: what the Open Inference Protocol calls to unload and to load.

To unload lets go of every version that serves, as a policy does of those that it does not want: none is withdrawn by
an administrator, so all come back together. Versions themselves, and their files, stay as they are.
"""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy.orm import Session

from model_store.errors import VersionInUse, VersionNotAvailable
from model_store.line_up import held_by, lines_of, planned, restore
from model_store.listing import find_model
from model_store.states import lock_model, lock_version, move
from model_store.tables import State
from model_store.traffic import targets_of
from model_store.version_policies import policy_of


def to_load(session: Session, model: str) -> tuple[int, ...]:
    """The versions that have to come back for the model to be in service; none where it is.

    Those that its policy wants; where that wants none, because all were retired, the highest that was prepared. Raises
    ModelNotFound, and VersionNotAvailable where nothing was prepared yet.
    """
    find_model(session, model)
    missing = planned(session, model, policy_of(session, model)).restore
    if missing:
        return missing
    lines = lines_of(session, model)
    if not lines:
        raise VersionNotAvailable(f"failed to load '{model}': none of its versions was prepared")
    return () if any(line.available for line in lines) else (max(line.number for line in lines),)


def load(session: Session, model: str, numbers: Collection[int]) -> tuple[int, ...]:
    """Brings those of the versions back, loaded before this transaction, that are wanted yet; returns them.

    Raises what `to_load` does, and VersionInUse where others moved versions meanwhile, so that the model would not be
    in service after this.
    """
    lock_model(session, model)
    wanted = to_load(session, model)
    if not set(wanted).issubset(numbers):
        raise VersionInUse(f"failed to load '{model}': its versions changed at the same time; look, and try again")
    restore(session, model, wanted)
    return wanted


def unload(session: Session, model: str) -> tuple[int, ...]:
    """Lets go of every version that serves, and says which; jobs that were submitted to them still run.

    Raises ModelNotFound, and VersionInUse while labels, traffic, a shadow or a canary need one of them.
    """
    find_model(session, model)
    lock_model(session, model)
    serving = [line.number for line in lines_of(session, model) if line.available]
    labels, targets = held_by(session, model), targets_of(session, model)
    for number in serving:
        needed_by = [f"label {name}" for name in labels.get(number, ())] + ["traffic"] * (number in targets)
        if needed_by:
            raise VersionInUse(f"failed to unload '{model}': version {number} is used by {', '.join(needed_by)}")
    for number in serving:
        move(session, lock_version(session, model, number), State.UNLOADING)
    return tuple(serving)
