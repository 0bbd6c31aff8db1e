"""Reading a file: cut into chunks, a few of them waiting or running at a time, their answers written down in order."""

from __future__ import annotations

import hashlib
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from model_store.artifacts import Artifacts
from model_store.database import Sessions, transaction
from model_store.errors import ArtifactMissing, SluiceError
from model_store.files import Part, PartWriter, open_file
from workers import jobs
from workers.files import claims
from workers.files.batch_requests import BatchRequests, failed_bytes
from workers.files.chunks import failed_lines, pack_chunk, unpack_answer
from workers.files.claims import Step, Under, Waiting
from workers.files.contract import Chunk, ChunkSize
from workers.files.formats import format_named
from workers.files.keeping import FilesFull, lines_of, part_name
from workers.files.rate import Rate
from workers.origin import origin_of
from workers.payloads import input_name, payload_names, result_name
from workers.protocols.body import Dialect
from workers.protocols.contract import Contract
from workers.settings import QueueSettings

# Large enough that what a chunk costs in SQL is little beside its rows, small enough to be in memory ten times over.
CHUNK_BYTES = 4 * 1024 * 1024
CHUNK_SECONDS = 0.3
# What it takes to read a row and to write its line, beside the inference; at the least.
ROW_SECONDS = 15e-6
LEAST_CHUNK_ROWS, MOST_CHUNK_ROWS = 32, 20_000
# How often to look for chunks that ended; while none does, less and less often.
LOOK_SECONDS, LONGEST_LOOK_SECONDS = 0.02, 0.5


class FenceLost(Exception):
    """The job was canceled, has expired, or is somebody else's now."""


class Withdrawn(Exception):
    """A chunk was not allowed to run; whether the file still is, its next claim says, which ends it with the reason."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where files are read."""

    settings: QueueSettings
    sessions: Sessions
    artifacts: Artifacts


class Reading:
    """One claim of a file; `ahead` is how many chunks may wait or run at a time."""

    def __init__(self, place: Place, of: Under, ahead: int, lost: threading.Event) -> None:
        self._place = place
        self._of = of
        self._ahead = ahead
        self._lost = lost
        self._format = format_named(of.format) if of.endpoint is None else BatchRequests(of.endpoint)
        self._contract = Contract(
            of.lane.model,
            of.lane.version,
            of.served.signature,
            of.served.serving.instances(place.settings.max_instances),
            input_specification=of.served.metadata.input_specification,
        )
        self._progress = of.progress
        self._rate = Rate()
        self._total = of.total
        # Instances that nobody knew of when the file was submitted.
        self._uncharged = 0

    def run(self, stopping: Callable[[], bool], *, withdrawn: bool = False) -> bool:
        """Read on to the end; returns False where it was told to stop before.

        With `withdrawn`, chunks that were not allowed to run count as failed. Raises FenceLost, Withdrawn, FileInvalid,
        StoreFull, DatabaseUnavailable.
        """
        artifacts, of = self._place.artifacts, self._of
        with (
            open_file(artifacts, of.input_file) as source,
            PartWriter(artifacts, part_name(of.output_file, of.fence)) as part,
        ):
            chunks = self._format.chunks(
                source, self._contract, chunk_size(self._place.settings, of), of.progress.checkpoint
            )
            pause = LOOK_SECONDS
            while not stopping():
                waiting = self._look()
                ended = first_ended(waiting, withdrawn=withdrawn)
                for chunk in ended:
                    self._collect(chunk, part)
                drafts = self._read(chunks, self._ahead - len(waiting) + len(ended))
                if not ended and not drafts and not (self._progress.whole and not waiting):
                    if self._lost.wait(pause):
                        raise FenceLost
                    pause = min(pause * 1.5, LONGEST_LOOK_SECONDS)
                    continue
                pause = LOOK_SECONDS
                self._advance(part.written, ended, drafts)
                if self._progress.whole and not drafts and len(ended) == len(waiting):
                    self._finish(part.written)
                    return True
        return False

    def _look(self) -> list[Waiting]:
        with transaction(self._place.sessions, write=False) as session:
            return claims.chunks_of(session, self._of.number)

    def _collect(self, chunk: Waiting, part: PartWriter) -> None:
        """Write the lines of a chunk behind those of the one before."""
        if chunk.state == jobs.JobState.SUCCEEDED:
            lines, failed, more_instances = unpack_answer(
                self._payload(chunk, result_name(chunk.id, chunk.fence), chunk.result_stored, claims.result_of)
            )
            self._uncharged += more_instances
        else:
            lines, failed = self._refusals(chunk), chunk.rows
        part.append(lines)
        most = self._place.settings.files_bytes
        if sum(one.size_bytes for one in self._parts(part.written)) > most:
            # A line of an error may be a hundred times as long as its row.
            raise FilesFull(f"the result is longer than the {most} bytes of files that a client may keep")
        self._rate.add(chunk.rows)
        before = self._progress
        size_bytes = failed_bytes(lines) if failed and self._of.endpoint is not None else 0
        self._progress = replace(
            before,
            written_rows=before.written_rows + chunk.rows,
            failed_rows=before.failed_rows + failed,
            failed_bytes=before.failed_bytes + size_bytes,
        )

    def _refusals(self, chunk: Waiting) -> bytes:
        error = SluiceError(chunk.error_message or "the rows could not be run")
        error.code = chunk.error_code or "internal"
        body = self._payload(chunk, input_name(chunk.id), chunk.input_stored, claims.input_of)
        return failed_lines(self._place.artifacts, body, error)

    def _payload(self, chunk: Waiting, name: str, stored: bool, body_of: claims.BodyOf) -> bytes:
        if stored:
            return self._place.artifacts.get_payload(name)
        with transaction(self._place.sessions, write=False) as session:
            kept = body_of(session, chunk)
        return self._place.artifacts.unsealed(name, kept or b"")

    def _read(self, chunks: Iterator[Chunk], most: int) -> list[jobs.Draft]:
        """Jobs of the next chunks, at most so many."""
        drafts: list[jobs.Draft] = []
        while len(drafts) < most and not self._progress.whole:
            chunk = next(chunks, None)
            if chunk is None:
                self._progress = replace(self._progress, whole=True)
            else:
                drafts.append(self._draft(chunk))
                if chunk.total is not None:
                    # Of a file whose rows were not counted before, its submit was charged one.
                    self._total = chunk.total
                    self._uncharged += chunk.rows - (chunk.first_row == 0)
                read = chunk.first_row + chunk.rows
                self._progress = replace(self._progress, read_rows=read, checkpoint=chunk.checkpoint)
        return drafts

    def _draft(self, chunk: Chunk) -> jobs.Draft:
        of, artifacts, job_id = self._of, self._place.artifacts, jobs.new_id()
        body = pack_chunk(of.format, of.input_file, chunk)
        name = input_name(job_id)
        stored = len(body) > self._place.settings.inline_bytes
        if stored:
            artifacts.put_payload(name, body)
        return jobs.Draft(
            job_id,
            of.lane,
            Dialect.ROWS.label,
            chunk.rows,
            None if stored else artifacts.sealed(name, body),
            of.seconds_left(),
            of.authority,
            kind="chunk",
            parent=of.number,
            max_attempts=of.max_attempts,
        )

    def _advance(self, written: Part, ended: Sequence[Waiting], drafts: Sequence[jobs.Draft]) -> None:
        parts = self._parts(written)
        collected = [chunk.number for chunk in ended]
        step = Step(parts, self._progress, self._rate.rows_per_second, self._total, collected, drafts, self._uncharged)
        with transaction(self._place.sessions) as session:
            if not claims.advance(session, self._of, step):
                raise FenceLost
        self._uncharged = 0
        for chunk in ended:
            for name in payload_names(chunk.id, chunk.fence) if chunk.input_stored or chunk.result_stored else ():
                self._place.artifacts.delete_payload(name)

    def _parts(self, written: Part) -> list[Part]:
        return [*self._of.parts, *([written] if written.segments else [])]

    def _finish(self, written: Part) -> None:
        if self._progress.written_rows != self._progress.read_rows:
            # Never to be: but a result without some of its rows must not look whole.
            raise ArtifactMissing("the answers to some rows are gone")
        parts = self._parts(written)
        digest = hashlib.sha256()
        for lines in lines_of(self._place.artifacts, parts):
            digest.update(lines)
        ending = jobs.Ending(
            self._of.number,
            self._of.fence,
            output_digest=digest.digest(),
            result_bytes=sum(part.size_bytes for part in parts),
            # Its chunks ran on any number of workers, all of them on this variant.
            ran_on=origin_of(self._of.served, "").to_json(),
        )
        with transaction(self._place.sessions) as session:
            if not claims.finish(session, self._of, ending):
                raise FenceLost


def first_ended(waiting: Sequence[Waiting], *, withdrawn: bool) -> list[Waiting]:
    """The chunks at the beginning that have ended; raises Withdrawn where one of them was not allowed to run."""
    ended: list[Waiting] = []
    for chunk in waiting:
        if chunk.state == jobs.JobState.CANCELED and not withdrawn:
            if not ended:
                raise Withdrawn
            # What came before it is written down first.
            return ended
        if chunk.state not in jobs.FINAL:
            return ended
        ended.append(chunk)
    return ended


def chunk_size(settings: QueueSettings, of: Under) -> ChunkSize:
    """Where to cut: chunks that run for about 0.3 s, by what was measured of the version."""
    row_seconds = ROW_SECONDS + (of.served.batch_seconds or 0.0) / max(of.served.max_batch, 1)
    rows = math.ceil(CHUNK_SECONDS / row_seconds)
    return ChunkSize(max(LEAST_CHUNK_ROWS, min(rows, MOST_CHUNK_ROWS)), CHUNK_BYTES, settings.file_row_bytes)
