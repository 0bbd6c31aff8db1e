"""Uploads that come in pieces: how much of each is in the store, as rows and parts of files.

A piece is written into a part of its own and counts once it is in the row: what a gateway that died had written of it,
nobody ever reads. Only a whole file becomes an artifact, and only that becomes a version.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass

from sqlalchemy import BigInteger, Index, Integer, String, Text, func, select, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from model_store.artifacts import Artifacts
from model_store.database import Base, Sessions, clock_ms, transaction
from model_store.errors import SluiceError
from model_store.files import Part, delete_file, read_part

# A client that lost its connections begins again rather than hold room in the store without end.
MOST_UPLOADS = 16
EXPIRY_SECONDS = 24 * 3600
PURGED_ROWS = 100
MOST_PARTS = 4096


class UploadNotFound(SluiceError):
    """No such upload, or another client's, or one that expired."""

    status = 404
    code = "upload_not_found"


class TooManyUploads(SluiceError):
    status = 429
    code = "too_many_uploads"


class RangeInvalid(SluiceError):
    """The piece is not the one that the upload goes on with."""

    status = 416
    code = "range_invalid"


class UploadOvertaken(SluiceError):
    """Another request has gone on with the same upload meanwhile."""

    status = 409
    code = "upload_overtaken"


class ModelUpload(Base):
    """A file on its way; `turn` counts the requests that took it on, of which only the last may write it down."""

    __tablename__ = "model_uploads"
    __table_args__ = (Index("model_uploads_by_client", "client_id"), Index("model_uploads_by_expiry", "expires_at"))

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    model: Mapped[str] = mapped_column(String(128))
    client_id: Mapped[str] = mapped_column(String(64))
    asked: Mapped[str] = mapped_column(Text)  # what was said of the file, JSON
    signature: Mapped[str | None] = mapped_column(String(255))
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    received_bytes: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")
    parts: Mapped[str] = mapped_column(Text, default="[]", server_default="[]")  # a JSON list of parts as lists
    turn: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    version: Mapped[int | None] = mapped_column(Integer)  # that the whole file became
    expires_at: Mapped[int] = mapped_column(BigInteger)


@dataclass(frozen=True, slots=True)
class Partial:
    """An upload as one request took it on; `version` is known once all of it is there and was published."""

    id: str
    model: str
    client_id: str
    asked: str
    signature: str | None
    size_bytes: int
    parts: tuple[Part, ...]
    turn: int
    version: int | None
    expires_at: int

    @property
    def received_bytes(self) -> int:
        return self.size_bytes if self.version is not None else sum(part.size_bytes for part in self.parts)

    @property
    def whole(self) -> bool:
        return self.received_bytes == self.size_bytes


def begin(
    session: Session, model: str, client_id: str, size_bytes: int, *, asked: str, signature: str | None
) -> Partial:
    """A new upload of a file of so many bytes; raises TooManyUploads."""
    open_ones = select(func.count()).where(
        ModelUpload.client_id == client_id, ModelUpload.version.is_(None), ModelUpload.expires_at > clock_ms(session)
    )
    if (session.scalar(open_ones) or 0) >= MOST_UPLOADS:
        raise TooManyUploads(f"{MOST_UPLOADS} uploads of this client are unfinished; finish or delete one of them")
    row = ModelUpload(
        id=f"up_{secrets.token_hex(16)}", model=model, client_id=client_id, asked=asked, signature=signature,
        size_bytes=size_bytes, received_bytes=0, parts="[]", turn=0, expires_at=_expiry(session),
    )  # fmt: skip
    session.add(row)
    session.flush()
    return _partial(row)


def unfinished(session: Session, model: str, client_id: str) -> list[Partial]:
    """A client's uploads that may still go on, what was gone on with last first: `MOST_UPLOADS` of them at most."""
    open_ones = (
        select(ModelUpload)
        .where(
            ModelUpload.client_id == client_id, ModelUpload.model == model, ModelUpload.version.is_(None),
            ModelUpload.expires_at > clock_ms(session),
        )
        .order_by(ModelUpload.expires_at.desc(), ModelUpload.id)
        .limit(MOST_UPLOADS)
    )  # fmt: skip
    return [_partial(row) for row in session.scalars(open_ones)]


def find(session: Session, upload_id: str, model: str, client_id: str) -> Partial:
    """Raises UploadNotFound."""
    return _partial(_row(session, upload_id, model, client_id))


def take_on(session: Session, upload_id: str, model: str, client_id: str) -> Partial:
    """The upload for a request that will write to it; one that began before may not any more.

    Raises UploadNotFound, RangeInvalid.
    """
    row = _row(session, upload_id, model, client_id)
    if row.turn >= MOST_PARTS:
        raise RangeInvalid(f"an upload may be gone on with {MOST_PARTS} times: begin again, with larger pieces")
    row.turn += 1
    row.expires_at = _expiry(session)
    session.flush()
    return _partial(row)


def count(session: Session, upload: Partial, parts: Sequence[Part]) -> None:
    """Write down that these parts are there; raises UploadOvertaken where another request took the upload on."""
    listed = json.dumps([astuple(part) for part in parts])
    received = sum(part.size_bytes for part in parts)
    _change(session, upload, parts=listed, received_bytes=received)


def finish(session: Session, upload: Partial, version: int) -> None:
    """Write down which version the whole file became; its parts are no longer needed. Raises UploadOvertaken."""
    _change(session, upload, version=version, parts="[]", received_bytes=upload.size_bytes)


def remove(session: Session, upload_id: str, model: str, client_id: str) -> Partial:
    """Forget an upload, and return it for its parts to be deleted; raises UploadNotFound."""
    row = _row(session, upload_id, model, client_id)
    session.delete(row)
    session.flush()
    return _partial(row)


def forget_all(session: Session, model: str) -> list[Partial]:
    """Forgets a deleted model's uploads, of all clients, and returns them for their parts to be deleted."""
    rows = session.scalars(select(ModelUpload).where(ModelUpload.model == model).with_for_update()).all()
    for row in rows:
        session.delete(row)
    session.flush()
    return [_partial(row) for row in rows]


def pieces(artifacts: Artifacts, upload: Partial) -> Iterator[bytes]:
    """What of the file is there, from its beginning; raises ArtifactMissing, ArtifactCorrupt."""
    for part in upload.parts:
        yield from read_part(artifacts, part)


def delete_parts(artifacts: Artifacts, upload: Partial) -> None:
    for part in upload.parts:
        delete_file(artifacts, part.name)


def purge(sessions: Sessions, artifacts: Artifacts) -> int:
    """Forgets uploads that expired, at most a page of them, and deletes their parts; returns how many."""
    with transaction(sessions) as session:
        expired = session.scalars(
            select(ModelUpload)
            .where(ModelUpload.expires_at <= clock_ms(session))
            .order_by(ModelUpload.expires_at)
            .limit(PURGED_ROWS)
            .with_for_update(skip_locked=True)
        ).all()
        gone = [_partial(row) for row in expired]
        for row in expired:
            session.delete(row)
    for upload in gone:
        delete_parts(artifacts, upload)
    return len(gone)


def _row(session: Session, upload_id: str, model: str, client_id: str) -> ModelUpload:
    row = session.scalars(
        select(ModelUpload)
        .where(ModelUpload.id == upload_id, ModelUpload.model == model, ModelUpload.client_id == client_id)
        .with_for_update()
        .execution_options(populate_existing=True)
    ).one_or_none()
    if row is None or row.expires_at <= clock_ms(session):
        raise UploadNotFound("there is no such upload of this client; it may have expired: begin again")
    return row


def _change(session: Session, upload: Partial, **values: object) -> None:
    changed = update(ModelUpload).where(ModelUpload.id == upload.id, ModelUpload.turn == upload.turn)
    if session.execute(changed.values(**values)).rowcount != 1:  # type: ignore[attr-defined]  # a CursorResult
        raise UploadOvertaken("another request has gone on with this upload; ask how far it is")


def _partial(row: ModelUpload) -> Partial:
    parts = tuple(Part(*part) for part in json.loads(row.parts))
    return Partial(
        row.id,
        row.model,
        row.client_id,
        row.asked,
        row.signature,
        row.size_bytes,
        parts,
        row.turn,
        row.version,
        row.expires_at,
    )


def _expiry(session: Session) -> int:
    return clock_ms(session) + EXPIRY_SECONDS * 1000
