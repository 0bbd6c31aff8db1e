"""Content codings of predictions: bodies unpacked under a limit, answers packed where that was asked for.

Source: RFC 9110, sections 8.4 and 12.5.3. Triton's clients send and ask for `gzip` and `deflate`, which is zlib's
format (RFC 1950), not bare DEFLATE.
"""

from __future__ import annotations

import asyncio
import re
import zlib
from collections.abc import Sequence

from gateway.errors import ContentCodingUnknown, RequestTooLarge
from workers.errors import InputInvalid

GZIP, DEFLATE = b"gzip", b"deflate"
# zlib's names of the formats: the largest window, and 16 for gzip's frame.
WINDOWS = {GZIP: 31, b"x-gzip": 31, DEFLATE: 15}
# So much is unpacked on the event loop, in about 0.1 ms: anything larger in a thread.
INLINE_BYTES = 64 * 1024
# And of so much: blocks that hold nothing but their own codes, 12 bytes each, cost 0.7 ms here, and 16 MiB 3 seconds.
INLINE_PACKED_BYTES = 4 * 1024
# Of a list of codings; nobody knows more.
MOST_BYTES = 256
# 100 MB of JSON a second; level 6 takes 36 times as long for a fifteenth less.
LEVEL = 1
# Floats as bytes shrink by a tenth and take longer (20 MB/s) than most networks need for them. Most HTTP clients ask
# without being told to, so what is not to be packed must cost nothing: this much takes 0.1 ms, and no thread.
TRIAL_BYTES = 4 * 1024
WORTHWHILE = 0.85

Headers = Sequence[tuple[bytes, bytes]]

_CODING = re.compile(rb"\s*([a-z*-]+)\s*(?:;\s*q\s*=\s*(0(?:\.\d{0,3})?|1(?:\.0{0,3})?)\s*)?", re.IGNORECASE)


def require_known(coding: bytes) -> None:
    """Raises ContentCodingUnknown (415) for whatever is not one coding that `unpacked` knows."""
    if coding.strip().lower() not in WINDOWS:
        raise ContentCodingUnknown


async def unpacked(data: bytes, coding: bytes, limit: int) -> bytes:
    """The body that was packed by a coding of this name.

    Nothing beyond `limit` bytes is ever unpacked. Raises ContentCodingUnknown (415), RequestTooLarge (413), and
    InputInvalid (400) for what is not in the coding's format.
    """
    require_known(coding)
    reader = zlib.decompressobj(WINDOWS[coding.strip().lower()])
    try:
        if len(data) > INLINE_PACKED_BYTES:
            body = await asyncio.to_thread(reader.decompress, data, limit + 1)
        else:
            body = reader.decompress(data, min(INLINE_BYTES, limit + 1))
            if not reader.eof and len(body) <= limit:
                body += await asyncio.to_thread(reader.decompress, reader.unconsumed_tail, limit + 1 - len(body))
    except zlib.error:
        raise InputInvalid(f"the body is not {_shown(coding)}, as its Content-Encoding says") from None
    if len(body) > limit:
        raise RequestTooLarge(f"the body is larger than {limit} bytes when it is unpacked")
    if not reader.eof:
        raise InputInvalid(f"the body is cut off: its {_shown(coding)} does not end")
    if reader.unused_data:
        raise InputInvalid(f"{len(reader.unused_data)} bytes follow the end of the body's {_shown(coding)}")
    return body


async def packed(body: bytes, headers: Headers) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    """An answer as the headers of its request want it, and the headers that say so.

    As it is where they name no coding that there is here, or where its beginning grows hardly any smaller.
    """
    coding = wanted_coding(headers)
    if coding is None or not _shrinks(body[:TRIAL_BYTES]):
        return body, []
    return await asyncio.to_thread(_pack, body, coding), [(b"content-encoding", coding), (b"vary", b"accept-encoding")]


def wanted_coding(headers: Headers) -> bytes | None:
    """The coding that an answer may have, gzip rather than deflate where both are equally welcome."""
    listed = b",".join(value for name, value in headers if name == b"accept-encoding")
    accepted = dict(_codings(listed[:MOST_BYTES]))
    others = accepted.get(b"*", 0.0)
    choices = [(accepted.get(coding, others), coding) for coding in (GZIP, DEFLATE)]
    quality, coding = max(choices, key=lambda choice: choice[0])
    # Who says nothing about an answer as it is takes it as well, but not rather.
    return coding if quality > 0 and quality >= accepted.get(b"identity", 0.0) else None


def _codings(listed: bytes) -> list[tuple[bytes, float]]:
    found = (_CODING.fullmatch(part) for part in listed.split(b","))
    return [(match[1].lower(), float(match[2] or 1)) for match in found if match is not None]


def _shrinks(beginning: bytes) -> bool:
    return len(zlib.compress(beginning, LEVEL)) <= WORTHWHILE * len(beginning)


def _pack(body: bytes, coding: bytes) -> bytes:
    writer = zlib.compressobj(LEVEL, zlib.DEFLATED, WINDOWS[coding])
    return writer.compress(body) + writer.flush()


def _shown(coding: bytes) -> str:
    return coding.strip().lower().decode("ascii")
