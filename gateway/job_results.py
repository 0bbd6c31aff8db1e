"""What a job left behind, as callers get it: its result in one piece or many, the result's address, and its receipt."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import BinaryIO

from sqlalchemy import select
from sqlalchemy.orm import Session

from auth.errors import KeysUnavailable
from auth.job_receipts import JobReceipt, ReceiptIssuer
from gateway.prediction_bodies import content_headers
from gateway.queue_outlook import QueueOutlook
from gateway.result_addresses import ResultAddress, ResultAddresses
from model_store.artifacts import Artifacts
from model_store.files import open_file
from model_store.payloads import open_payload
from workers import jobs
from workers.drafts import FILE
from workers.files.keeping import batch_of, lines_of, parts_of
from workers.files.tables import File
from workers.origin import Origin
from workers.protocols.body import HEAD_BYTES, TEXT, Body, dialect_named, head_of_stored, restored
from workers.tables import Job, JobInput

PIECE_BYTES = 256 * 1024
# What is about a caller's rights must not be found in a cache by somebody else.
ANSWER_HEADERS = {"cache-control": "no-store"}


@dataclass(frozen=True, slots=True)
class OpenResult:
    """A result that is read in pieces; `pieces` closes what it reads from at its end."""

    headers: dict[str, str]
    pieces: Iterator[bytes]


class JobResults:
    """Reads results, and says where they are and what they prove; or, while there are none, when they may be."""

    def __init__(
        self, artifacts: Artifacts, addresses: ResultAddresses, receipts: ReceiptIssuer, queue: QueueOutlook
    ) -> None:
        self._artifacts = artifacts
        self.queue = queue
        self.addresses = addresses
        self._receipts = receipts

    def in_row(self, session: Session, job: Job) -> Body | None:
        """The result, where it lies in SQL; raises ArtifactCorrupt."""
        if job.state != jobs.JobState.SUCCEEDED or job.result_stored:
            return None
        kept = jobs.result_of(session, job)
        return None if kept is None else self._body(job, self._artifacts.unsealed(_name(job), kept))

    def stored_body(self, job: Job) -> Body:
        """A result that lies in the store, whole in memory; raises ArtifactMissing, ArtifactCorrupt."""
        return self._body(job, self._artifacts.get_payload(_name(job)))

    def opened(self, session: Session, job: Job, *, partial: bool = False) -> OpenResult | None:
        """The result of a job that succeeded, to be sent; None where there is none; raises ArtifactMissing.

        Of a file, what there is of it once its job has ended, however that was; with `partial`, before that as well.
        """
        if job.kind == FILE:
            return self._lines(session, job) if partial or job.state in jobs.FINAL else None
        if job.state != jobs.JobState.SUCCEEDED:
            return None
        if job.result_stored:
            return _opened(open_payload(self._artifacts, _name(job)), job)
        body = self.in_row(session, job)
        return None if body is None else OpenResult(_headers(job, body.head, len(body.data)), iter((body.data,)))

    def file_address(self, job: Job) -> ResultAddress | None:
        """Where the lines of a file are; None while there are none of it to be read to the end."""
        return self.addresses.make(job.id) if job.state == jobs.JobState.SUCCEEDED else None

    def _lines(self, session: Session, job: Job) -> OpenResult | None:
        batch = batch_of(session, job.number)
        output = None if batch is None else session.get(File, batch.output_file)
        if output is None:
            return None
        headers = {
            "content-type": "application/jsonl",
            "content-length": str(output.size_bytes),
            **ANSWER_HEADERS,
            "sluice-model-version": str(job.version),
        }
        return OpenResult(headers, lines_of(self._artifacts, parts_of(output)))

    def opened_input(self, session: Session, job: Job) -> OpenResult:
        """What the client sent, to be sent back; raises ArtifactMissing, ArtifactCorrupt."""
        name, batch = jobs.input_name(job.id), batch_of(session, job.number)
        if batch is not None:
            headers = {"content-type": "application/octet-stream", **ANSWER_HEADERS}
            return OpenResult(headers, _pieces(open_file(self._artifacts, batch.input_file)))
        body = session.scalar(select(JobInput.body).where(JobInput.job == job.number))
        if body is None:
            return _opened(open_payload(self._artifacts, name), job)
        found = self._body(job, self._artifacts.unsealed(name, body))
        return OpenResult(_headers(job, found.head, len(found.data)), iter((found.data,)))

    def receipt(self, job: Job) -> str | None:
        """The signed receipt of a job that succeeded; None where it says too little to be one.

        Raises KeysUnavailable (503).
        """
        receipt = receipt_of(job)
        return None if receipt is None else self._receipts.sign(receipt)

    def receipt_if_any(self, job: Job) -> str | None:
        """As `receipt`, for a document that is worth having without: None where no key signs at this moment."""
        with contextlib.suppress(KeysUnavailable):
            return self.receipt(job)
        return None

    def _body(self, job: Job, data: bytes) -> Body:
        return restored(data, dialect_named(job.dialect))


def receipt_of(job: Job) -> JobReceipt | None:
    """What there is to be signed; None for a job that did not succeed, or did so under a release without receipts."""
    if job.state != jobs.JobState.SUCCEEDED or job.input_digest is None or job.output_digest is None:
        return None
    origin = Origin.from_json(job.ran_on)
    return JobReceipt(
        job=job.id,
        client_id=job.client_id,
        model=job.model,
        version=job.version,
        upload_sha256=origin.upload,
        artifact_sha256=origin.artifact,
        variant=origin.variant,
        runtime=origin.runtime,
        platform=origin.platform,
        worker=origin.worker,
        input_sha256=job.input_digest.hex(),
        output_sha256=job.output_digest.hex(),
        output_bytes=job.result_bytes or 0,
        created_at=moment(job.created_at) or "",
        started_at=moment(job.started_at) or "",
        finished_at=moment(job.finished_at) or "",
        attempts=job.attempt,
    )


def moment(milliseconds: int | None) -> str | None:
    """Milliseconds since 1970 as RFC 3339 writes them."""
    if milliseconds is None:
        return None
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _name(job: Job) -> str:
    return jobs.result_name(job.id, job.fence)


def _opened(file: BinaryIO, job: Job) -> OpenResult:
    head = head_of_stored(file.read(HEAD_BYTES))
    begin = HEAD_BYTES if head is not None else 0
    size = file.seek(0, 2)
    file.seek(begin)
    return OpenResult(_headers(job, head, size - begin), _pieces(file))


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    with file:
        while piece := file.read(PIECE_BYTES):
            yield piece


def _headers(job: Job, head: int | None, size: int) -> dict[str, str]:
    content = {name.decode(): value.decode() for name, value in content_headers(TEXT if head is None else head)}
    return {**content, "content-length": str(size), **ANSWER_HEADERS, "sluice-model-version": str(job.version)}
