"""Models, versions and labels: every change of them, and of the generation that tells gateways to look again."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select, union
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from model_store.batching import Batching
from model_store.catalog import Catalog as Catalog
from model_store.catalog import CatalogModel as CatalogModel
from model_store.catalog import CatalogVersion as CatalogVersion
from model_store.catalog import load_catalog as load_catalog
from model_store.catalog import not_found
from model_store.database import clock_ms
from model_store.errors import LabelMissing, NameInvalid, VersionInUse, VersionNotAvailable, VersionNotReady
from model_store.generation import bump_generation as bump_generation
from model_store.generation import read_generation as read_generation
from model_store.signature import Signature
from model_store.tables import Label, Model, State, Variant, Version

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")

# A version moves on only; END is for ever. Moves to the state it is in happen when a preparation is run again.
_BEFORE: Mapping[State, frozenset[State]] = {
    State.START: frozenset({State.START, State.LOADING}),
    State.LOADING: frozenset({State.START, State.LOADING}),
    State.AVAILABLE: frozenset({State.START, State.LOADING}),
    State.UNLOADING: frozenset({State.AVAILABLE}),
    State.END: frozenset({State.START, State.LOADING, State.AVAILABLE, State.UNLOADING}),
}


@dataclass(frozen=True, slots=True)
class Served:
    """What a worker must know to load and run an AVAILABLE version; `digest` is that of the chosen variant,
    `upload_digest` that of the uploaded file."""

    model: str
    number: int
    signature: Signature
    runtime: str
    variant: str
    digest: str
    memory_bytes: int
    max_batch: int
    max_parallelism: int
    batch_seconds: float | None
    batching: Batching | None = None
    upload_digest: str = ""


def check_name(name: str, what: str = "model") -> str:
    """The name itself; raises NameInvalid with the rule that it breaks."""
    if not NAME.fullmatch(name):
        raise NameInvalid(
            f"not a {what}'s name: 1 to 128 letters, digits, '.', '_' and '-', beginning with a letter or a digit"
        )
    return name


def publish(
    session: Session,
    model: str,
    *,
    format: str,
    digest: str,
    size_bytes: int,
    uploaded_by: str,
    signed_by: str | None = None,
) -> tuple[Version, bool]:
    """A new version in state START with the model's next number, and True.

    Where a version of the model with the same bytes lives, that one and False. Raises NameInvalid.
    """
    owner = _lock_model(session, check_name(model))
    living = (State.START, State.LOADING, State.AVAILABLE)
    existing = session.scalars(
        select(Version)
        .where(Version.model == model, Version.digest == digest, Version.state.in_(living))
        .order_by(Version.number.desc())
        .limit(1)
    ).first()
    if existing is not None:
        existing.signed_by = existing.signed_by or signed_by
        return existing, False
    owner.last_version += 1
    version = Version(
        model=model, number=owner.last_version, state=State.START.value, format=format, digest=digest,
        size_bytes=size_bytes, uploaded_by=uploaded_by, signed_by=signed_by,
    )  # fmt: skip
    session.add(version)
    session.flush()
    bump_generation(session)
    return version, True


def set_state(
    session: Session,
    model: str,
    number: int,
    state: State,
    *,
    error_code: str | None = None,
    error_message: str | None = None,
) -> bool:
    """Moves a version on and says whether that happened: not from END, nor backwards. Raises ModelNotFound."""
    return _move(session, _lock_version(session, model, number), state, error_code, error_message)


def make_available(  # noqa: PLR0913 - what a preparation found out, each by its name
    session: Session,
    model: str,
    number: int,
    *,
    signature: Signature,
    variant: str,
    variants: Sequence[Variant],
    max_batch: int,
    max_parallelism: int,
    batch_seconds: float | None,
    report: Mapping[str, Any],
) -> bool:
    """Writes down what preparation found out and lets the version serve; `variant` names one of `variants`.

    Returns False, and changes nothing, for a version that was retired or made available meanwhile. Raises
    ModelNotFound.
    """
    if variant not in {offered.name for offered in variants}:
        raise ValueError(f"the chosen variant {variant!r} is not among those given")
    version = _lock_version(session, model, number)
    if not _move(session, version, State.AVAILABLE):
        return False
    version.signature = signature.to_json()
    version.variant = variant
    version.max_batch, version.max_parallelism, version.batch_seconds = max_batch, max_parallelism, batch_seconds
    version.report = json.dumps(report)
    version.available_at = clock_ms(session)
    for offered in variants:
        offered.model, offered.version = model, number
        session.add(offered)
    session.flush()
    return True


def refuse(session: Session, model: str, number: int, *, code: str, message: str, report: Mapping[str, Any]) -> bool:
    """Ends a version whose preparation failed; the code and the message say why. False if it had ended already."""
    version = _lock_version(session, model, number)
    if not _move(session, version, State.END, code, message):
        return False
    version.report = json.dumps(report)
    session.flush()
    return True


def retire(session: Session, model: str, number: int) -> bool:
    """Takes a version out of service for ever; False if it had ended already.

    Raises ModelNotFound, and VersionInUse while a label points to it: callers by that label would fail.
    """
    version = _lock_version(session, model, number)
    labels = session.scalars(select(Label.name).where(Label.model == model, Label.version == number)).all()
    if labels:
        raise VersionInUse(f"labels point to version {number}: {', '.join(sorted(labels))}; move or delete them first")
    return _move(session, version, State.END)


def delete_version(session: Session, model: str, number: int) -> None:
    """Forgets an ended version with its variants and preparation; its number is not used again.

    Raises ModelNotFound, and VersionInUse for any other state. The bytes stay until the next sweep of the store.
    """
    version = _lock_version(session, model, number)
    if version.state != State.END:
        raise VersionInUse(f"version {number} is {version.state}; retire it first")
    session.delete(version)
    session.flush()
    bump_generation(session)


def set_label(session: Session, model: str, label: str, version: int) -> None:
    """Points a label, new or not, to an AVAILABLE version; raises NameInvalid, ModelNotFound, VersionNotAvailable."""
    check_name(label, "label")
    # Of two at once that make the same label, the second finds the row of the first.
    session.execute(select(Model.name).where(Model.name == model).with_for_update())
    found = _lock_version(session, model, version)
    if found.state != State.AVAILABLE:
        raise VersionNotAvailable(f"version {version} is {found.state}; a label points to an AVAILABLE version only")
    session.merge(Label(model=model, name=label, version=version))
    session.flush()
    bump_generation(session)


def delete_label(session: Session, model: str, label: str) -> None:
    """Raises LabelMissing."""
    found = session.get(Label, (model, label))
    if found is None:
        raise LabelMissing(f"model {model} has no label {label}")
    session.delete(found)
    session.flush()
    bump_generation(session)


def served(session: Session, model: str, number: int) -> Served:
    """What to load for an AVAILABLE version; raises ModelNotFound, and VersionNotReady in any other state."""
    row = session.execute(
        select(Version, Variant)
        .outerjoin(
            Variant,
            (Variant.model == Version.model) & (Variant.version == Version.number) & (Variant.name == Version.variant),
        )
        .where(Version.model == model, Version.number == number)
    ).one_or_none()
    if row is None:
        raise not_found(model, number)
    version, variant = row
    if version.state != State.AVAILABLE or version.signature is None or variant is None:
        raise VersionNotReady(f"version {number} of model {model} is {version.state}", retry_after_seconds=1)
    return Served(
        model=model,
        number=number,
        signature=Signature.from_json(version.signature),
        runtime=variant.runtime,
        variant=variant.name,
        digest=variant.digest,
        memory_bytes=variant.memory_bytes,
        max_batch=version.max_batch,
        max_parallelism=version.max_parallelism,
        batch_seconds=version.batch_seconds,
        batching=Batching.from_report(None if version.report is None else json.loads(version.report)),
        upload_digest=version.digest,
    )


def digests_in_use(session: Session) -> frozenset[str]:
    """Digests of all bytes that a version, or a variant of one, is made of."""
    return frozenset(session.scalars(union(select(Version.digest), select(Variant.digest))))


def _lock_model(session: Session, name: str) -> Model:
    wanted = select(Model).where(Model.name == name).with_for_update().execution_options(populate_existing=True)
    found = session.scalars(wanted).one_or_none()
    if found is not None:
        return found
    # Of two first uploads of one name at once, the second finds the row of the first.
    with contextlib.suppress(IntegrityError), session.begin_nested():
        session.add(Model(name=name, last_version=0))
    return session.scalars(wanted).one()


def _lock_version(session: Session, model: str, number: int) -> Version:
    found = session.scalars(
        select(Version)
        .where(Version.model == model, Version.number == number)
        .with_for_update()
        .execution_options(populate_existing=True)
    ).one_or_none()
    if found is None:
        raise not_found(model, number)
    return found


def _move(
    session: Session, version: Version, state: State, error_code: str | None = None, error_message: str | None = None
) -> bool:
    if State(version.state) not in _BEFORE[state]:
        return False
    version.state = state.value
    version.error_code, version.error_message = error_code, error_message
    session.flush()
    bump_generation(session)
    return True
