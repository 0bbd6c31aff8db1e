"""Files as OpenAI's clients ask for them: one under its id, a page of them, and the lines that an id stands for.

The answers of a batch are one file here. There they are two, of which one has what could not be answered: its id is the
other's with an ending, and each is read out of the same lines.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from gateway.openai_objects import ERRORS_SUFFIX, FileShown, show_file
from model_store.artifacts import PIECE_BYTES, Artifacts
from model_store.database import clock_ms
from model_store.files import Part, open_file
from workers.files.batch_requests import FAILED_BEGINS
from workers.files.keeping import BATCH_INPUT, BATCH_OUTPUT, FileNotFound, lines_of, parts_of
from workers.files.tables import Batch, File

PURPOSES = (BATCH_INPUT, BATCH_OUTPUT)


@dataclass(frozen=True, slots=True)
class Found:
    """A file, and which of its lines are meant: all (None), those that failed (True), or those that did not."""

    shown: FileShown
    file: File
    failed: bool | None

    @property
    def whole(self) -> bool:
        """Whether the id is the file's own."""
        return self.failed is not True


def find(session: Session, file_id: str, client_id: str) -> Found:
    """The client's file of a batch; raises FileNotFound alike for an unknown, a purged and a stranger's id."""
    name = file_id.removesuffix(ERRORS_SUFFIX)
    # PostgreSQL refuses a NUL in a text with an error of its own.
    wanted = name if name.isascii() and name.isprintable() else ""
    row = session.execute(_files(session, client_id, PURPOSES).where(File.id == wanted)).one_or_none()
    found = None if row is None else _found(file_id, *row)
    if found is None:
        raise FileNotFound("there is no such file, or not any more")
    return found


def page(
    session: Session, client_id: str, purpose: str | None, limit: int, after: str | None, *, newest_first: bool
) -> Sequence[FileShown]:
    """Files that follow `after`, at most so many, what failed of a batch behind what did not; raises FileNotFound."""
    wanted = PURPOSES if purpose is None else tuple({purpose}.intersection(PURPOSES))
    query = _files(session, client_id, wanted)
    listed: list[Found | None] = []
    if after is not None:
        found = find(session, after, client_id)
        last = found.file
        if found.failed is False:
            listed.append(find(session, after + ERRORS_SUFFIX, client_id))
        # Spelt out, since SQLite compares rows only with an index of exactly these columns.
        before = (File.created_at < last.created_at) | ((File.created_at == last.created_at) & (File.id < last.id))
        behind = (File.created_at > last.created_at) | ((File.created_at == last.created_at) & (File.id > last.id))
        query = query.where(before if newest_first else behind)
    order = (File.created_at.desc(), File.id.desc()) if newest_first else (File.created_at, File.id)
    for row in session.execute(query.order_by(*order).limit(limit)):
        listed += [_found(row[0].id, *row), _found(row[0].id + ERRORS_SUFFIX, *row)]
    return [one.shown for one in listed if one is not None][:limit]


def _files(session: Session, client_id: str, purposes: Sequence[str]) -> Select[*tuple[Any, ...]]:
    """Files, and what failed of them: in one question, since the two grow together while a batch runs."""
    failed = func.coalesce(Batch.failed_rows, 0), func.coalesce(Batch.failed_bytes, 0)
    kept = File.client_id == client_id, File.purpose.in_(purposes), File.expires_at > clock_ms(session)
    return select(File, *failed).outerjoin(Batch, Batch.output_file == File.id).where(*kept)


def _found(file_id: str, file: File, failed_rows: int, failed_bytes: int) -> Found | None:
    """What an id of this file stands for, if it stands for anything."""
    failed = file_id.endswith(ERRORS_SUFFIX)
    if failed and (file.purpose != BATCH_OUTPUT or not failed_rows):
        return None
    shown = show_file(file, file_id, failed_bytes if failed else file.size_bytes - failed_bytes)
    return Found(shown, file, failed if failed_rows else None)


def content(artifacts: Artifacts, file: File, failed: bool | None) -> Iterator[bytes]:
    """The bytes that an id stands for, some at a time; raises ArtifactMissing, ArtifactCorrupt."""
    if file.purpose == BATCH_INPUT:
        return _upload(artifacts, file.id)
    return _lines(artifacts, parts_of(file), failed)


def _upload(artifacts: Artifacts, file_id: str) -> Iterator[bytes]:
    with open_file(artifacts, file_id) as file:
        while piece := file.read(PIECE_BYTES):
            yield piece


def _lines(artifacts: Artifacts, parts: Sequence[Part], failed: bool | None) -> Iterator[bytes]:
    for lines in lines_of(artifacts, parts):
        if failed is None:
            yield lines
            continue
        wanted = [line for line in lines.splitlines(keepends=True) if line.startswith(FAILED_BEGINS) is failed]
        if wanted:
            yield b"".join(wanted)
