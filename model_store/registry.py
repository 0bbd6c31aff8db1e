"""Models, versions and labels: every change of them, and of the generation that tells gateways to look again."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, delete, select, union
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from model_store import deleted_models, shadows
from model_store.batching import Batching
from model_store.catalog import Catalog as Catalog
from model_store.catalog import CatalogModel as CatalogModel
from model_store.catalog import CatalogVersion as CatalogVersion
from model_store.catalog import load_catalog as load_catalog
from model_store.catalog import not_found
from model_store.database import clock_ms
from model_store.environment import Environment
from model_store.errors import VersionInUse, VersionNotReady
from model_store.further_signatures import NO_FURTHER, FurtherSignatures
from model_store.generation import bump_generation as bump_generation
from model_store.generation import read_generation as read_generation
from model_store.labels import delete_label as delete_label
from model_store.labels import forget_version
from model_store.labels import set_label as set_label
from model_store.line_up import retire as retire
from model_store.line_up import settle
from model_store.model_settings import ORDINARY, UNDESCRIBED, Metadata, Serving, metadata_of, serving_of
from model_store.names import NAME as NAME
from model_store.names import check_name as check_name
from model_store.samples import ModelSamples
from model_store.signature import Signature
from model_store.states import is_prepared, lock_model, lock_version, move
from model_store.tables import Model, State, Variant, Version


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
    golden_digest: str | None = None
    environment: Environment | None = None
    serving: Serving = ORDINARY
    metadata: Metadata = UNDESCRIBED
    further: FurtherSignatures = NO_FURTHER


def publish(  # noqa: PLR0913 - what is known of an upload, each by its name
    session: Session,
    model: str,
    *,
    format: str,
    digest: str,
    size_bytes: int,
    uploaded_by: str,
    signed_by: str | None = None,
    options: str | None = None,
) -> tuple[Version, bool]:
    """A new version in state START with the model's next number, and True.

    Where a version of the model with the same bytes and `options` (UploadOptions.to_json) lives, that one and False.
    Raises NameInvalid.
    """
    owner = _lock_model(session, check_name(model))
    living = (State.START, State.LOADING, State.AVAILABLE)
    existing = session.scalars(
        select(Version)
        .where(Version.model == model, Version.digest == digest, Version.state.in_(living))
        .where(Version.options.is_not_distinct_from(options))
        .order_by(Version.number.desc())
        .limit(1)
    ).first()
    if existing is not None:
        existing.signed_by = existing.signed_by or signed_by
        return existing, False
    owner.last_version += 1
    version = Version(
        model=model, number=owner.last_version, state=State.START.value, format=format, digest=digest,
        size_bytes=size_bytes, uploaded_by=uploaded_by, signed_by=signed_by, options=options,
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
    return move(session, lock_version(session, model, number), state, error_code, error_message)


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
    golden: str | None = None,
    environment: Environment | None = None,
    further: FurtherSignatures = NO_FURTHER,
    warming: bool = False,
    again: bool = False,
) -> bool:
    """Writes down what preparation found out and lets the version serve; `variant` names one of `variants`.

    While it is `warming`, workers may load it, but it stays LOADING. Once it serves, the model's policy may let others
    go. One that was prepared `again` stays in its state. Returns False, and changes nothing, for a version that was
    retired or made available meanwhile. Raises ModelNotFound.
    """
    if variant not in {offered.name for offered in variants}:
        raise ValueError(f"the chosen variant {variant!r} is not among those given")
    lock_model(session, model)
    version = lock_version(session, model, number)
    if not is_prepared(version) if again else version.state not in {State.START, State.LOADING}:
        return False
    if again:
        bump_generation(session)
    else:
        move(session, version, State.LOADING if warming else State.AVAILABLE)
        version.available_at = None if warming else clock_ms(session)
    before = session.scalar(_digest(model, number, version.variant))
    version.signature, version.further_signatures = signature.to_json(), further.to_json()
    version.variant = variant
    version.max_batch, version.max_parallelism, version.batch_seconds = max_batch, max_parallelism, batch_seconds
    version.report = json.dumps(report)
    version.golden = golden
    version.environment = None if environment is None else environment.to_json()
    # A preparation that was broken off while its version warmed up has left its own.
    session.execute(delete(Variant).where(Variant.model == model, Variant.version == number))
    for offered in variants:
        offered.model, offered.version = model, number
        session.merge(offered)  # a copy: the same are written once more when the version is warm
    session.flush()
    if not warming and not again:
        settle(session, model)
    if again and session.scalar(_digest(model, number, variant)) != before:
        shadows.begin_anew(session, model, number)
    return True


def refuse(session: Session, model: str, number: int, *, code: str, message: str, report: Mapping[str, Any]) -> bool:
    """Ends a version whose preparation failed; the code and the message say why. False if it had ended already."""
    version = lock_version(session, model, number)
    if not move(session, version, State.END, code, message):
        return False
    version.report = json.dumps(report)
    session.flush()
    return True


def note_failed_repeat(session: Session, model: str, number: int, failure: Mapping[str, Any]) -> None:
    """Adds to a version's report why its last repeated preparation changed nothing. Raises ModelNotFound."""
    version = lock_version(session, model, number)
    version.report = json.dumps(json.loads(version.report or "{}") | {"failed_repeat": failure})
    session.flush()


def delete_version(session: Session, model: str, number: int) -> None:
    """Forgets an ended version with its variants and preparation; its number is not used again.

    Raises ModelNotFound, and VersionInUse for any other state. The bytes stay until the next sweep of the store.
    """
    lock_model(session, model)
    version = require_ended(session, model, number)
    forget_version(session, model, number)
    session.delete(version)
    session.flush()
    bump_generation(session)


def require_ended(session: Session, model: str, number: int) -> Version:
    """The version, locked; raises ModelNotFound, and VersionInUse where its state is not END."""
    version = lock_version(session, model, number)
    if version.state != State.END:
        leaving = version.state == State.UNLOADING
        how = "jobs still run on it; try again when they have ended" if leaving else "retire it first"
        raise VersionInUse(f"version {number} is {version.state}; {how}")
    return version


def served(session: Session, model: str, number: int) -> Served:
    """What to load for a prepared version, also one that warms up or has left: whoever was let in before is answered.

    Who may call it now is for gateways to say. Raises ModelNotFound, and VersionNotReady for one that is not prepared.
    """
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
    if not is_prepared(version) or version.signature is None or variant is None:
        raise VersionNotReady(f"version {number} of model {model} is {version.state}", retry_after_seconds=1)
    serving = serving_of(session, model)
    return Served(
        model=model,
        number=number,
        signature=Signature.from_json(version.signature),
        runtime=variant.runtime,
        variant=variant.name,
        digest=variant.digest,
        memory_bytes=variant.memory_bytes,
        max_batch=version.max_batch,
        max_parallelism=serving.parallelism(version.max_parallelism),
        batch_seconds=version.batch_seconds,
        batching=Batching.from_report(None if version.report is None else json.loads(version.report)),
        upload_digest=version.digest,
        golden_digest=version.golden,
        environment=None if version.environment is None else Environment.from_json(version.environment),
        serving=serving,
        metadata=metadata_of(session, model, number),
        further=FurtherSignatures.from_json(version.further_signatures),
    )


def digests_in_use(session: Session) -> frozenset[str]:
    """Digests of all bytes that a version, or a variant, is made of, and of golden samples and models' samples."""
    golden = select(Version.golden).where(Version.golden.is_not(None))
    made_of = select(Version.digest), select(Variant.digest)
    return frozenset(session.scalars(union(*made_of, golden, select(ModelSamples.digest))))


def _digest(model: str, number: int, variant: str | None) -> Select[str]:
    return select(Variant.digest).where(Variant.model == model, Variant.version == number, Variant.name == variant)


def _lock_model(session: Session, name: str) -> Model:
    wanted = select(Model).where(Model.name == name).with_for_update().execution_options(populate_existing=True)
    found = session.scalars(wanted).one_or_none()
    if found is not None:
        return found
    # Of two first uploads of one name at once, the second finds the row of the first.
    with contextlib.suppress(IntegrityError), session.begin_nested():
        session.add(Model(name=name, last_version=deleted_models.take_up(session, name)))
    return session.scalars(wanted).one()
