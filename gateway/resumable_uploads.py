"""Uploads that survive a broken connection: pieces by Content-Range, kept one after the other, put together at the end.

The way of Google's resumable uploads (cloud.google.com/storage/docs/performing-resumable-uploads): a piece that is not
the last is answered by 308 and how far the file has come (`Range`), and so is the question `Content-Range: bytes */N`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime

import anyio
from anyio.to_thread import run_sync
from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field, StrictInt
from pydantic.config import JsonDict
from starlette.requests import ClientDisconnect

from gateway.parts import Parts
from gateway.upload_formats import format_of
from gateway.uploads import RawBody, Upload, UploadIncomplete, in_pieces
from model_store import partial_uploads
from model_store.artifacts import Artifacts
from model_store.database import transaction
from model_store.files import PartWriter, delete_file
from model_store.formats import Format, check_allowed
from model_store.partial_uploads import Partial, RangeInvalid, UploadOvertaken
from model_store.receipts import empty

# What a gateway that dies may lose of an upload: the client sends it again.
COUNTED_BYTES = 16 * 1024**2
_RANGE = re.compile(r"bytes (?:(\d{1,18})-(\d{1,18})|\*)/(\d{1,18})")


class UploadWanted(BaseModel):
    """The file that is going to come."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"size_bytes": 104857600}]})

    size_bytes: StrictInt = Field(ge=1, le=2**62, description="How large the whole file is.")


EXAMPLE: JsonDict = {
    "id": "up_9f86d081884c7d659a2feaa0c55ad015",
    "model": "mnist",
    "size_bytes": 104857600,
    "received_bytes": 67108864,
    "version": None,
    "expires_at": "2026-11-23T13:10:00.123000Z",
}


class UploadShown(BaseModel):
    """How far an upload has come."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})

    id: str
    model: str
    size_bytes: int
    received_bytes: int = Field(description="How much of it is kept, from its beginning: go on with the next byte.")
    version: int | None = Field(description="The version that the whole file became.")
    expires_at: datetime = Field(description="When it is forgotten unless another piece comes.")


class UploadsShown(BaseModel):
    """A client's uploads that may still go on."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"uploads": [EXAMPLE]}]})

    uploads: list[UploadShown]


def show(upload: Partial) -> UploadShown:
    return UploadShown(
        id=upload.id,
        model=upload.model,
        size_bytes=upload.size_bytes,
        received_bytes=upload.received_bytes,
        version=upload.version,
        expires_at=datetime.fromtimestamp(upload.expires_at / 1000, UTC),
    )


def range_of(upload: Partial) -> dict[str, str]:
    """The header that says what is kept; none where nothing is."""
    return {"range": f"bytes=0-{upload.received_bytes - 1}"} if upload.received_bytes else {}


def announced_bytes(header: str | None, upload: Partial) -> int:
    """How many bytes a request brings by its Content-Range, 0 for a question; raises RangeInvalid."""
    found = _RANGE.fullmatch(header or "")
    if found is None:
        raise RangeInvalid("say which piece this is: Content-Range: bytes FIRST-LAST/SIZE, or bytes */SIZE to ask")
    first, last, size = found.groups()
    if int(size) != upload.size_bytes:
        raise RangeInvalid(f"the upload was begun for a file of {upload.size_bytes} bytes, not {size}")
    if first is None:
        return 0
    if int(first) != upload.received_bytes or not int(first) <= int(last) < upload.size_bytes:
        kept = upload.received_bytes
        raise RangeInvalid(f"{kept} of {upload.size_bytes} bytes are kept: go on with byte {kept}")
    return int(last) - int(first) + 1


async def receive_piece(
    request: Request, parts: Parts, upload: Partial, length: int, check: Callable[[bytes], object]
) -> Partial:
    """Keeps the body's bytes, at most `length`, as the file's next ones; `check` is given the file's first ones.

    What came is kept also where the connection breaks. Raises UploadIncomplete then, RangeInvalid for a longer body,
    UploadOvertaken, StoreFull, and what `check` raises.
    """
    part = await run_sync(_CountedPart, parts, upload)
    try:
        async for piece in in_pieces(RawBody(request).chunks()):
            if part.size_bytes + len(piece) > length:
                raise RangeInvalid(f"the body is longer than the {length} bytes that Content-Range announces")
            if not upload.parts and not part.size_bytes:
                check(piece)
            await run_sync(part.append, piece)
    except ClientDisconnect:
        raise UploadIncomplete("the connection closed before the piece was complete; what came is kept") from None
    finally:
        with anyio.CancelScope(shield=True):
            await run_sync(part.close)
    with transaction(parts.sessions, write=False) as session:
        return partial_uploads.find(session, upload.id, upload.model, upload.client_id)


class _CountedPart:
    """The part that one request writes, and how much of it the upload's row counts."""

    def __init__(self, parts: Parts, upload: Partial) -> None:
        self._parts = parts
        self._upload = upload
        self._writer = PartWriter(parts.artifacts, f"{upload.id}.{upload.turn}")
        self._counted = 0

    @property
    def size_bytes(self) -> int:
        return self._writer.written.size_bytes

    def append(self, piece: bytes) -> None:
        """Raises StoreFull, UploadOvertaken."""
        self._writer.append(piece)
        if self.size_bytes - self._counted >= COUNTED_BYTES:
            self._count()

    def close(self) -> None:
        """Counts the rest; a part of which no row says anything is removed. Raises UploadOvertaken."""
        self._writer.__exit__()
        try:
            if self.size_bytes > self._counted:
                self._count()
        except UploadOvertaken:
            if not self._counted:
                delete_file(self._parts.artifacts, self._writer.written.name)
            raise
        if not self.size_bytes:
            delete_file(self._parts.artifacts, self._writer.written.name)

    def _count(self) -> None:
        with transaction(self._parts.sessions) as session:
            partial_uploads.count(session, self._upload, [*self._upload.parts, self._writer.written])
        self._counted = self.size_bytes


def put_together(artifacts: Artifacts, upload: Partial, format: Format | None, allowed: str) -> Upload:
    """The whole file as an artifact; raises FormatUnsupported, StoreFull, ArtifactMissing, ArtifactCorrupt."""
    with artifacts.receive() as receipt:
        for piece in partial_uploads.pieces(artifacts, upload):
            if not receipt.size_bytes:
                format = known_format(piece, format, allowed)
            receipt.write(piece)
        if format is None:
            raise empty()
        return Upload(format, receipt.commit())


def known_format(first: bytes, format: Format | None, allowed: str) -> Format:
    """What a file with these first bytes is; raises FormatUnsupported where that is not told, or not allowed."""
    found = format or format_of(first, "")
    check_allowed(found, allowed)
    return found
