"""Files and batches as OpenAI's clients know them (openapi.yaml: OpenAIFile, Batch and their lists)."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from workers import jobs
from workers.files.keeping import NEVER
from workers.files.tables import Batch, File
from workers.tables import Job

BATCH_PREFIX = "batch_"
# Behind an output file's id: the lines of it that are no answers.
ERRORS_SUFFIX = "-errors"
_LINE = re.compile(r"line (\d{1,10}): ")

BATCH: dict[str, Any] = {
    "id": "batch_Zk0o3rVxQ1uYt5pWc8sLd2Ea",
    "object": "batch",
    "endpoint": "/v1/models/mnist:predict",
    "errors": None,
    "input_file_id": "file_8sLd2EaZk0o3rVxQ1uYt5pWc",
    "completion_window": "24h",
    "status": "completed",
    "output_file_id": "file_Q1uYt5pWc8sLd2EaZk0o3rVx",
    "error_file_id": None,
    "created_at": 1767323045,
    "in_progress_at": 1767323045,
    "expires_at": 1767409445,
    "finalizing_at": 1767323046,
    "completed_at": 1767323046,
    "failed_at": None,
    "expired_at": None,
    "cancelling_at": None,
    "cancelled_at": None,
    "request_counts": {"total": 2, "completed": 2, "failed": 0},
    "metadata": {"night": "1"},
}
FILE: dict[str, Any] = {
    "id": "file_8sLd2EaZk0o3rVxQ1uYt5pWc",
    "object": "file",
    "bytes": 4096,
    "created_at": 1767323045,
    "expires_at": 1767409445,
    "filename": "requests.jsonl",
    "purpose": "batch",
    "status": "processed",
}

Metadata = dict[
    Annotated[str, StringConstraints(min_length=1, max_length=64)], Annotated[str, StringConstraints(max_length=512)]
]


class BatchAsked(BaseModel):
    """What `POST /v1/batches` takes."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"input_file_id": FILE["id"], "endpoint": BATCH["endpoint"], "completion_window": "24h"},
            ]
        }
    )

    input_file_id: str = Field(max_length=64, description="A file that was uploaded for the purpose `batch`.")
    endpoint: str = Field(
        max_length=512, description="The address that every line names: a version's, a label's or a model's `:predict`."
    )
    completion_window: Literal["24h"] = Field(description="As there, only `24h`; the header Sluice-Deadline is finer.")
    metadata: Annotated[Metadata, Field(max_length=16)] | None = Field(None, description="Comes back as it was sent.")


class FileShown(BaseModel):
    """A file."""

    model_config = ConfigDict(json_schema_extra={"examples": [FILE]})

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    expires_at: int | None = Field(description="Null for one that goes with its batch.")
    filename: str
    purpose: str
    status: Literal["processed"] = "processed"


class FileDeleted(BaseModel):
    """That a file is gone."""

    id: str
    object: Literal["file"] = "file"
    deleted: Literal[True] = True


class FilesPage(BaseModel):
    """Files, and whether more follow `last_id`."""

    object: Literal["list"] = "list"
    data: list[FileShown]
    first_id: str | None
    last_id: str | None
    has_more: bool


class BatchError(BaseModel):
    """Why no batch was made of a file; `line` counts from 1."""

    code: str
    message: str
    param: str | None = None
    line: int | None = None


class BatchErrors(BaseModel):
    """What a batch failed of."""

    object: Literal["list"] = "list"
    data: list[BatchError]


class RequestCounts(BaseModel):
    """How many lines were answered so far, and how many could not be."""

    total: int
    completed: int
    failed: int


class BatchShown(BaseModel):
    """A batch; moments are seconds since 1970."""

    model_config = ConfigDict(json_schema_extra={"examples": [BATCH]})

    id: str
    object: Literal["batch"] = "batch"
    endpoint: str
    errors: BatchErrors | None
    input_file_id: str
    completion_window: Literal["24h"] = "24h"
    status: str
    output_file_id: str | None
    error_file_id: str | None
    created_at: int
    in_progress_at: int | None
    expires_at: int | None
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: RequestCounts
    metadata: dict[str, str] | None


class BatchesPage(BaseModel):
    """Batches, the newest first, and whether more follow `last_id`."""

    object: Literal["list"] = "list"
    data: list[BatchShown]
    first_id: str | None
    last_id: str | None
    has_more: bool


def status_of(job: Job, batch: Batch) -> str:
    """OpenAI's word for where a batch is; `cancelling` is none of them, since a cancellation is done at once."""
    match job.state:
        case jobs.JobState.SUCCEEDED:
            return "completed"
        case jobs.JobState.CANCELED:
            return "cancelled"
        case jobs.JobState.FAILED | jobs.JobState.EXPIRED:
            return job.state
    # Chunks are cut once the whole file was checked.
    if not batch.read_rows:
        return "validating"
    return "finalizing" if batch.whole and batch.written_rows == batch.read_rows else "in_progress"


def show_batch(job: Job, batch: Batch) -> BatchShown:
    status = status_of(job, batch)
    ended = None if job.finished_at is None else _seconds(job.finished_at)
    answered = batch.written_rows - batch.failed_rows
    kept = batch.written_rows > 0 or status == "completed"
    return BatchShown(
        id=BATCH_PREFIX + job.id,
        endpoint=batch.endpoint or "",
        errors=_errors(job),
        input_file_id=batch.input_file,
        status=status,
        output_file_id=batch.output_file if ended and kept else None,
        error_file_id=batch.output_file + ERRORS_SUFFIX if ended and batch.failed_rows else None,
        created_at=_seconds(job.created_at),
        in_progress_at=None if job.started_at is None else _seconds(job.started_at),
        expires_at=None if job.deadline is None else _seconds(job.deadline),
        finalizing_at=ended if status == "completed" else None,
        completed_at=ended if status == "completed" else None,
        failed_at=ended if status == "failed" else None,
        expired_at=ended if status == "expired" else None,
        cancelling_at=ended if status == "cancelled" else None,
        cancelled_at=ended if status == "cancelled" else None,
        request_counts=RequestCounts(
            total=max(job.instances, batch.written_rows), completed=answered, failed=batch.failed_rows
        ),
        metadata=None if batch.notes is None else json.loads(batch.notes),
    )


def show_file(file: File, file_id: str, size_bytes: int) -> FileShown:
    """A file, or the part of one that has an id of its own."""
    return FileShown(
        id=file_id,
        bytes=size_bytes,
        created_at=_seconds(file.created_at),
        expires_at=None if file.expires_at == NEVER else _seconds(file.expires_at),
        filename=file.name,
        purpose=file.purpose,
    )


def _errors(job: Job) -> BatchErrors | None:
    if job.state != jobs.JobState.FAILED or job.error_code is None:
        return None
    message = job.error_message or ""
    line = _LINE.match(message)
    return BatchErrors(
        data=[BatchError(code=job.error_code, message=message, line=None if line is None else int(line[1]))]
    )


def _seconds(milliseconds: int) -> int:
    return milliseconds // 1000
