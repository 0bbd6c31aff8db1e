"""How an image becomes an instance, as far as a version's signature leaves no choice."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from model_store.signature import Signature, Tensor
from workers.decoding.rows import refused

# Of one image, decoded: whoever may upload models decides the size, and an archive may have many images.
MOST_PIXELS = 4096 * 4096
GREY, COLOUR = 1, 3
# What becomes grey, or colour, without a choice: no transparency to fill, no inks to translate.
MODES = {GREY: ("L", "1"), COLOUR: ("RGB", "P", "L", "1")}


class Pixels(StrEnum):
    """The numbers that a pixel's 256 steps become."""

    BYTES = "0-255"
    UNIT = "0-1"


@dataclass(frozen=True, slots=True)
class Layout:
    """Images of one size as instances of shape `instance`; `first` says that channels come before rows."""

    name: str
    instance: tuple[int, ...]
    dtype: str
    height: int
    width: int
    channels: int
    first: bool
    unit: bool

    @classmethod
    def of(cls, signature: Signature, pixels: str | None) -> Layout:
        """Where (height, width), (height, width, 1 or 3) and (1 or 3, height, width) are instances of the only input.

        Raises UploadRefused: images_unfit where the signature takes anything else or leaves a size open, pixels_unsaid
        where its numbers may mean either scale and `pixels` does not say which.
        """
        [spec, *others] = signature.inputs
        shape = spec.shape[1:]
        sizes = tuple(size for size in shape if size is not None)
        if others or not spec.batched or len(sizes) != len(shape) or len(shape) not in (2, 3):
            raise _unfit(spec.shape)
        last, first = len(sizes) == 2 or sizes[-1] in MODES, len(sizes) == 3 and sizes[0] in MODES
        if last == first:
            raise _unfit(spec.shape)
        channels, height, width = sizes if first else (sizes[2] if len(sizes) == 3 else GREY, *sizes[:2])
        if height * width > MOST_PIXELS or not (spec.dtype == "uint8" or spec.numpy_dtype().kind == "f"):
            raise _unfit(spec.shape)
        if pixels is None and spec.dtype != "uint8":
            raise refused(
                "pixels_unsaid",
                f"{spec.name} takes {spec.dtype}: say ?format=images-0-1 or ?format=images-0-255, as it was trained",
            )
        unit = pixels == Pixels.UNIT
        if unit and spec.dtype == "uint8":
            raise refused("pixels_unsaid", f"{spec.name} takes uint8: its pixels are 0-255")
        return cls(spec.name, sizes, spec.dtype, height, width, channels, first, unit)

    @property
    def mode(self) -> str:
        """Pillow's name for what is read."""
        return "L" if self.channels == GREY else "RGB"

    @property
    def modes(self) -> tuple[str, ...]:
        """Pillow's names for what is taken."""
        return MODES[self.channels]

    def scaled(self, decoded: Tensor) -> Tensor:
        """An instance of what was read: uint8, shape (height, width, channels)."""
        turned = decoded.transpose(2, 0, 1) if self.first else decoded
        values = turned.reshape(self.instance).astype(self.dtype)
        return values / np.asarray(255, self.dtype) if self.unit else values


def _unfit(shape: tuple[int | None, ...]) -> Exception:
    return refused(
        "images_unfit",
        "images are taken where the version has one input of [batch, height, width], [batch, height, width, 1 or 3] or "
        f"[batch, 1 or 3, height, width], of float or uint8; it has {list(shape)}",
    )
