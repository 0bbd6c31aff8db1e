"""Archives of samples on their way in: streamed into the store, then checked against the model's newest signature."""

from __future__ import annotations

from datetime import UTC, datetime

import anyio
from anyio.to_thread import run_sync
from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session
from starlette.requests import ClientDisconnect

from gateway.uploads import RawBody, UploadIncomplete, in_pieces
from model_store import listing
from model_store.artifacts import Artifacts
from model_store.errors import VersionNotAvailable
from model_store.receipts import Stored, too_large
from model_store.samples import Kind, ModelSamples
from model_store.signature import Signature
from workers.files.sample_archives import ARCHIVE_BYTES, check


class SamplesShown(BaseModel):
    """Samples that a model has."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "kind": "labelled",
                    "digest": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                    "size_bytes": 628112,
                    "instances": 200,
                    "uploaded_by": "cli_4mZQhVYwW0qK7bN2sT9xLd3R",
                    "created_at": "2026-11-22T13:10:00.123000Z",
                    "version": None,
                }
            ]
        }
    )

    kind: Kind
    digest: str = Field(description="SHA-256 of the archive.")
    size_bytes: int
    instances: int = Field(description="How many samples there are.")
    uploaded_by: str = Field(description="Id of the client that uploaded them.")
    created_at: datetime
    version: int | None = Field(
        description="The version whose upload brought them, as an MLflow model's input example; null: uploaded."
    )


def show(row: ModelSamples) -> SamplesShown:
    return SamplesShown(
        kind=Kind(row.kind),
        digest=row.digest,
        size_bytes=row.size_bytes,
        instances=row.instances,
        uploaded_by=row.uploaded_by,
        created_at=datetime.fromtimestamp(row.created_at / 1000, UTC),
        version=row.version,
    )


async def receive(request: Request, artifacts: Artifacts) -> Stored:
    """The archive that is the request's body, in the store; raises ArtifactTooLarge, ArtifactEmpty, UploadIncomplete.

    No row refers to it yet: what does not become one's leaves with the next sweep.
    """
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > ARCHIVE_BYTES:
        raise too_large(ARCHIVE_BYTES)
    receipt = await run_sync(artifacts.receive)
    try:
        async for piece in in_pieces(RawBody(request).chunks()):
            if receipt.size_bytes + len(piece) > ARCHIVE_BYTES:
                raise too_large(ARCHIVE_BYTES)
            await run_sync(receipt.write, piece)
        return await run_sync(receipt.commit)
    except ClientDisconnect:
        raise UploadIncomplete("the connection closed before the archive was complete") from None
    finally:
        with anyio.CancelScope(shield=True):
            await run_sync(receipt.close)


def instances_of(artifacts: Artifacts, digest: str, signature: Signature, kind: Kind) -> int:
    """How many samples a stored archive has; raises FileInvalid where they do not fit the signature."""
    with artifacts.opened(digest) as path:
        return check(path, signature, labelled=kind is Kind.LABELLED)


def newest_signature(session: Session, model: str) -> Signature:
    """That of the model's newest version that was ever prepared; raises ModelNotFound, VersionNotAvailable."""
    listing.find_model(session, model)
    found = listing.newest_signature(session, model)
    if found is None:
        raise VersionNotAvailable(f"no version of {model} is prepared yet: what samples must look like is not known")
    return found
