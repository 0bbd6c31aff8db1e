"""Imports of models from a registry: rows that a background worker fetches for under a lease, and that can be followed.

A worker that dies loses its lease, and another one begins the fetching again; nothing it stored has a version yet.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import BigInteger, ColumnElement, Index, Integer, String, Text, delete, func, select, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from model_store.database import Base, clock_ms, now_ms
from model_store.errors import SluiceError

LEASE_SECONDS = 60
ATTEMPTS = 3
# A client that asks without end would have every background worker fetch for it.
MOST_UNFINISHED = 16
KEPT_SECONDS = 7 * 86_400
PAGE_ROWS = 100


class ImportState(StrEnum):
    """Where an import is."""

    WAITING = "waiting"
    FETCHING = "fetching"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


class ImportNotFound(SluiceError):
    status = 404
    code = "import_not_found"


class TooManyImports(SluiceError):
    status = 429
    code = "too_many_imports"


class ModelImport(Base):
    """One import; due from `due_at` on, which is its lease's end while somebody fetches."""

    __tablename__ = "model_imports"
    __table_args__ = (
        Index("model_imports_by_model", "model", "created_at"),
        Index("model_imports_by_state", "state", "due_at"),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    model: Mapped[str] = mapped_column(String(128))
    uri: Mapped[str] = mapped_column(String(512))
    requested_by: Mapped[str] = mapped_column(String(128))
    authority: Mapped[str | None] = mapped_column(Text)  # by what it was asked for (auth/upload_authority.py), JSON
    state: Mapped[str] = mapped_column(String(16), default=ImportState.WAITING.value)
    fetched_bytes: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")
    total_bytes: Mapped[int | None] = mapped_column(BigInteger)
    source: Mapped[str | None] = mapped_column(Text)  # what the URI led to, JSON
    version: Mapped[int | None] = mapped_column(Integer)
    error_code: Mapped[str | None] = mapped_column(String(64))
    error_message: Mapped[str | None] = mapped_column(Text)
    attempt: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    fence: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    due_at: Mapped[int] = mapped_column(BigInteger, server_default=now_ms())
    created_at: Mapped[int] = mapped_column(BigInteger, server_default=now_ms())
    begun_at: Mapped[int | None] = mapped_column(BigInteger)  # when it was fetched for the first time
    ended_at: Mapped[int | None] = mapped_column(BigInteger)


@dataclass(frozen=True, slots=True)
class Claimed:
    """An import that this worker fetches for, as long as nobody has a higher fence.

    `age_ms` is how long ago it was fetched for the first time; those of earlier releases have no `authority`.
    """

    id: str
    model: str
    uri: str
    requested_by: str
    authority: str | None
    attempt: int
    fence: int
    age_ms: int


def request(session: Session, model: str, uri: str, client_id: str, authority: str | None = None) -> ModelImport:
    """A new import, due at once; `authority` is by what it is asked for, as text. Raises TooManyImports."""
    unfinished = select(func.count()).where(ModelImport.requested_by == client_id, _unfinished())
    if (session.scalar(unfinished) or 0) >= MOST_UNFINISHED:
        raise TooManyImports(f"{MOST_UNFINISHED} imports of this client wait or run; try again when one has ended")
    made = ModelImport(
        id=f"imp_{secrets.token_hex(16)}", model=model, uri=uri, requested_by=client_id, authority=authority
    )
    session.add(made)
    session.flush()
    session.refresh(made)
    return made


def find(session: Session, model: str, import_id: str) -> ModelImport:
    """Raises ImportNotFound."""
    found = session.get(ModelImport, import_id)
    if found is None or found.model != model:
        raise ImportNotFound("there is no such import of this model, or not any more")
    return found


def latest(session: Session, model: str, limit: int) -> Sequence[ModelImport]:
    """A model's imports, the newest first."""
    wanted = select(ModelImport).where(ModelImport.model == model)
    return session.scalars(wanted.order_by(ModelImport.created_at.desc(), ModelImport.id).limit(limit)).all()


def due(session: Session, limit: int) -> list[str]:
    """Imports that nobody fetches for, the longest waiting first."""
    wanted = select(ModelImport.id).where(_unfinished(), ModelImport.due_at <= now_ms())
    return list(session.scalars(wanted.order_by(ModelImport.due_at).limit(limit)))


def claim(session: Session, import_id: str) -> Claimed | None:
    """Takes an import for LEASE_SECONDS; None where it has ended, or somebody fetches for it."""
    row = session.execute(
        update(ModelImport)
        .where(ModelImport.id == import_id, _unfinished(), ModelImport.due_at <= now_ms())
        .values(
            state=ImportState.FETCHING.value,
            fence=ModelImport.fence + 1,
            attempt=ModelImport.attempt + 1,
            fetched_bytes=0,
            due_at=now_ms() + LEASE_SECONDS * 1000,
            begun_at=func.coalesce(ModelImport.begun_at, now_ms()),
        )
        .returning(
            ModelImport.model,
            ModelImport.uri,
            ModelImport.requested_by,
            ModelImport.authority,
            ModelImport.attempt,
            ModelImport.fence,
            now_ms() - ModelImport.begun_at,
        )
        .execution_options(synchronize_session=False)
    ).one_or_none()
    return None if row is None else Claimed(import_id, *row)


def progress(session: Session, held: Claimed, fetched_bytes: int, total_bytes: int) -> bool:
    """Says how far it is and renews the lease; False where it was taken over."""
    lease = now_ms() + LEASE_SECONDS * 1000
    return _write(session, held, fetched_bytes=fetched_bytes, total_bytes=total_bytes, due_at=lease)


def postpone(session: Session, held: Claimed, seconds: float) -> bool:
    """Gives it back, due again later; what stopped it may pass."""
    return _write(session, held, state=ImportState.WAITING.value, due_at=now_ms() + int(seconds * 1000))


def succeed(session: Session, held: Claimed, version: int, source: str) -> bool:
    """Ends it with the version that it became; False, and nothing may be published, where it was taken over."""
    ended = {"ended_at": now_ms(), "version": version, "source": source}
    return _write(session, held, state=ImportState.SUCCEEDED.value, **ended)


def fail(session: Session, held: Claimed, error: SluiceError) -> bool:
    """Ends it with an error."""
    said = {"ended_at": now_ms(), "error_code": error.code, "error_message": error.message[:2000]}
    return _write(session, held, state=ImportState.FAILED.value, **said)


def forget_all(session: Session, model: str) -> None:
    """Forgets a deleted model's imports; what is being fetched for one becomes no version."""
    session.execute(delete(ModelImport).where(ModelImport.model == model).execution_options(synchronize_session=False))


def purge(session: Session) -> int:
    """Forgets a page of imports that ended long ago; returns how many."""
    old = clock_ms(session) - KEPT_SECONDS * 1000
    page = select(ModelImport.id).where(ModelImport.ended_at < old).limit(PAGE_ROWS)
    ids = session.scalars(page).all()
    session.execute(delete(ModelImport).where(ModelImport.id.in_(ids)).execution_options(synchronize_session=False))
    return len(ids)


def _unfinished() -> ColumnElement[bool]:
    return ModelImport.state.in_((ImportState.WAITING.value, ImportState.FETCHING.value))


def _write(session: Session, held: Claimed, **values: object) -> bool:
    written = session.execute(
        update(ModelImport)
        .where(
            ModelImport.id == held.id, ModelImport.fence == held.fence, ModelImport.state == ImportState.FETCHING.value
        )
        .values(**values)
        .returning(ModelImport.id)
        .execution_options(synchronize_session=False)
    )
    return written.one_or_none() is not None
