"""Bodies of predictions on their way in and out: read under the limit, unparsed; sent with the headers they need."""

from __future__ import annotations

from starlette.types import Receive

from gateway.body_types import type_of_file
from gateway.content_codings import require_known, unpacked
from gateway.errors import RequestTooLarge
from gateway.file_bodies import read_files
from gateway.scoring_content import scoring_dialect
from workers.errors import InputInvalid
from workers.protocols.body import TEXT, Body, Dialect

RawHeaders = list[tuple[bytes, bytes]]

# How many bytes of a body are JSON, in requests and answers (Triton's binary tensor data extension).
HEAD_LENGTH = b"inference-header-content-length"
# As many digits as a body's length may have, here and in HTTP.
HEAD_DIGITS = 10
LENGTH_DIGITS = 20
# Dialects whose bodies have no head, whatever the headers say.
JSON_ALONE = frozenset({Dialect.TENSORFLOW_SERVING, Dialect.CLASSIFY, Dialect.REGRESS, Dialect.EXPLAIN})
JSON = (b"content-type", b"application/json")
BYTES = (b"content-type", b"application/octet-stream")


class Disconnected(Exception):
    """The caller went away before its body was complete."""


async def read_prediction(headers: RawHeaders, receive: Receive, limit: int, dialect: Dialect) -> Body:
    """The body of a prediction, unparsed.

    Raises RequestTooLarge (413), ContentCodingUnknown and ContentTypeUnsupported (415), InputInvalid (400) for a length
    of its JSON that cannot be, and Disconnected.
    """
    data = await read_body(headers, receive, limit)
    if dialect in JSON_ALONE:
        if data[:1] != b"{" and (files := type_of_file(headers, data, dialect)):
            return await read_files(files, data)
        return Body(data, dialect)
    if dialect is Dialect.MLFLOW:
        return Body(data, scoring_dialect(headers))
    head = head_of(headers)
    if head != TEXT and head > len(data):
        raise InputInvalid(f"Inference-Header-Content-Length is {head}, but the body has {len(data)} bytes")
    if head == TEXT and data[:1] != b"{":
        type_of_file(headers, data, dialect)
    return Body(data, dialect, head)


def head_of(headers: RawHeaders) -> int:
    """How many bytes of JSON the headers announce; TEXT where the whole body is JSON."""
    for name, value in headers:
        if name == HEAD_LENGTH:
            if not value.isdigit() or len(value) > HEAD_DIGITS or int(value) >= TEXT:
                raise InputInvalid("Inference-Header-Content-Length is no number of bytes that a body could have")
            return int(value)
    return TEXT


def content_headers(head: int) -> RawHeaders:
    """What an answer's body is, by the length of its JSON, or TEXT."""
    return [JSON] if head == TEXT else [BYTES, (HEAD_LENGTH, b"%d" % head)]


async def read_body(headers: RawHeaders, receive: Receive, limit: int) -> bytes:
    """The body, unpacked if it was packed; raises RequestTooLarge, ContentCodingUnknown, InputInvalid, Disconnected."""
    coding = b""
    for name, value in headers:
        if name == b"content-length" and is_longer(value, limit):
            raise _too_large(limit)
        if name == b"content-encoding" and value.lower() != b"identity":
            coding = coding + b"," + value if coding else value
    if coding:
        require_known(coding)
        return await unpacked(await _received(receive, limit), coding, limit)
    return await _received(receive, limit)


async def _received(receive: Receive, limit: int) -> bytes:
    message = await receive()
    body: bytes = message.get("body", b"")
    if not message.get("more_body", False):
        if message["type"] == "http.disconnect":
            raise Disconnected
        if len(body) > limit:
            raise _too_large(limit)
        return body
    pieces, size = [body], len(body)
    while message.get("more_body", False):
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        piece = message.get("body", b"")
        size += len(piece)
        if size > limit:
            raise _too_large(limit)
        pieces.append(piece)
    return b"".join(pieces)


def is_longer(announced: bytes, limit: int) -> bool:
    """Whether a Content-Length, digits as the server lets them in, is over a limit."""
    # Zeros may come first, and of 4,300 digits Python makes no number.
    return len(announced) > LENGTH_DIGITS or int(announced) > limit


def _too_large(limit: int) -> RequestTooLarge:
    return RequestTooLarge(f"the body is larger than {limit} bytes")
