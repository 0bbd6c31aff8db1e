"""What every dialect reads from requests, and by which terms of a version it reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from model_store.further_signatures import FurtherSignatures
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

    `further` are the terms of the version's other signatures by their names; each of those has its own as `named`.
    `aliases` are more names of the default signature.
    """

    model: str
    version: int
    signature: Signature
    max_instances: int
    # What is remembered of requests does not depend on them.
    class_names: tuple[str, ...] = field(default=(), compare=False)
    input_specification: str | None = field(default=None, compare=False)
    files: FileReader | None = field(default=None, compare=False)
    named: str = ""
    further: Mapping[str, Contract] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()

    def with_further(self, found: FurtherSignatures) -> Contract:
        """The same for a version that has these signatures as well; of files their inputs are not made."""
        if not found.listed and not found.aliases:
            return self
        further = {
            one.signature.name: Contract(
                self.model,
                self.version,
                one.signature,
                self.max_instances,
                self.class_names,
                named=one.signature.name,
            )
            for one in found.listed
        }
        return replace(self, further=further, aliases=found.aliases)

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


@dataclass(frozen=True, slots=True)
class NamedRequest:
    """A request to another signature than the default, whose terms go with it."""

    request: Request
    terms: Contract

    @property
    def tensors(self) -> Tensors:
        return self.request.tensors

    @property
    def instances(self) -> int:
        return self.request.instances

    def format(self, outputs: Tensors, contract: Contract) -> Body:  # noqa: ARG002 - the version's: its own count
        return self.request.format(outputs, self.terms)


def by_terms(request: Request, terms: Contract) -> Request:
    """The request as one to the signature of these terms, by which it was read."""
    return NamedRequest(request, terms) if terms.named else request


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
