"""The body of an upload on its way into the store: a raw stream or a form with one file, never whole in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import anyio
from anyio.to_thread import run_sync
from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect

from gateway.upload_formats import format_of
from model_store.artifacts import PIECE_BYTES, Artifacts
from model_store.errors import SluiceError
from model_store.formats import Format, check_allowed
from model_store.receipts import Stored, empty, too_large

# What a form may add to its file: a boundary, a few headers and the file's name.
FORM_BYTES = 64 * 1024
BOUNDARY_BYTES = 70  # RFC 2046, section 5.1.1
FORM, FIELDS = "multipart/form-data", "application/x-www-form-urlencoded"


class FormInvalid(SluiceError):
    status = 422
    code = "form_invalid"


class FieldsSent(SluiceError):
    """`curl -d` calls every body fields of a form, and has taken the ends of lines and NULs out of the file."""

    status = 415
    code = "form_of_fields"


class UploadIncomplete(SluiceError):
    """The body ended, or the connection closed, before the file was complete."""

    status = 400
    code = "upload_incomplete"


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that is in the store."""

    format: Format
    stored: Stored


async def receive(request: Request, artifacts: Artifacts, format: Format | None, allowed: str) -> Upload:
    """Streams the request's file into the store; `allowed` is the setting `upload_formats`.

    Without `format`, the first bytes tell what it is, then the file's name. Raises ArtifactTooLarge (before anything is
    read, where the length is announced), ArtifactEmpty, StoreFull, FormatUnsupported, FieldsSent, FormInvalid,
    UploadIncomplete; in each case nothing is kept.
    """
    if has_type(request, FIELDS):
        raise FieldsSent(
            "the Content-Type says that these are fields of a form; send the file with `curl -T FILE`, `-F file=@FILE`"
            " or `--data-binary @FILE -H 'Content-Type: application/octet-stream'`"
        )
    body = form_body(request) if has_type(request, FORM) else RawBody(request)
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > artifacts.limit_bytes + body.overhead_bytes:
        raise too_large(artifacts.limit_bytes)
    try:
        return await _store(body, artifacts, format, allowed)
    except ClientDisconnect:
        raise UploadIncomplete("the connection closed before the file was complete") from None


class RawBody:
    """The body is the file, as `curl -T` sends it."""

    overhead_bytes = 0
    file_name = ""

    def __init__(self, request: Request) -> None:
        self._request = request

    async def chunks(self) -> AsyncIterator[bytes]:
        async for chunk in self._request.stream():
            yield chunk


class FormBody:
    """A form (RFC 7578) with a file, as `curl -F file=@model.keras` sends it, and beside it the fields that may be."""

    overhead_bytes = FORM_BYTES

    def __init__(self, request: Request, boundary: bytes, allowed: frozenset[str] = frozenset()) -> None:
        self._request = request
        self._allowed = allowed
        self._field: str | None = None
        self._ready: list[bytes] = []
        self._header_name, self._header_value = b"", b""
        self._disposition = b""
        self._parts = 0
        self._file_bytes = 0
        self._has_file = False
        self._ended = False
        self.file_name = ""
        self.fields: dict[str, bytes] = {}
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._part_begins,
                "on_header_field": self._header_name_comes,
                "on_header_value": self._header_value_comes,
                "on_header_end": self._header_ends,
                "on_headers_finished": self._headers_end,
                "on_part_data": self._content_comes,
                "on_end": self._form_ends,
            },
        )

    async def chunks(self) -> AsyncIterator[bytes]:
        """The file's bytes; raises FormInvalid for anything but one file, UploadIncomplete without the form's end."""
        received = 0
        async for chunk in self._request.stream():
            received += len(chunk)
            try:
                self._parser.write(chunk)
            except FormParserError:
                raise FormInvalid("the body is not the form that its Content-Type announces") from None
            if received - self._file_bytes > FORM_BYTES:
                raise FormInvalid("the form is far longer than its file")
            yield b"".join(self._ready)
            self._ready.clear()
        if not self._ended:
            raise UploadIncomplete("the form ends before its last boundary")

    @property
    def has_file(self) -> bool:
        """Whether a file has begun, though it may be empty."""
        return self._has_file

    def _part_begins(self) -> None:
        self._parts += 1
        self._disposition = b""
        if self._parts > 1 + len(self._allowed):
            raise FormInvalid("the form has more than one part; send the file alone, and options in the query")

    def _header_name_comes(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _header_value_comes(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _header_ends(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            self._disposition = self._header_value
        self._header_name, self._header_value = b"", b""

    def _headers_end(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._field = None
        if b"filename" not in options:
            self._field = self._allowed_field(options)
        elif self._has_file:
            raise FormInvalid("the form has more than one file")
        else:
            self._has_file = True
            self.file_name = options[b"filename"].decode("utf-8", "replace")

    def _allowed_field(self, options: dict[bytes, bytes]) -> str:
        name = options.get(b"name", b"").decode("utf-8", "replace")
        if not self._allowed:
            raise FormInvalid("the form's part is not a file; send the file alone, and options in the query")
        if name not in self._allowed or name in self.fields:
            raise FormInvalid(f"beside the file the form may have, once each: {', '.join(sorted(self._allowed))}")
        self.fields[name] = b""
        return name

    def _content_comes(self, data: bytes, start: int, end: int) -> None:
        if self._field is not None:
            self.fields[self._field] += data[start:end]
            return
        self._file_bytes += end - start
        self._ready.append(data[start:end])

    def _form_ends(self) -> None:
        self._ended = True


def has_type(request: Request, media_type: str) -> bool:
    return request.headers.get("content-type", "").lower().startswith(media_type)


def form_body(request: Request, allowed: frozenset[str] = frozenset()) -> FormBody:
    """The form that the Content-Type announces, with fields of these names beside the file; raises FormInvalid."""
    _, options = parse_options_header(request.headers["content-type"])
    boundary = options.get(b"boundary", b"")
    if not 0 < len(boundary) <= BOUNDARY_BYTES:
        raise FormInvalid(f"the Content-Type of the form names no boundary of 1 to {BOUNDARY_BYTES} characters")
    return FormBody(request, boundary, allowed)


async def _store(body: RawBody | FormBody, artifacts: Artifacts, format: Format | None, allowed: str) -> Upload:
    pieces = in_pieces(body.chunks())
    first = await anext(pieces, b"")
    if not first:
        raise empty()
    format = format or format_of(first, body.file_name)
    check_allowed(format, allowed)
    # Files are written in threads: a slow disk must not hold up everybody else's predictions.
    receipt = await run_sync(artifacts.receive)
    try:
        await run_sync(receipt.write, first)
        async for piece in pieces:
            await run_sync(receipt.write, piece)
        return Upload(format, await run_sync(receipt.commit))
    finally:
        with anyio.CancelScope(shield=True):
            await run_sync(receipt.close)


async def in_pieces(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """A file's bytes in pieces of at least PIECE_BYTES, but for the last: 64 KiB would be little for a thread."""
    gathered = bytearray()
    async for chunk in chunks:
        gathered += chunk
        if len(gathered) >= PIECE_BYTES:
            yield bytes(gathered)
            gathered.clear()
    if gathered:
        yield bytes(gathered)
