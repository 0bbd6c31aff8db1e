"""Files of clients on their way into the store: streamed, bounded for each client, kept under ids of their own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import anyio
from anyio.to_thread import run_sync
from sqlalchemy.orm import Session
from starlette.requests import ClientDisconnect

from gateway.parts import Parts
from gateway.uploads import UploadIncomplete, in_pieces
from model_store.database import clock_ms, transaction
from model_store.errors import ArtifactTooLarge
from model_store.files import delete_file
from model_store.receipts import Stored, empty
from workers.files.keeping import NEVER, FilesFull, kept_by, new_file_id
from workers.files.tables import File


@dataclass(frozen=True, slots=True)
class NewFile:
    """What a file is to be: whose, what for, and in which format; `kept_seconds` is None where a job keeps it."""

    client_id: str
    name: str
    purpose: str
    format: str
    kept_seconds: float | None = None


# Uploads and results of one client, however small: each is a row, and a file on the disk.
MOST_FILES = 100_000


async def receive_file(parts: Parts, new: NewFile, chunks: AsyncIterator[bytes]) -> File:
    """Streams a file into the store; its row is committed.

    Raises ArtifactTooLarge, FilesFull (413), ArtifactEmpty (422), UploadIncomplete (400), StoreFull (507); in each case
    nothing is kept.
    """
    limit = await run_sync(room, parts, new.client_id)
    file_id = new_file_id()
    try:
        stored = await _store(parts, file_id, min(limit, parts.settings.file_bytes), chunks)
    except ArtifactTooLarge:
        if limit < parts.settings.file_bytes:
            raise full(parts.settings.files_bytes) from None
        raise
    except ClientDisconnect:
        raise UploadIncomplete("the connection closed before the file was complete") from None
    return await run_sync(_keep, parts, new, file_id, stored)


def room(parts: Parts, client_id: str) -> int:
    """How many bytes the client may still add; raises FilesFull where there are none."""
    with transaction(parts.sessions, write=False) as session:
        return require_room(session, parts, client_id, 1)


def require_room(session: Session, parts: Parts, client_id: str, size: int) -> int:
    files, size_bytes = kept_by(session, client_id)
    if files >= MOST_FILES:
        raise FilesFull(f"this client has {files} files already; delete some first")
    left = parts.settings.files_bytes - size_bytes
    if left < size:
        raise full(parts.settings.files_bytes)
    return left


def full(most: int) -> FilesFull:
    return FilesFull(f"this client's files would have more than {most} bytes; delete some first")


async def _store(parts: Parts, file_id: str, limit: int, chunks: AsyncIterator[bytes]) -> Stored:
    pieces = in_pieces(chunks)
    first = await anext(pieces, b"")
    if not first:
        raise empty()
    # Files are written in threads: a slow disk must not hold up everybody else's predictions.
    receipt = await run_sync(parts.artifacts.receive_file, file_id, limit)
    try:
        await run_sync(receipt.write, first)
        async for piece in pieces:
            await run_sync(receipt.write, piece)
        return await run_sync(receipt.commit)
    finally:
        with anyio.CancelScope(shield=True):
            await run_sync(receipt.close)


def _keep(parts: Parts, new: NewFile, file_id: str, stored: Stored) -> File:
    try:
        with transaction(parts.sessions) as session:
            # Once more: several uploads at a time were each told of the same room.
            require_room(session, parts, new.client_id, stored.size_bytes)
            now = clock_ms(session)
            file = File(
                id=file_id,
                client_id=new.client_id,
                name=new.name[:255],
                purpose=new.purpose,
                format=new.format,
                size_bytes=stored.size_bytes,
                digest=bytes.fromhex(stored.digest),
                created_at=now,
                expires_at=NEVER if new.kept_seconds is None else now + int(new.kept_seconds * 1000),
            )
            session.add(file)
    except BaseException:  # raised on: without its row nobody would ever delete the file, whatever happened
        delete_file(parts.artifacts, file_id)
        raise
    return file
