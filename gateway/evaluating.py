"""How well a version answers its model's labelled samples: asked of the workers as any prediction is, at bulk priority.

A gateway loads no model. The samples are read a piece at a time, and what is asked of the queue is one piece.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator

import numpy as np
from anyio.to_thread import run_sync

from gateway.parts import Parts
from model_store.catalog import CatalogVersion
from model_store.errors import SluiceError
from model_store.evaluations import Evaluation
from model_store.signature import STRING, Signature, Tensor, Tensors
from model_store.tensors import element_type
from workers.files.sample_archives import Piece, classes_of, pieces
from workers.lanes import Lane, Priority
from workers.protocols.body import Body, Dialect
from workers.protocols.byte_strings import write_strings

PIECE_ROWS = 256
# Enough for a percent of a percent; a request may not keep the workers from others for longer.
MOST_SAMPLES = 20_000
MOST_SECONDS = 120.0
# Beyond it a table of what was taken for what would be larger than the samples.
TABLE_CLASSES = 100


class EvaluationFailed(SluiceError):
    """The version did not answer a sample; the message says what it said instead."""

    status = 409
    code = "evaluation_failed"


class EvaluationTooLong(SluiceError):
    status = 504
    code = "evaluation_too_long"


async def evaluate(parts: Parts, client_id: str, model: str, version: CatalogVersion, digest: str) -> Evaluation:
    """What a version answers to the labelled samples with this digest, at most the first 20,000 of them.

    Raises FileInvalid where they do not fit this version, EvaluationFailed, EvaluationTooLong, and what a prediction
    does.
    """
    signature = version.signature
    if signature is None:
        raise SluiceError("the version has no signature")
    lane = Lane(model, version.number, Priority.BULK, client_id)
    tally = Tally()
    deadline = time.monotonic() + MOST_SECONDS
    rows = version_rows(parts, version)
    classes_of(signature)
    with contextlib.ExitStack() as held:
        # It is verified as a whole, and may come from a bucket.
        path = await run_sync(held.enter_context, parts.artifacts.opened(digest))
        left = pieces(path, signature, labelled=True, rows=rows)
        while (piece := await run_sync(next_of, left)) is not None and tally.instances < MOST_SAMPLES:
            if time.monotonic() > deadline:
                raise EvaluationTooLong(f"{tally.instances} samples took {MOST_SECONDS:.0f} seconds; upload fewer")
            answer = await parts.submission.predict(
                lane, request_of(piece.inputs, signature), parts.settings.synchronous_seconds
            )
            if answer.status != 200:
                raise EvaluationFailed(
                    f"the version answered {answer.status}: {answer.body[:300].decode('utf-8', 'replace')}"
                )
            tally.count(scores_of(Body(answer.body, Dialect.OPEN_INFERENCE, answer.head), signature), piece.labels)
    return tally.evaluation(digest)


def version_rows(parts: Parts, version: CatalogVersion) -> int:
    """How many samples to ask at a time."""
    return max(1, min(PIECE_ROWS, parts.settings.max_instances, version.max_batch))


def next_of(left: Iterator[Piece]) -> Piece | None:
    return next(left, None)


class Tally:
    """Counts what was taken for what."""

    def __init__(self) -> None:
        self.instances = 0
        self._right = 0
        self._classes = 0
        self._counts: Tensor | None = None

    def count(self, scores: Tensor, labels: Tensor | None) -> None:
        if labels is None or scores.ndim != 2 or len(scores) != len(labels) or scores.shape[1] <= int(labels.max()):
            raise EvaluationFailed("the answers are no scores of these classes")
        found = scores.argmax(axis=1)
        self.instances += len(labels)
        self._right += int((found == labels).sum())
        classes = scores.shape[1]
        if self._classes not in (0, classes):
            raise EvaluationFailed("the answers have different numbers of classes")
        self._classes = classes
        # Of a hundred thousand classes, a square of counts would take all memory.
        if classes <= TABLE_CLASSES:
            if self._counts is None:
                self._counts = np.zeros((classes, classes), np.int64)
            np.add.at(self._counts, (labels.astype(np.int64), found), 1)

    def evaluation(self, digest: str) -> Evaluation:
        table = () if self._counts is None else tuple(map(tuple, self._counts.tolist()))
        return Evaluation(digest, self.instances, self._right, self._classes, table)


def request_of(inputs: Tensors, signature: Signature) -> Body:
    """A request for the first output, as bytes both ways."""
    described, data = [], []
    for spec in signature.inputs:
        tensor = inputs[spec.name]
        raw = write_strings(tensor) if spec.dtype == STRING else np.ascontiguousarray(tensor).tobytes()
        described.append(
            {
                "name": spec.name,
                "datatype": element_type(spec.dtype).open_inference,
                "shape": list(tensor.shape),
                "parameters": {"binary_data_size": len(raw)},
            }
        )
        data.append(raw)
    output = {"name": signature.outputs[0].name, "parameters": {"binary_data": True}}
    head = json.dumps({"inputs": described, "outputs": [output]}).encode()
    return Body(b"".join([head, *data]), Dialect.OPEN_INFERENCE, len(head))


def scores_of(body: Body, signature: Signature) -> Tensor:
    """The first output of an answer."""
    shape = json.loads(body.data[: body.head])["outputs"][0]["shape"]
    dtype = signature.outputs[0].numpy_dtype().newbyteorder("<")
    found: Tensor = np.frombuffer(body.data, dtype, offset=body.head).reshape(shape)
    return found
