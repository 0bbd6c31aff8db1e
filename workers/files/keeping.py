"""The rows of files: what a client keeps, for how long, and what goes when a job goes."""

from __future__ import annotations

import contextlib
import json
import secrets
from collections.abc import Collection, Iterator, Sequence

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from model_store.artifacts import Artifacts
from model_store.database import clock_ms
from model_store.errors import SluiceError
from model_store.files import Part, delete_file, old_files, read_part
from model_store.partial_uploads import ModelUpload
from workers.files.tables import Batch, File
from workers.tables import Job

# What a file is for. Other purposes belong to other faces of the same thing.
INPUT, OUTPUT = "input", "output"
BATCH_INPUT, BATCH_OUTPUT = "batch", "batch_output"  # OpenAI's words
PREFIX = "file_"
PAGE_ROWS = 200
# What nobody wrote to for so long has its row, or never will.
ORPHAN_SECONDS = 3600.0
# What a job keeps goes with the job: a moment that never comes, which every reader of JSON can hold.
NEVER = 2**53 - 1


class FileNotFound(SluiceError):
    status = 404
    code = "file_not_found"


class FilesFull(SluiceError):
    """The client keeps as many bytes of files as it may, or a result would be longer than that."""

    status = 413
    code = "files_full"


class FileInUse(SluiceError):
    """A job still reads it."""

    status = 409
    code = "file_in_use"


def new_file_id() -> str:
    """144 random bits, as those of jobs."""
    return PREFIX + secrets.token_urlsafe(18)


def find_file(session: Session, file_id: str, client_id: str) -> File:
    """The client's file; raises FileNotFound alike for an unknown, a purged and a stranger's id."""
    # PostgreSQL refuses a NUL in a text with an error of its own.
    wanted = file_id if file_id.isascii() and file_id.isprintable() else ""
    file = session.scalars(select(File).where(File.id == wanted, File.client_id == client_id)).one_or_none()
    if file is None or file.expires_at < clock_ms(session):
        raise FileNotFound("there is no such file, or not any more")
    return file


def kept_by(session: Session, client_id: str) -> tuple[int, int]:
    """How many files a client keeps, and how many bytes these have."""
    kept = select(func.count(), func.coalesce(func.sum(File.size_bytes), 0)).where(File.client_id == client_id)
    files, size_bytes = session.execute(kept).one()
    return files, int(size_bytes)


def parts_of(file: File) -> list[Part]:
    """How much of a result counts, in the order of its lines."""
    return [Part(*part) for part in json.loads(file.parts or "[]")]


def parts_text(parts: Sequence[Part]) -> str:
    """What `parts_of` reads."""
    return json.dumps([[part.name, part.segments, part.size_bytes, part.stored_bytes] for part in parts])


def part_name(file_id: str, fence: int) -> str:
    """The part that the holder of a job's fence writes: one that lost its fence must not write into another's."""
    return f"{file_id}.{fence}"


def lines_of(artifacts: Artifacts, parts: Sequence[Part]) -> Iterator[bytes]:
    """A result's bytes, some whole lines at a time; raises ArtifactMissing, ArtifactCorrupt."""
    for part in parts:
        yield from read_part(artifacts, part)


def held_file(session: Session, file_id: str) -> File | None:
    """A file; who else holds it waits until this transaction ends: it is not deleted, nor left to another job, before.

    None where there is none, or not any more.
    """
    return session.get(File, file_id, with_for_update=True)


def batch_of(session: Session, number: int) -> Batch | None:
    """What the job of this number reads; None where it reads no file."""
    return session.get(Batch, number)


def batches_of(session: Session, numbers: Collection[int]) -> dict[int, Batch]:
    """The same for many."""
    return (
        {batch.job: batch for batch in session.scalars(select(Batch).where(Batch.job.in_(numbers)))} if numbers else {}
    )


def add_batch(session: Session, job: Job, batch: Batch) -> None:
    """Write what goes with a new job that reads a file: `batch`, but for its job and its result, which are made here.

    A file that the batch owns stays for as long as its job does.
    """
    output = File(
        id=new_file_id(),
        client_id=job.client_id,
        name=f"{job.id}.jsonl",
        purpose=OUTPUT if batch.endpoint is None else BATCH_OUTPUT,
        format="jsonl",
        size_bytes=0,
        created_at=clock_ms(session),
        expires_at=NEVER,
        parts="[]",
    )
    batch.job, batch.output_file = job.number, output.id
    session.add_all((output, batch))
    if batch.owns_input:
        kept = update(File).where(File.id == batch.input_file).values(expires_at=NEVER)
        session.execute(kept.execution_options(synchronize_session=False))


def forget_batch(session: Session, number: int, fence: int) -> list[str]:
    """Delete what goes with a job of this number and fence; returns the names of what the store may hold of it.

    A file that another job reads too, as a replay of this one does, stays and goes with that.
    """
    batch = session.get(Batch, number)
    if batch is None:
        return []
    # Of two jobs that read one file and go at once, the second one finds what the first one left to it.
    held_file(session, batch.input_file)
    batch = session.get(Batch, number, populate_existing=True)
    if batch is None:
        return []
    names = [part_name(batch.output_file, held) for held in range(1, fence + 1)]
    gone = [batch.output_file]
    output = session.get(File, batch.output_file)
    if output is not None:
        names += [part.name for part in parts_of(output)]
    if batch.owns_input and not _inherited(session, batch):
        names.append(batch.input_file)
        gone.append(batch.input_file)
    session.execute(delete(File).where(File.id.in_(gone)).execution_options(synchronize_session=False))
    session.execute(delete(Batch).where(Batch.job == number).execution_options(synchronize_session=False))
    return sorted(set(names))


def _inherited(session: Session, batch: Batch) -> bool:
    others = Batch.input_file == batch.input_file, Batch.job != batch.job
    heir = session.scalars(select(Batch).where(*others).order_by(Batch.job.desc()).limit(1)).one_or_none()
    if heir is None:
        return False
    heir.owns_input = True
    session.flush()
    return True


def forget_file(session: Session, file: File) -> list[str]:
    """Delete a file; returns what it is called in the store. Raises FileInUse while a job reads or writes it."""
    held_file(session, file.id)
    if in_use(session, file.id):
        raise FileInUse("a job that has not ended reads or writes this file; cancel it first")
    names = [part.name for part in parts_of(file)] or [file.id]
    session.execute(delete(File).where(File.id == file.id).execution_options(synchronize_session=False))
    return names


def in_use(session: Session, file_id: str) -> bool:
    """Whether a job that has not ended reads or writes a file."""
    for column in (Batch.input_file, Batch.output_file):
        reading = select(Batch.job).join(Job, Job.number == Batch.job)
        held = reading.where(column == file_id, Job.state.in_(("queued", "running"))).limit(1)
        if session.scalar(held) is not None:
            return True
    return False


def purge(session: Session) -> tuple[int, list[str]]:
    """A page of batches whose job is gone and of files past their time; returns how many, and their names."""
    lost = select(Batch.job).outerjoin(Job, Job.number == Batch.job).where(Job.number.is_(None)).limit(PAGE_ROWS)
    numbers = session.scalars(lost).all()
    names = [name for number in numbers for name in forget_batch(session, number, 0)]
    old = select(File).where(File.expires_at < clock_ms(session)).order_by(File.expires_at).limit(PAGE_ROWS)
    gone = 0
    for file in session.scalars(old).all():
        with contextlib.suppress(FileInUse):
            names += forget_file(session, file)
            gone += 1
    return len(numbers) + gone, names


def sweep_files(session: Session, artifacts: Artifacts) -> int:
    """Deletes what lies in the store and is of no file and no upload, as what a dead writer left; returns how many."""
    removed = 0
    names = list(old_files(artifacts, ORPHAN_SECONDS))
    for start in range(0, len(names), PAGE_ROWS):
        page = names[start : start + PAGE_ROWS]
        ids = {name: name.partition(".")[0] for name in page}
        wanted = set(ids.values())
        known = set(session.scalars(select(File.id).where(File.id.in_(wanted))))
        known |= set(session.scalars(select(ModelUpload.id).where(ModelUpload.id.in_(wanted))))
        for name in page:
            if ids[name] not in known:
                delete_file(artifacts, name)
                removed += 1
    return removed
