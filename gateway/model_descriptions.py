"""What administrators say of models and versions, as JSON: settings, class names, input specifications."""

from __future__ import annotations

import json
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, field_validator
from pydantic.config import JsonDict

from model_store import input_specification
from model_store.input_specification import InputSpecification
from model_store.model_settings import Metadata, ModelSettings, Serving
from model_store.registry import NAME

MOST_CLASSES = 100_000
# The body of an administrator's request has a limit of 1 MiB, which should not be what cuts these off.
MOST_NAMES_CHARACTERS = 500_000
MOST_WARM_UP_CHARACTERS = 250_000
# PostgreSQL refuses a NUL in a text with an error of its own.
Text = Annotated[str, Field(pattern=r"^[^\x00]*$")]
ClassNames = Annotated[
    list[Annotated[Text, Field(min_length=1, max_length=256)]],
    Field(min_length=1, max_length=MOST_CLASSES),
]

METADATA_EXAMPLE: JsonDict = {
    "description": "Digits written by hand, 28x28 pixels.",
    "class_names": ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"],
    "input_specification": {"kind": "image", "height": 28, "width": 28, "channels": 1, "range": [0, 1]},
}


class MetadataBody(BaseModel):
    """What describes a version; null is what its model's settings say."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [METADATA_EXAMPLE]})

    description: Annotated[Text, Field(max_length=10_000)] | None = None
    class_names: ClassNames | None = Field(
        None, description="Of the last dimension of the output, in its order: they come with the best classes."
    )
    input_specification: InputSpecification | None = Field(
        None, description="How an image, a text or a recording becomes the input."
    )

    @field_validator("class_names")
    @classmethod
    def _names_fit(cls, names: list[str] | None) -> list[str] | None:
        if names is not None and sum(map(len, names)) > MOST_NAMES_CHARACTERS:
            raise ValueError(f"all names together may have {MOST_NAMES_CHARACTERS} characters")
        return names

    def metadata(self) -> Metadata:
        specification = self.input_specification
        return Metadata(
            self.description,
            None if self.class_names is None else tuple(self.class_names),
            None if specification is None else input_specification.to_json(specification),
        )


class SettingsBody(MetadataBody):
    """A model's settings; null is what preparation measured, or nothing."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    **METADATA_EXAMPLE,
                    "tags": {"team": "vision"},
                    "pool": None,
                    "pinned": True,
                    "max_parallelism": 2,
                    "max_instances": 64,
                    "warm_up": [],
                }
            ]
        },
    )

    tags: dict[Annotated[str, Field(pattern=f"^{NAME.pattern}$")], Annotated[Text, Field(max_length=1024)]] = Field(
        default_factory=dict, max_length=100, description="Texts by name, for people and programs."
    )
    pool: Annotated[str, Field(pattern="^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")] | None = Field(
        None, description="Workers that run it; null is those that are in no pool."
    )
    pinned: StrictBool = Field(False, description="Whether it stays loaded where others are evicted.")
    max_parallelism: StrictInt | None = Field(
        None, ge=1, le=1024, description="Most worker slots that run a version at once; null is as measured."
    )
    max_instances: StrictInt | None = Field(
        None, ge=1, le=2**31 - 1, description="Most instances of one request; null is what the settings allow."
    )
    warm_up: list[dict[str, object]] = Field(
        default_factory=list,
        max_length=16,
        description="Bodies of prediction requests that a new version answers before it takes traffic.",
    )

    @field_validator("warm_up")
    @classmethod
    def _warm_up_fits(cls, bodies: list[dict[str, object]]) -> list[dict[str, object]]:
        # Whatever is kept has to be JSON that can be shown again: no NaN, and no half of a character.
        json.dumps(bodies, ensure_ascii=False, allow_nan=False).encode()
        if len(json.dumps(bodies)) > MOST_WARM_UP_CHARACTERS:
            raise ValueError(f"all bodies together may have {MOST_WARM_UP_CHARACTERS} characters")
        if any(("instances" in body) == ("inputs" in body) for body in bodies):
            raise ValueError("each body has either instances or inputs")
        return bodies

    def settings(self) -> ModelSettings:
        return ModelSettings(
            Serving(self.pool, self.pinned, self.max_parallelism, self.max_instances),
            self.metadata(),
            self.tags,
            tuple(json.dumps(body) for body in self.warm_up),
        )


def show_metadata(metadata: Metadata) -> MetadataBody:
    """What was said, as it is answered."""
    return MetadataBody(
        description=metadata.description,
        class_names=None if metadata.class_names is None else list(metadata.class_names),
        input_specification=_specification(metadata),
    )


def show_settings(settings: ModelSettings) -> SettingsBody:
    """A model's settings, as they are answered."""
    serving, metadata = settings.serving, settings.metadata
    return SettingsBody(
        description=metadata.description,
        class_names=None if metadata.class_names is None else list(metadata.class_names),
        input_specification=_specification(metadata),
        tags=dict(settings.tags),
        pool=serving.pool,
        pinned=serving.pinned,
        max_parallelism=serving.max_parallelism,
        max_instances=serving.max_instances,
        warm_up=[json.loads(body) for body in settings.warm_up],
    )


def _specification(metadata: Metadata) -> InputSpecification | None:
    found = metadata.input_specification
    return None if found is None else input_specification.from_json(found)
