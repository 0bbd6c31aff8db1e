"""Running a chunk: as few inferences as its rows allow, and a line for each of them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

from model_store.artifacts import Artifacts
from model_store.errors import SluiceError
from workers.batches import Loaded, Run, predict_requests
from workers.files.chunks import Answer, pack_answer, unpack_chunk
from workers.files.contract import Refused, RowsRequest
from workers.files.formats import format_named
from workers.files.row_lines import answered
from workers.protocols.body import Body


class Lines(NamedTuple):
    """The lines of some rows, and how many of these failed."""

    text: bytes
    failed: int


def answer_chunk(loaded: Loaded, artifacts: Artifacts, data: bytes, run: Run | None = None) -> Body:
    """The lines of a chunk in the order of its rows; one that is wrong, or that the model fails on, spoils no other.

    Raises RunnerFailed as `predict_all` does, and what `unpack_chunk` does.
    """
    began = time.perf_counter_ns()
    name, asked = unpack_chunk(artifacts, data)
    pieces = format_named(name).pieces(asked, loaded.contract)
    requests = [piece for piece in pieces if not isinstance(piece, Refused)]
    predicted = iter(predict_rows(loaded, requests, run, began))
    found = [Lines(piece.line, 1) if isinstance(piece, Refused) else next(predicted) for piece in pieces]
    text = b"".join([lines.text for lines in found])
    # A row may be a request of many instances.
    instances = sum(request.instances for request in requests) + len(pieces) - len(requests)
    answer = Answer(text, sum(lines.failed for lines in found), max(0, instances - asked.rows))
    return answered(pack_answer(answer), asked.rows)


def predict_rows(
    loaded: Loaded, requests: Sequence[RowsRequest], run: Run | None, began: int | None = None
) -> list[Lines]:
    """The lines of each request; `began` is when reading them began, as `predict_requests` has it."""
    found: list[Lines] = []
    for request, outcome in zip(requests, predict_requests(loaded, requests, run, began), strict=True):
        if not isinstance(outcome, SluiceError):
            found.append(Lines(outcome.data, 0))
            continue
        alone = request.single()
        if len(alone) == 1:
            found.append(Lines(request.refused(outcome), 1))
        else:
            # Which of them the model fails on, each by itself tells.
            singly = predict_rows(loaded, alone, run)
            found.append(Lines(b"".join([one.text for one in singly]), sum(one.failed for one in singly)))
    return found
