"""Overlays: an image in grey with its attributions in colour over it, as a PNG (W3C, Portable Network Graphics).

Red is what speaks for the class, blue what speaks against it; the strongest is opaque.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np
import numpy.typing as npt

from model_store.signature import Tensor
from workers.protocols.occlusion import Falls, image_axes

SIGNATURE = b"\x89PNG\r\n\x1a\n"
RGB, BITS = 2, 8
RED, BLUE = (214, 39, 40), (31, 119, 180)
# A pale image lets colours be seen, the strongest of which still show what is below them.
DARKEST, LIGHTEST = 64, 255
MOST_OPAQUE = 0.8
LARGEST = 1e100


def overlay(image: Tensor, heat: Falls) -> bytes | None:
    """The PNG of an instance with attributions of its shape over it; None where the instance is no image."""
    axes = image_axes(image.shape)
    if axes is None or image.dtype.kind not in "fiub" or not image.size:
        return None
    grey = _levels(_plane(_finite(image.astype(np.float64)), axes))
    strength = _plane(_finite(heat), axes)
    strongest = float(np.abs(strength).max())
    share = strength / strongest if strongest else np.zeros_like(strength)
    opacity = (np.abs(share) * MOST_OPAQUE)[..., np.newaxis]
    colour = np.where(share[..., np.newaxis] > 0, np.array(RED), np.array(BLUE))
    mixed = grey[..., np.newaxis] * (1 - opacity) + colour * opacity
    return png(mixed.round().astype(np.uint8))


def png(pixels: npt.NDArray[np.uint8]) -> bytes:
    """A PNG of an array of shape (height, width, 3)."""
    height, width, _ = pixels.shape
    # Each line begins with the number of its filter: 0 is none.
    lines = np.zeros((height, 1 + width * 3), np.uint8)
    lines[:, 1:] = pixels.reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, BITS, RGB, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(lines.tobytes())), (b"IEND", b""))
    return SIGNATURE + b"".join(_chunk(kind, data) for kind, data in chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _finite(values: Falls) -> Falls:
    """The same with zeros for what no picture can show: NaN, infinities, and what sums would overflow of."""
    found: Falls = np.where(np.abs(values) < LARGEST, values, 0.0)
    return found


def _plane(values: Falls, axes: tuple[int, int]) -> Falls:
    """The mean over channels, shape (height, width)."""
    rest = tuple(axis for axis in range(values.ndim) if axis not in axes)
    found: Falls = values.mean(axis=rest) if rest else values
    return found


def _levels(plane: Falls) -> Falls:
    """Whatever the range of the values, brought to that of a pale image."""
    low, high = float(plane.min()), float(plane.max())
    unit = (plane - low) / (high - low) if high > low else np.zeros_like(plane)
    found: Falls = DARKEST + unit * (LIGHTEST - DARKEST)
    return found
