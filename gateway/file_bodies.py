"""Bodies that are files: one as it is, by its Content-Type, or a form with several; nothing looks into a file here.

What begins with a brace, behind white space or not, is JSON whatever the Content-Type says: TensorFlow Serving does not
look at it, browsers call JSON text/plain, and no image, recording or form begins so.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from workers.errors import InputInvalid
from workers.protocols.body import Body
from workers.protocols.files import Sent, body_of

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

JSON_START = re.compile(rb"[ \t\r\n]*+\{")
FORM = b"multipart/form-data"
KINDS = (b"image/", b"audio/", b"text/plain")
BOUNDARY_BYTES = 70  # RFC 2046, section 5.1.1
MOST_PARTS = 4096
# Of all headers of all parts; a browser's have 150 bytes each.
HEADER_BYTES = 1024**2
# A larger form takes milliseconds to take apart, in which the event loop would answer nobody.
INLINE_FORM_BYTES = 64 * 1024


def file_type(headers: Iterable[tuple[bytes, bytes]]) -> bytes | None:
    """The Content-Type where it is that of a file, or of a form of files."""
    for name, value in headers:
        if name == b"content-type":
            return value if value.lower().startswith((FORM, *KINDS)) else None
    return None


async def read_files(content_type: bytes, data: bytes) -> Body:
    """A body of such a type in the dialect of files; raises InputInvalid for a form that cannot be taken apart."""
    if not content_type.lower().startswith(FORM):
        return body_of([(None, data)])
    if len(data) <= INLINE_FORM_BYTES:
        return body_of(files_of(content_type, data))
    return await asyncio.to_thread(lambda: body_of(files_of(content_type, data)))


def files_of(content_type: bytes, data: bytes) -> list[Sent]:
    """The parts of a form (RFC 7578) in their order, each with its name; raises InputInvalid."""
    boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
    if not 0 < len(boundary) <= BOUNDARY_BYTES:
        raise InputInvalid(f"the Content-Type of the form names no boundary of 1 to {BOUNDARY_BYTES} characters")
    form = _Form()
    try:
        MultipartParser(boundary, form.callbacks()).write(data)
    except FormParserError:
        raise InputInvalid("the body is not the form that its Content-Type announces") from None
    if not form.ended:
        raise InputInvalid("the form ends before its last boundary")
    if not form.parts:
        raise InputInvalid("the form has no part; send one, or several, named after each input")
    return [(name, b"".join(pieces)) for name, pieces in form.parts]


@dataclass(slots=True)
class _Form:
    """What the parser has found so far."""

    parts: list[tuple[str, list[bytes]]] = field(default_factory=list)
    ended: bool = False
    header_bytes: int = 0
    header_name: bytes = b""
    header_value: bytes = b""
    disposition: bytes = b""

    def callbacks(self) -> MultipartCallbacks:
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._name_comes,
            "on_header_value": self._value_comes,
            "on_header_end": self._header_ends,
            "on_headers_finished": self._named,
            "on_part_data": self._data_comes,
            "on_end": self._end,
        }

    def _begin(self) -> None:
        if len(self.parts) >= MOST_PARTS:
            raise InputInvalid(f"the form has more than {MOST_PARTS} parts")
        self.disposition = b""

    def _name_comes(self, data: bytes, start: int, end: int) -> None:
        self._count(end - start)
        self.header_name += data[start:end]

    def _value_comes(self, data: bytes, start: int, end: int) -> None:
        self._count(end - start)
        self.header_value += data[start:end]

    def _count(self, size: int) -> None:
        self.header_bytes += size
        if self.header_bytes > HEADER_BYTES:
            raise InputInvalid(f"the headers of the form's parts have more than {HEADER_BYTES} bytes")

    def _header_ends(self) -> None:
        if self.header_name.lower() == b"content-disposition":
            self.disposition = self.header_value
        self.header_name = self.header_value = b""

    def _named(self) -> None:
        name = parse_options_header(self.disposition)[1].get(b"name")
        if name is None:
            raise InputInvalid(f"part {len(self.parts)} of the form has no name; it is the input's")
        self.parts.append((name.decode("utf-8", "replace"), []))

    def _data_comes(self, data: bytes, start: int, end: int) -> None:
        self.parts[-1][1].append(data[start:end])

    def _end(self) -> None:
        self.ended = True
