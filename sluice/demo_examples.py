"""Files for the demo's commands, written without a library: a grey PNG, and a WAV of one channel."""

from __future__ import annotations

import io
import struct
import wave
import zlib
from typing import Any

import numpy as np


def png_of(pixels: np.ndarray[Any, Any]) -> bytes:
    """A PNG (W3C, section 5) of uint8 pixels, shape (height, width), from black to white."""
    height, width = pixels.shape
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    # Each row is preceded by the number of its filter: none.
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in chunks)


def wav_of(samples: np.ndarray[Any, Any], sample_rate: int) -> bytes:
    """A WAV of 16 bits of samples from -1 to 1."""
    made = io.BytesIO()
    with wave.open(made, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes(np.rint(samples * 32767).astype("<i2").tobytes())
    return made.getvalue()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
