"""Addresses of predictions: a model, or a version or a label of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias
from urllib.parse import quote

Verb: TypeAlias = Literal["predict", "submit"]


@dataclass(frozen=True, slots=True)
class Target:
    """Which model is asked, and which version of it, if not the one that its name means; at most one of the two."""

    model: str
    version: int | None = None
    label: str | None = None

    def __post_init__(self) -> None:
        """Raises ValueError for both."""
        if self.version is not None and self.label is not None:
            raise ValueError("a version or a label says which is asked, not both")

    @property
    def path(self) -> str:
        """In TensorFlow Serving's interface."""
        return model_path(self.model, version=self.version, label=self.label)

    @property
    def infer_path(self) -> str:
        """In the Open Inference Protocol, with labels as in the other."""
        return f"/v2{self.path.removeprefix('/v1')}/infer"


def model_path(model: str, *, version: int | None = None, label: str | None = None) -> str:
    """The path of a model, a version or a label in TensorFlow Serving's interface."""
    path = f"/v1/models/{quote(model, safe='')}"
    if version is not None:
        return f"{path}/versions/{version}"
    return path if label is None else f"{path}/labels/{quote(label, safe='')}"
