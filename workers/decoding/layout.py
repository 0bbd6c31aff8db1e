"""How an image becomes an instance: by the version's signature, and by its input specification where there is one."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

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
    resize: str = "none"
    # What pixels of 0 and 255 become, and what is then subtracted of each channel, and divides it.
    range: tuple[float, float] | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    @classmethod
    def of(cls, signature: Signature, pixels: str | None, specification: str | None = None) -> Layout:
        """Where (height, width), (height, width, 1 or 3) and (1 or 3, height, width) are instances of the only input.

        Raises UploadRefused: images_unfit where the signature takes anything else or leaves a size open, pixels_unsaid
        where its numbers may mean either scale and neither `pixels` nor the specification (JSON, that of an image) says
        which.
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
        said = json.loads(specification or "{}")
        plain = cls(spec.name, sizes, spec.dtype, height, width, channels, first, unit=False)
        if said.get("kind") == "image":
            return plain._specified(said)
        if pixels is None and spec.dtype != "uint8":
            raise refused(
                "pixels_unsaid",
                f"{spec.name} takes {spec.dtype}: say ?format=images-0-1 or ?format=images-0-255, as it was trained",
            )
        unit = pixels == Pixels.UNIT
        if unit and spec.dtype == "uint8":
            raise refused("pixels_unsaid", f"{spec.name} takes uint8: its pixels are 0-255")
        return replace(plain, unit=unit)

    def _specified(self, said: dict[str, Any]) -> Layout:
        """The same by an input specification; raises UploadRefused (images_unfit) where the two contradict."""
        size = (said["height"], said["width"], said["channels"])
        low, high = said["range"]
        mean, std = tuple(said.get("mean") or ()), tuple(said.get("std") or ())
        if size != (self.height, self.width, self.channels):
            shown = " x ".join(map(str, size))
            raise refused(
                "images_unfit", f"the input specification says {shown}, but the version takes {self.instance}"
            )
        if self.dtype == "uint8" and ((low, high) != (0, 255) or mean or std):
            raise refused("images_unfit", f"{self.name} takes uint8: its pixels are 0 to 255, as they are")
        return replace(self, resize=said["resize"], range=(low, high), mean=mean, std=std)

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
        if self.range is not None and self.dtype != "uint8":
            decoded = self._mapped(decoded, *self.range)
        turned = decoded.transpose(2, 0, 1) if self.first else decoded
        values = turned.reshape(self.instance).astype(self.dtype)
        return values / np.asarray(255, self.dtype) if self.unit else values

    def _mapped(self, decoded: Tensor, low: float, high: float) -> Tensor:
        values = low + decoded.astype(np.float64) / 255 * (high - low)
        if self.mean:
            values -= np.asarray(self.mean)
        if self.std:
            values /= np.asarray(self.std)
        return values


def _unfit(shape: tuple[int | None, ...]) -> Exception:
    return refused(
        "images_unfit",
        "images are taken where the version has one input of [batch, height, width], [batch, height, width, 1 or 3] or "
        f"[batch, 1 or 3, height, width], of float or uint8; it has {list(shape)}",
    )
