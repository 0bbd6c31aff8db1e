"""A chunk as the input of a job, and its answer: on the way between the background worker and the one that runs it."""

from __future__ import annotations

from typing import NamedTuple, cast

import orjson

from model_store.artifacts import Artifacts
from model_store.errors import ArtifactCorrupt, SluiceError
from model_store.files import open_file
from workers.files.contract import Asked, Chunk, Members, Span
from workers.files.formats import format_named


def pack_chunk(format_name: str, file: str, chunk: Chunk) -> bytes:
    """The input of a chunk's job: a line of JSON, and the rows unless they are a span of the file."""
    head: dict[str, object] = {
        "format": format_name,
        "first_row": chunk.first_row,
        "rows": chunk.rows,
        "terms": chunk.terms,
    }
    if isinstance(chunk.data, Span):
        head |= {"file": file, "offset": chunk.data.offset, "length": chunk.data.length}
        return orjson.dumps(head) + b"\n"
    return orjson.dumps(head) + b"\n" + chunk.data


def unpack_chunk(artifacts: Artifacts, data: bytes) -> tuple[str, Asked]:
    """The name of the format and the rows of what `pack_chunk` wrote; raises ArtifactMissing, ArtifactCorrupt."""
    head_text, _, rows = data.partition(b"\n")
    head = orjson.loads(head_text)
    if "file" in head:
        rows = read_span(artifacts, head["file"], Span(head["offset"], head["length"]))
    return head["format"], Asked(head["first_row"], head["rows"], rows, cast(Members, head["terms"]))


def read_span(artifacts: Artifacts, name: str, span: Span) -> bytes:
    with open_file(artifacts, name) as file:
        file.seek(span.offset)
        data = file.read(span.length)
    if len(data) != span.length:
        raise ArtifactCorrupt(f"the file {name} is shorter than it was")
    return data


class Answer(NamedTuple):
    """The lines of a chunk's rows, how many of these failed, and how many instances they have more than rows."""

    lines: bytes
    failed: int
    more_instances: int = 0


def pack_answer(answer: Answer) -> bytes:
    """The answer as that of a chunk's job."""
    return b'{"failed":%d,"more":%d}\n%b' % (answer.failed, answer.more_instances, answer.lines)


def unpack_answer(data: bytes) -> Answer:
    """What `pack_answer` was given."""
    head_text, _, lines = data.partition(b"\n")
    head = orjson.loads(head_text)
    return Answer(lines, int(head["failed"]), int(head["more"]))


def failed_lines(artifacts: Artifacts, data: bytes, error: SluiceError) -> bytes:
    """A line for each row of a chunk that could not be run; with its rows' ids, if these can still be read."""
    try:
        name, asked = unpack_chunk(artifacts, data)
    except SluiceError:
        head = orjson.loads(data.partition(b"\n")[0])
        name, asked = head["format"], Asked(head["first_row"], head["rows"], b"", head["terms"])
    return format_named(name).refusals(asked, error)
