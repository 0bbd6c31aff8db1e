"""What a file says of itself in its first bytes: the format, and of an image the size that it announces.

Sources: PNG (W3C, section 5), JPEG (ITU-T T.81, annex B), WebP (RFC 9649), WAVE (RIFF), FLAC (RFC 9639). Nothing is
decoded: this much may be looked at beside secrets, and refuses what announces more than will ever be decoded.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

PNG = b"\x89PNG\r\n\x1a\n"
JPEG = b"\xff\xd8\xff"
# A JPEG's size stands behind whatever a camera wrote into it; a thumbnail and a colour profile are smaller than this.
LOOKED_AT_BYTES = 256 * 1024
SEGMENTS = 256
# Frame headers of a JPEG; 0xC4, 0xC8 and 0xCC, which lie between them, are something else.
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


@dataclass(frozen=True, slots=True)
class Beginning:
    """A format, such as PNG, and an image's width and height where they are announced where they belong."""

    format: str
    size: tuple[int, int] | None = None


IMAGES = ("PNG", "JPEG", "WebP")
RECORDINGS = ("WAV", "FLAC")


def beginning_of(data: bytes) -> Beginning | None:
    """What a file is by its first bytes; None for what is no image or recording of a known format."""
    if data.startswith(PNG):
        return Beginning("PNG", _unpacked(">II", data, 16))
    if data.startswith(JPEG):
        return Beginning("JPEG", _jpeg_size(data))
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return Beginning("WebP", _webp_size(data))
    if data[:4] == b"RIFF" and data[8:12] == b"WAVE":
        return Beginning("WAV")
    if data.startswith(b"fLaC"):
        return Beginning("FLAC")
    return None


def _unpacked(layout: str, data: bytes, at: int) -> tuple[int, int] | None:
    if len(data) < at + struct.calcsize(layout):
        return None
    width, height = struct.unpack_from(layout, data, at)
    return width, height


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    at = 2
    for _ in range(SEGMENTS):
        if at + 9 > min(len(data), LOOKED_AT_BYTES) or data[at] != 0xFF:
            return None
        marker = data[at + 1]
        if marker in FRAMES:
            found = _unpacked(">HH", data, at + 5)
            return None if found is None else (found[1], found[0])
        # A byte of 0xFF before a marker fills; what has no length has no contents either.
        at += 1 if marker == 0xFF else 2 + int.from_bytes(data[at + 2 : at + 4])
    return None


def _webp_size(data: bytes) -> tuple[int, int] | None:
    chunk = data[12:16]
    if chunk == b"VP8X" and len(data) >= 30:
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if chunk == b"VP8L" and len(data) >= 25:
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if chunk == b"VP8 ":
        found = _unpacked("<HH", data, 26)
        return None if found is None else (found[0] & 0x3FFF, found[1] & 0x3FFF)
    return None
