"""What every dialect reads from requests, and by which terms of a version it reads."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from model_store.signature import Signature, Tensors, TensorSpec
from workers.protocols.body import Body
from workers.protocols.errors import invalid, shown_name
from workers.protocols.file_reading import FileReader


@dataclass(frozen=True, slots=True)
class Contract:
    """One version as its callers know it; `max_instances` bounds one request.

    `class_names` are what the numbers of the last dimension of an output mean; only answers are written by them.
    `input_specification` (JSON, model_store/input_specification.py) is what files of images and
    recordings are read by, and `files` what reads them; without it, none are taken.
    """

    model: str
    version: int
    signature: Signature
    max_instances: int
    # What is remembered of requests does not depend on them.
    class_names: tuple[str, ...] = field(default=(), compare=False)
    input_specification: str | None = field(default=None, compare=False)
    files: FileReader | None = field(default=None, compare=False)

    def __hash__(self) -> int:
        # What is remembered of requests is kept by contract: hashing a whole signature would cost more than it saves.
        return hash((self.model, self.version))


class Request(Protocol):
    """A request that fits the signature: tensors by input name, in the signature's order and dtypes.

    `instances` is the length of the free first dimension, 1 where the signature has none.
    """

    @property
    def tensors(self) -> Tensors: ...

    @property
    def instances(self) -> int: ...

    def format(self, outputs: Tensors, contract: Contract) -> Body:
        """The body of the 200 answer, in the form that this request asked for; raises PredictionFailed."""


def instance_count(spec: TensorSpec, count: int, max_instances: int) -> int:
    """How many instances `count` values in the first dimension are; 1 where that dimension is not free."""
    if not spec.batched:
        return 1
    if count > max_instances:
        raise invalid(f"{count} instances in one request, but this version takes at most {max_instances}")
    return count


def common_count(counts: dict[str, int]) -> int:
    """The one number of instances that all batched inputs must have, by input name; 1 where none is batched."""
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{shown_name(name)} has {count}" for name, count in counts.items())
        raise invalid(f"All inputs must have the same number of instances, but {listed}")
    return next(iter(counts.values()), 1)
