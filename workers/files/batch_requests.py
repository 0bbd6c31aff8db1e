"""The lines of OpenAI's batch files: each is a request of its own under a `custom_id`, and is answered by a line.

    {"custom_id": "a", "method": "POST", "url": "/v1/models/mnist:predict", "body": {"instances": […]}}
    {"id": "batch_req_0", "custom_id": "a", "response": {"status_code": 200, "request_id": …, "body": …}, "error": null}

Source: the schemas Batch, BatchRequestInput and BatchRequestOutput of OpenAI's openapi.yaml. As there, a file is
checked as a whole before any of it is run. The line of a request that got no answer has a space behind its first colon:
so the two kinds are told apart without reading them.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import orjson

from model_store.errors import SluiceError
from model_store.signature import Tensors
from workers.errors import InputInvalid
from workers.files import row_lines
from workers.files.contract import Asked, Chunk, ChunkSize, FileInvalid, Members, Piece, Refused, RowsRequest, Span
from workers.files.json_rows import lines_of
from workers.files.lines import count_lines, cut_lines
from workers.protocols.body import Body
from workers.protocols.contract import Contract
from workers.protocols.errors import invalid
from workers.protocols.json_text import parse_json
from workers.protocols.tensorflow_serving import PredictRequest, parse_predict

# OpenAI takes 50,000 lines; so many custom_ids still take little memory as numbers of 8 bytes.
MOST_LINES = 1_000_000
CUSTOM_ID_CHARACTERS = 512
LINE_BYTES = 16 * 1024**2
CHECKED_AT_ONCE = ChunkSize(rows=10_000, size_bytes=4 * 1024**2, row_bytes=LINE_BYTES)
FAILED_BEGINS = b'{"id": '
_BODY = re.compile(rb'"body"\s*:\s*')


class LineInvalid(FileInvalid):
    """A line because of which no batch is made of its file; `line` counts from 1."""

    def __init__(self, line: int, code: str, message: str) -> None:
        super().__init__(f"line {line}: {message}")
        self.code = code
        self.line = line


@dataclass(frozen=True, slots=True)
class BatchRequests:
    """The format `openai`; `endpoint` is the address that every line must name."""

    endpoint: str | None = None

    def chunks(
        self, file: BinaryIO, _contract: Contract, size: ChunkSize, checkpoint: Members | None
    ) -> Iterator[Chunk]:
        """Also checks the whole file, before the first chunk; raises LineInvalid for its first bad line."""
        if self.endpoint is None:
            raise FileInvalid("this is a file of requests: make a batch of it with POST /v1/batches")
        if not checkpoint:
            self._check(file)
        yield from cut_lines(file, size, checkpoint, {"row_bytes": size.row_bytes})

    def total(self, file: BinaryIO, _contract: Contract, beat: Callable[[], None]) -> int | None:
        return count_lines(file, beat)

    def _check(self, file: BinaryIO) -> None:
        """Raises LineInvalid for the first bad line."""
        seen = array("Q")
        key = secrets.token_bytes(16)
        for chunk in cut_lines(file, CHECKED_AT_ONCE, None, {}):
            if chunk.first_row + chunk.rows > MOST_LINES:
                raise LineInvalid(MOST_LINES + 1, "too_many_lines", f"a file has at most {MOST_LINES:,} lines")
            if not isinstance(chunk.data, Span):
                raise LineInvalid(chunk.first_row + 1, "line_too_long", f"a line has at most {LINE_BYTES:,} bytes")
            file.seek(chunk.data.offset)
            for place, line in enumerate(lines_of(file.read(chunk.data.length))):
                custom_id = self._checked(line, chunk.first_row + place + 1)
                digest = hashlib.blake2b(custom_id.encode(), digest_size=8, key=key).digest()
                seen.append(int.from_bytes(digest, "little"))
        _require_unique(seen)

    def pieces(self, asked: Asked, contract: Contract) -> list[Piece]:
        if not asked.data:
            return [Refused(asked.first_row, failed_line(asked.first_row, b"null", _too_long(asked)))]
        return [
            _piece(line, asked.first_row + place, contract, asked) for place, line in enumerate(lines_of(asked.data))
        ]

    def refusals(self, asked: Asked, error: SluiceError) -> bytes:
        lines = lines_of(asked.data) if asked.data else [b""] * asked.rows
        return b"".join(
            failed_line(asked.first_row + place, _custom_id(line), error) for place, line in enumerate(lines)
        )

    def _checked(self, line: bytes, number: int) -> str:
        """The line's custom_id; raises LineInvalid."""
        try:
            found = orjson.loads(line)
        except orjson.JSONDecodeError:
            raise LineInvalid(number, "invalid_json_line", "this is no JSON") from None
        if not isinstance(found, dict):
            raise LineInvalid(number, "invalid_json_line", "this is no JSON object")
        custom_id = found.get("custom_id")
        if not isinstance(custom_id, str) or not 0 < len(custom_id) <= CUSTOM_ID_CHARACTERS:
            raise LineInvalid(
                number, "missing_required_parameter", f"custom_id is a text of 1 to {CUSTOM_ID_CHARACTERS} characters"
            )
        if found.get("method") != "POST":
            raise LineInvalid(number, "invalid_method", "method is POST")
        if found.get("url") != self.endpoint:
            raise LineInvalid(number, "mismatched_endpoint", f"url is the batch's endpoint, {self.endpoint}")
        if not isinstance(found.get("body"), dict):
            raise LineInvalid(number, "missing_required_parameter", "body is an object")
        return custom_id


@dataclass(frozen=True, slots=True)
class RequestLine:
    """A line's request; `custom_id` is JSON, as it comes back."""

    first_row: int
    request: PredictRequest
    custom_id: bytes

    @property
    def tensors(self) -> Tensors:
        return self.request.tensors

    @property
    def instances(self) -> int:
        return self.request.instances

    def format(self, outputs: Tensors, contract: Contract) -> Body:
        body = self.request.format(outputs, contract).data
        line = b'{"id":"batch_req_%d","custom_id":%b,"response":{"status_code":200,"request_id":"row-%d","body":%b},'
        filled = line % (self.first_row, self.custom_id, self.first_row, body)
        return row_lines.answered(filled + b'"error":null}\n', self.instances)

    def refused(self, error: SluiceError) -> bytes:
        return failed_line(self.first_row, self.custom_id, error)

    def single(self) -> Sequence[RowsRequest]:
        return [self]


def failed_line(row: int, custom_id: bytes, error: SluiceError) -> bytes:
    """A line that got no prediction: a response where the request was wrong, an error where something else was."""
    if error.status < 500:
        told = {"message": error.message, "type": "invalid_request_error", "param": None, "code": error.code}
        response = {"status_code": error.status, "request_id": f"row-{row}", "body": {"error": told}}
        ending = b'"response":%b,"error":null}\n' % orjson.dumps(response)
    else:
        described = orjson.dumps({"code": error.code, "message": error.message})
        ending = b'"response":null,"error":%b}\n' % described
    return b'%b"batch_req_%d","custom_id":%b,%b' % (FAILED_BEGINS, row, custom_id, ending)


def failed_bytes(lines: bytes) -> int:
    """How much of finished lines is of requests that got no answer."""
    return sum(len(line) for line in lines.splitlines(keepends=True) if line.startswith(FAILED_BEGINS))


def _piece(line: bytes, row: int, contract: Contract, asked: Asked) -> Piece:
    limit = asked.terms.get("row_bytes")
    custom_id = b"null"
    try:
        custom_id, body = _split(line)
        if isinstance(limit, int) and len(line) > limit:
            raise invalid(f"the line has {len(line)} bytes, but a line may have {limit}")
        try:
            request = parse_predict(body, contract.signature, max_instances=contract.max_instances)
        except InputInvalid:
            # Other members may follow the body: then it was no JSON by itself.
            custom_id, body = _parted(line)
            request = parse_predict(body, contract.signature, max_instances=contract.max_instances)
    except InputInvalid as error:
        return Refused(row, failed_line(row, custom_id, error))
    return RequestLine(row, request, custom_id)


def _split(line: bytes) -> tuple[bytes, bytes]:
    """The custom_id as JSON, and the text of the body; where others follow it, that text is no JSON.

    Mostly the body comes last: then it is what stands between the rest, which must be an object without it, and the
    last brace. To read it as JSON once, as text for a prediction, takes a third of the time of reading it twice.
    """
    found = _BODY.search(line)
    if found is not None and line.endswith(b"}"):
        try:
            head = orjson.loads(line[: found.end()] + b"null}")
        except orjson.JSONDecodeError:
            head = None
        if isinstance(head, dict) and list(head)[-1] == "body" and isinstance(head.get("custom_id"), str):
            return orjson.dumps(head["custom_id"]), line[found.end() : -1]
    return _parted(line)


def _parted(line: bytes) -> tuple[bytes, bytes]:
    """As `_split`, wherever the body stands."""
    whole = parse_json(line)
    if not isinstance(whole, dict):
        raise invalid("the line is no object")
    # Not orjson: it refuses integers of more than 64 bits, and makes null of what is not finite.
    return json.dumps(whole.get("custom_id")).encode(), json.dumps(whole.get("body")).encode()


def _custom_id(line: bytes) -> bytes:
    try:
        return _split(line)[0]
    except InputInvalid:
        return b"null"


def _too_long(asked: Asked) -> InputInvalid:
    return invalid(f"the line has {asked.terms.get('too_long')} bytes, but it may have {asked.terms.get('row_bytes')}")


def _require_unique(seen: array[int]) -> None:
    """Raises LineInvalid for a custom_id that comes again; `seen` are their digests, in order."""
    digests = np.frombuffer(seen, np.uint64) if seen else np.empty(0, np.uint64)
    order = np.argsort(digests, kind="stable")
    again = order[1:][digests[order[1:]] == digests[order[:-1]]]
    if len(again):
        raise LineInvalid(int(again.min()) + 1, "duplicate_custom_id", "its custom_id has come before")
