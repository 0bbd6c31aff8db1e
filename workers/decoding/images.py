"""Commands of the child: read images out of a zip archive, a batch at a time, as instances of a version's input.

An archive of some kilobytes may unpack to petabytes, and an image of some bytes may announce gigapixels: an image's
header is read first, and only what has exactly the size that the version takes is decoded; where the version's input
specification says how images come to that size, what has at most as many pixels as such a version could take.
"""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from model_store.signature import Signature, Tensor, Tensors
from workers.decoding.layout import MOST_PIXELS, Layout
from workers.decoding.rows import answer, refused
from workers.decoding.zip_members import Members, MemberUnfit, open_members, told

HELD = "images"
# What Pillow may take the bytes for, whatever the name says: each more is one more parser of strangers' bytes.
FORMATS = ("PNG", "JPEG", "WEBP")
# What Pillow's plug-ins raise on broken files has no common base.
BROKEN = (
    *(OSError, ValueError, SyntaxError, EOFError, IndexError, TypeError, KeyError, AttributeError, OverflowError),
    *(struct.error, zlib.error, ZeroDivisionError),
)
# Of an image's bytes, what they are decoded to; below, blank pages and drawings may be packed as well as they can be.
IMAGE_RATIO = 200
IMAGE_FREE_BYTES = 16 * 1024**2
PNG_MARK = b"\x89PNG\r\n\x1a\n"
PNG_DEPTH_AT = 24
DEEP = 16


class ImageUnfit(Exception):
    """An image that is no instance of the input; the message says why."""


@dataclass(slots=True)
class Open:
    """An archive of images that is being read."""

    members: Members
    layout: Layout


def open_file(held: dict[str, Any], arguments: dict[str, Any], _tensors: Tensors) -> tuple[dict[str, Any], Tensors]:
    """Opens the zip archive `file`, in the current folder; answers how many `rows`, which are images, it has.

    Raises UploadRefused: format_unavailable, and what `Layout.of` and `open_members` do.
    """
    layout = Layout.of(Signature.from_json(arguments["signature"]), arguments["pixels"], arguments["specification"])
    try:
        import PIL.Image  # noqa: F401 - to say now what is missing
    except ImportError:
        raise refused(
            "format_unavailable", "reading images needs Pillow: pip install 'sluice-gateway[files]'"
        ) from None
    members = open_members(arguments["file"], arguments["most_rows"])
    held[HELD] = Open(members, layout)
    return {"rows": len(members.files)}, {}


def read_rows(held: dict[str, Any], arguments: dict[str, Any], _tensors: Tensors) -> tuple[dict[str, Any], Tensors]:
    """Images from `start` on, at most `batch_rows`: their number `rows`, what is `wrong` with some, and a tensor."""
    found: Open = held[HELD]
    start = arguments["start"]
    members = found.members.files[start : start + arguments["batch_rows"]]
    layout = found.layout
    values = np.zeros((len(members), *layout.instance), layout.dtype)
    wrong: dict[int, str] = {}
    for row, member in enumerate(members):
        try:
            values[row] = layout.scaled(pixels_of(found.members.content(member), layout))
        except (ImageUnfit, MemberUnfit) as error:
            wrong[row] = told(member, error)
    return answer(len(members), wrong, {layout.name: values})


def pixels_of(content: bytes, layout: Layout) -> Tensor:
    """What an image shows, in the size that the version takes: shape (height, width, channels), uint8.

    Raises ImageUnfit by the image's header, before anything is decoded, or where it cannot be decoded.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            _require_fit(image.size, image.mode, layout)
            _require_plain(image, content)
            decoded = np.asarray(_fitted(image.convert(layout.mode), layout))
    except ImageUnfit:
        raise
    except (*BROKEN, Image.DecompressionBombError):
        raise ImageUnfit(f"it is no {', '.join(FORMATS)} image that can be read") from None
    return decoded.reshape(layout.height, layout.width, layout.channels)


def _fitted(image: Any, layout: Layout) -> Any:  # noqa: ANN401 - Pillow is imported where an image is there
    """The image in the size that the version takes, as its input specification says."""
    from PIL import Image, ImageOps

    size = (layout.width, layout.height)
    if layout.resize == "none" or image.size == size:
        return image
    if layout.resize == "stretch":
        return image.resize(size, Image.Resampling.BILINEAR)
    if layout.resize == "pad":
        # Pillow makes that a picture without a pixel, and nothing but black of it.
        if round(min(size[0] / image.width, size[1] / image.height) * min(image.size)) == 0:
            raise ImageUnfit(f"it has {image.width} x {image.height} pixels, of which nothing would be left")
        return ImageOps.pad(image, size, Image.Resampling.BILINEAR, color=0)
    return ImageOps.fit(image, size, Image.Resampling.BILINEAR)


def _require_fit(size: tuple[int, int], mode: str, layout: Layout) -> None:
    """By the image's header alone: nothing of it is decoded yet."""
    if layout.resize != "none":
        if size[0] * size[1] > MOST_PIXELS:
            raise ImageUnfit(f"it has {size[0]} x {size[1]} pixels, and at most {MOST_PIXELS:,} are decoded")
    elif size != (layout.width, layout.height):
        raise ImageUnfit(f"it has {size[0]} x {size[1]} pixels, and {layout.width} x {layout.height} are taken")
    if mode not in layout.modes:
        grey = ": make it grey first" if mode == "RGB" else ""
        raise ImageUnfit(f"its mode is {mode}; {', '.join(layout.modes)} are taken{grey}")


def _require_plain(image: Any, content: bytes) -> None:  # noqa: ANN401 - as above
    """Refuses what would be lost without a word: transparency, all pictures but the first, half of 16 bits."""
    if "transparency" in image.info:
        raise ImageUnfit("it has transparency; lay it on a background")
    if content.startswith(PNG_MARK) and content[PNG_DEPTH_AT] == DEEP:
        raise ImageUnfit("it has 16 bits a channel, and 8 are taken")
    # A telephone's JPEG may carry a second picture that nobody is meant to see.
    if image.format in ("PNG", "WEBP") and getattr(image, "is_animated", False):
        raise ImageUnfit("it is animated; send one picture")
    decoded_bytes = image.size[0] * image.size[1] * len(image.getbands())
    if decoded_bytes > IMAGE_FREE_BYTES + IMAGE_RATIO * len(content):
        raise ImageUnfit(f"it unpacks to more than {IMAGE_RATIO} times its size")
