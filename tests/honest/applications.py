"""The models of `keras.applications`: the smallest of each family in full, the others as configurations."""

from __future__ import annotations

from typing import Any

import keras

SMALLEST = (
    "ConvNeXtTiny", "DenseNet121", "EfficientNetB0", "EfficientNetV2B0", "InceptionResNetV2", "InceptionV3",
    "MobileNet", "MobileNetV2", "MobileNetV3Small", "NASNetMobile", "ResNet50", "ResNet50V2", "VGG16", "Xception",
)  # fmt: skip


def names() -> list[str]:
    """Every model that `keras.applications` exports."""
    exported = vars(keras.applications).items()
    return sorted(name for name, made in exported if callable(made) and not isinstance(made, type(keras)))


def build(name: str) -> keras.Model:
    """The model with random weights."""
    return getattr(keras.applications, name)(weights=None)


def config(name: str) -> dict[str, Any]:
    """Its configuration as a `.keras` archive holds it; no weights are made: the largest take gigabytes."""
    with keras.StatelessScope():
        return dict(keras.saving.serialize_keras_object(build(name)))
