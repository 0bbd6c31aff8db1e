"""What a model's input was before it was numbers: how callers make a tensor of an image, a text or a recording."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictFloat, StrictInt, TypeAdapter, model_validator

MOST_PIXELS = 16_384
Finite = Annotated[StrictFloat, Field(allow_inf_nan=False)]
Channels = Annotated[list[Finite], Field(min_length=1, max_length=4)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    input: str | None = Field(None, max_length=256, description="Name of the input, where the signature has several.")


class ImageInput(_Part):
    """An image: decoded, brought to its size, and each value mapped to `range`, less `mean`, divided by `std`."""

    kind: Literal["image"]
    height: StrictInt = Field(ge=1, le=MOST_PIXELS)
    width: StrictInt = Field(ge=1, le=MOST_PIXELS)
    channels: Literal[1, 3] = Field(3, description="1 is grey, 3 is red, green, blue.")
    resize: Literal["none", "stretch", "pad", "crop"] = Field(
        "none",
        description=(
            "What is done with images of another size: they are refused, stretched, made to fit with black around them,"
            " or made to fill it and cut in the middle."
        ),
    )
    range: tuple[Finite, Finite] = Field((0.0, 1.0), description="What pixels of 0 and of 255 become.")
    mean: Channels | None = Field(None, description="Subtracted of each channel after that.")
    std: Channels | None = Field(None, description="What each channel is then divided by.")

    @model_validator(mode="after")
    def _channels_agree(self) -> ImageInput:
        for name, values in (("mean", self.mean), ("std", self.std)):
            if values is not None and len(values) != self.channels:
                raise ValueError(f"{name} has {len(values)} values, but there are {self.channels} channels")
        if self.std is not None and 0.0 in self.std:
            raise ValueError("std divides: it cannot be 0")
        return self


class TextInput(_Part):
    """A text, sent as a string."""

    kind: Literal["text"]
    language: str | None = Field(None, max_length=64, description="Such as `en`, or what else it was trained on.")
    lowercase: StrictBool = Field(False, description="Whether it was trained on lower case alone.")
    max_characters: StrictInt | None = Field(None, ge=1, le=2**31 - 1, description="Beyond which it takes no notice.")


class AudioInput(_Part):
    """A recording, as samples of numbers in `range`."""

    kind: Literal["audio"]
    sample_rate: StrictInt = Field(ge=1, le=1_000_000, description="Samples a second.")
    channels: StrictInt = Field(1, ge=1, le=64)
    seconds: Finite | None = Field(None, gt=0, description="How long it is; shorter ones are filled with silence.")
    range: tuple[Finite, Finite] = Field((-1.0, 1.0), description="What the lowest and the highest value become.")


InputSpecification = Annotated[ImageInput | TextInput | AudioInput, Field(discriminator="kind")]

_ADAPTER: TypeAdapter[ImageInput | TextInput | AudioInput] = TypeAdapter(InputSpecification)


def from_json(text: str) -> ImageInput | TextInput | AudioInput:
    """What was stored as `to_json` wrote it."""
    return _ADAPTER.validate_json(text)


def to_json(specification: ImageInput | TextInput | AudioInput) -> str:
    return specification.model_dump_json(exclude_none=True)
