"""Commands of the child: read images out of a zip archive, a batch at a time, as instances of a version's input.

An archive of some kilobytes may unpack to petabytes, and an image of some bytes may announce gigapixels: an image's
header is read first, and only what has exactly the size that the version takes is decoded; where the version's input
specification says how images come to that size, what has at most as many pixels as such a version could take.
"""

from __future__ import annotations

import io
import os
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from model_store.signature import Signature, Tensor, Tensors
from workers.decoding.layout import MOST_PIXELS, Layout
from workers.decoding.rows import answer, refused

HELD = "images"
# What Pillow may take the bytes for, whatever the name says: each more is one more parser of strangers' bytes.
FORMATS = ("PNG", "JPEG", "WEBP")
MOST_MEMBERS = 1_000_000
IMAGE_BYTES = 32 * 1024**2
# Images are compressed already. What all members unpack to, to the bytes of the archive.
RATIO_LIMIT = 100
RATIO_FREE_BYTES = 1024**2
ENCRYPTED = 0x1
STORED_OR_DEFLATED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


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
    """An archive that is being read; `members` are its images, in the order of its directory."""

    archive: zipfile.ZipFile
    members: list[zipfile.ZipInfo]
    layout: Layout


def open_file(held: dict[str, Any], arguments: dict[str, Any], _tensors: Tensors) -> tuple[dict[str, Any], Tensors]:
    """Opens the zip archive `file`, in the current folder; answers how many `rows`, which are images, it has.

    Raises UploadRefused: zip_invalid, zip_too_large, zip_ratio, format_unavailable, and what `Layout.of` does.
    """
    layout = Layout.of(Signature.from_json(arguments["signature"]), arguments["pixels"], arguments["specification"])
    try:
        import PIL.Image  # noqa: F401 - to say now what is missing
    except ImportError:
        raise refused(
            "format_unavailable", "reading images needs Pillow: pip install 'sluice-gateway[files]'"
        ) from None
    try:
        archive = zipfile.ZipFile(arguments["file"])
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise refused("zip_invalid", "the file is no zip archive, or it is truncated") from error
    _require_honest_sizes(archive, os.path.getsize(arguments["file"]))
    members = [member for member in archive.infolist() if _is_image(member)]
    if len(members) > min(arguments["most_rows"], MOST_MEMBERS):
        raise refused("zip_too_large", f"the archive has {len(members):,} files, which are too many")
    held[HELD] = Open(archive, members, layout)
    return {"rows": len(members)}, {}


def read_rows(held: dict[str, Any], arguments: dict[str, Any], _tensors: Tensors) -> tuple[dict[str, Any], Tensors]:
    """Images from `start` on, at most `batch_rows`: their number `rows`, what is `wrong` with some, and a tensor."""
    found: Open = held[HELD]
    start = arguments["start"]
    members = found.members[start : start + arguments["batch_rows"]]
    layout = found.layout
    values = np.zeros((len(members), *layout.instance), layout.dtype)
    wrong: dict[int, str] = {}
    for row, member in enumerate(members):
        try:
            values[row] = layout.scaled(pixels_of(_content(found.archive, member), layout))
        except ImageUnfit as error:
            wrong[row] = f"{_shown(member.filename)}: {error}"
    return answer(len(members), wrong, {layout.name: values})


def _require_honest_sizes(archive: zipfile.ZipFile, size_bytes: int) -> None:
    """Refuses members that share their bytes, as those of a bomb do (Fifield, "A better zip bomb"), and vast ones."""
    members = archive.infolist()
    if sum(member.compress_size for member in members) > size_bytes:
        raise refused("zip_invalid", "members of the archive overlap")
    if sum(member.file_size for member in members) > RATIO_LIMIT * size_bytes + RATIO_FREE_BYTES:
        raise refused("zip_ratio", f"the archive unpacks to more than {RATIO_LIMIT} times its size")


def _is_image(member: zipfile.ZipInfo) -> bool:
    """Not a folder, nor what desktops add of their own: `__MACOSX/` and names that begin with a dot."""
    path = PurePosixPath(member.filename)
    return not member.is_dir() and not path.name.startswith(".") and "__MACOSX" not in path.parts


def _content(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    """A member's bytes, of which no more are unpacked than an image may have, whatever it declares."""
    if member.flag_bits & ENCRYPTED or member.compress_type not in STORED_OR_DEFLATED:
        raise ImageUnfit("the file is encrypted, or neither stored nor deflated")
    try:
        with archive.open(member) as file:
            content = file.read(IMAGE_BYTES + 1)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError, RuntimeError):
        raise ImageUnfit("the file cannot be unpacked") from None
    if len(content) > IMAGE_BYTES:
        raise ImageUnfit(f"the file has more than {IMAGE_BYTES:,} bytes")
    return content


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


def _shown(name: str) -> str:
    return "".join(character for character in name[-80:] if character.isprintable())
