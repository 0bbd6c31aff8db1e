"""A version's signature: its named input and output tensors."""

from __future__ import annotations

import functools
import json
from dataclasses import asdict, dataclass, field

import numpy as np
import numpy.typing as npt

from model_store.parameters import Parameter, read_parameters, written_parameters

Tensor = npt.NDArray[np.generic]
Tensors = dict[str, Tensor]

STRING = "string"
# What TensorFlow calls the signature that answers whoever names none.
DEFAULT_NAME = "serving_default"


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One tensor: `dtype` is a numpy name or `string`; `None` in `shape` is a free dimension, the first the batch."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]

    @property
    def batched(self) -> bool:
        """Whether the first dimension is free, so that several requests can share one call."""
        return bool(self.shape) and self.shape[0] is None

    def suits(self, other: TensorSpec) -> bool:
        """Whether both may be given the same: as many dimensions, alike where neither is free; texts or none."""
        sizes = zip(self.shape, other.shape, strict=False)
        alike = len(self.shape) == len(other.shape) and all(None in pair or pair[0] == pair[1] for pair in sizes)
        return alike and (self.dtype == STRING) == (other.dtype == STRING)

    def numpy_dtype(self) -> np.dtype[np.generic]:
        """The array dtype that carries this tensor; strings travel as objects holding `bytes`."""
        return np.dtype(object) if self.dtype == STRING else np.dtype(self.dtype)


# Without slots: what every batch asks for is worked out once.
@dataclass(frozen=True)
class Signature:
    """Inputs and outputs in the order in which the model takes and gives them.

    `name` is what the upload calls it, where that has several to choose from, and `parameters` are what MLflow said
    that requests may name beside the inputs; two that differ only there are equal.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    name: str = field(default=DEFAULT_NAME, compare=False)
    parameters: tuple[Parameter, ...] = field(default=(), compare=False)

    @functools.cached_property
    def batched(self) -> bool:
        """Whether instances of several requests may be concatenated along the first dimension."""
        return all(spec.batched for spec in self.inputs + self.outputs)

    def __hash__(self) -> int:
        return self._hash

    @functools.cached_property
    def _hash(self) -> int:
        return hash((self.inputs, self.outputs))

    def takes_as(self, other: Signature) -> bool:
        """Whether what is sent to the other one has this one's inputs: by names, dimensions, and texts or none.

        What is sent may still be refused for what it holds, as a number that this one's type has no room for.
        """
        named = {spec.name: spec for spec in other.inputs}
        return named.keys() == {spec.name for spec in self.inputs} and all(
            spec.suits(named[spec.name]) for spec in self.inputs
        )

    def to_json(self) -> str:
        document = asdict(self)
        if self.name == DEFAULT_NAME:
            del document["name"]
        del document["parameters"]
        if self.parameters:
            document["params"] = written_parameters(self.parameters)
        return json.dumps(document)

    @classmethod
    def from_json(cls, text: str) -> Signature:
        def specs(rows: list[dict[str, object]]) -> tuple[TensorSpec, ...]:
            return tuple(TensorSpec(str(row["name"]), str(row["dtype"]), tuple(row["shape"])) for row in rows)  # type: ignore[arg-type]

        document = json.loads(text)
        return cls(
            specs(document["inputs"]),
            specs(document["outputs"]),
            document.get("name", DEFAULT_NAME),
            read_parameters(document.get("params", [])),
        )
