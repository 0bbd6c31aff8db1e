"""Features of examples as a model's inputs: what each example says, and what the context says of all of them.

Source: tensorflow_serving/g3doc/api_rest.md; the messages are kept where its clients may know them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from model_store.signature import STRING, Tensor, Tensors, TensorSpec
from workers.protocols.contract import Contract
from workers.protocols.errors import invalid, shown_name
from workers.protocols.json_tensors import Place, expectation, is_b64, tensor_of, type_name

EXAMPLES, CONTEXT = "examples", "context"
# What a context may take, written out for every example, as much as a large body: three bytes ask for one more copy.
MOST_SHARED_BYTES = 16 * 1024**2

Example = dict[str, object]


def features_of(
    examples: Sequence[Example], context: Example, specs: Sequence[TensorSpec], contract: Contract
) -> Tensors:
    """The inputs: of each example the features of their names, or the context's, each of which is read once.

    Raises InputInvalid.
    """
    without = next((spec for spec in specs if not spec.shape), None)
    if without is not None:
        raise invalid(f"examples cannot fill an input without a dimension for them; {expectation(without)}")
    sayers = _sayers(examples)
    shared = {
        spec.name: read_features([context], _single(spec), ContextPlace(CONTEXT, spec.name), contract)
        for spec in specs
        if spec.name in context and len(sayers.get(spec.name, ())) < len(examples)
    }
    require_room(sum(map(size_of, shared.values())), len(examples))
    return {
        spec.name: _with_shared(shared[spec.name], examples, sayers.get(spec.name, []), spec, contract)
        if spec.name in shared
        else read_features(examples, spec, ExamplePlace(EXAMPLES, spec.name), contract)
        for spec in specs
    }


def _sayers(examples: Sequence[Example]) -> dict[str, list[int]]:
    """The numbers of the examples that say a feature, by its name: looked for once, not for every input."""
    found: dict[str, list[int]] = {}
    for number, example in enumerate(examples):
        for name in example:
            found.setdefault(name, []).append(number)
    return found


def _single(spec: TensorSpec) -> TensorSpec:
    """The input of some of the examples."""
    return replace(spec, shape=(None, *spec.shape[1:]))


def _with_shared(
    shared: Tensor, examples: Sequence[Example], own: list[int], spec: TensorSpec, contract: Contract
) -> Tensor:
    """One input of all examples: what the context says, and what those of these numbers say themselves."""
    if spec.shape[0] not in {None, len(examples)}:
        raise invalid(f"Encountered {len(examples)} {EXAMPLES}; {expectation(spec)}")
    found: Tensor = np.repeat(shared, len(examples), axis=0)
    if not own:
        return found
    place = ExamplePlace(EXAMPLES, spec.name, tuple(own))
    said = read_features([examples[number] for number in own], _single(spec), place, contract)
    if said.shape[1:] != shared.shape[1:]:
        raise invalid(f"{place.at([0])} has another shape than {CONTEXT}.{shown_name(spec.name)}")
    found[own] = said
    return found


def size_of(tensor: Tensor) -> int:
    """How many bytes a tensor takes, its texts included."""
    return tensor.nbytes + (sum(map(len, tensor.reshape(-1).tolist())) if tensor.dtype == object else 0)


def require_room(size: int, count: int) -> None:
    """Raises InputInvalid where what the context says takes too many bytes, written out for every example."""
    if size * count > MOST_SHARED_BYTES:
        raise invalid(
            f"'{CONTEXT}' of {size} bytes would be copied to {count} examples, but all together take at most "
            f"{MOST_SHARED_BYTES} bytes; send fewer examples at once"
        )


@dataclass(frozen=True, slots=True)
class ExamplePlace(Place):
    """Where a feature stands: in examples of these `numbers`, where not all of them are read."""

    numbers: tuple[int, ...] = ()

    def example(self, index: int) -> str:
        """The place of the example itself."""
        return f"{self.root}[{self.numbers[index] if self.numbers else index}]"

    def at(self, indices: Sequence[int]) -> str:
        first, *rest = indices or [0]
        return Place(f"{self.example(first)}.{shown_name(self.row_member)}").at(rest)


class ContextPlace(ExamplePlace):
    """Where a feature stands in the context, which has no number."""

    def example(self, index: int) -> str:  # noqa: ARG002 - there is one only
        return self.root


def read_features(examples: Sequence[Example], spec: TensorSpec, place: ExamplePlace, contract: Contract) -> Tensor:
    """The feature of an input's name of each of these examples.

    It is a list of an instance's values, or nested by its shape, or a file that the contract reads.
    """
    inner = spec.shape[1:]
    columns = [feature_of(example, spec, place, number) for number, example in enumerate(examples)]
    if spec.dtype != STRING and is_b64(columns[0][0]):
        return tensor_of([column[0] if len(column) == 1 else column for column in columns], spec, place, contract)
    if not inner:
        return tensor_of([column[0] if len(column) == 1 else column for column in columns], spec, place)
    if len(inner) == 1 or isinstance(columns[0][0], list):
        return tensor_of(columns, spec, place)
    # A list in an Example has no shape of its own.
    if inner.count(None) > 1:
        raise invalid(
            f"write the feature as nested lists: its shape cannot be told from its length; {expectation(spec)}"
        )
    size = None if None in inner else math.prod(one for one in inner if one is not None)
    flat = tensor_of(columns, TensorSpec(spec.name, spec.dtype, (spec.shape[0], size)), place)
    return shaped(flat, spec, place)


def shaped(flat: Tensor, spec: TensorSpec, place: ExamplePlace) -> Tensor:
    sizes = [-1 if size is None else size for size in spec.shape[1:]]
    try:
        return flat.reshape(len(flat), *sizes)
    except ValueError:
        raise invalid(f"{flat.shape[1]} values at {place.at([0])}; {expectation(spec)}") from None


def feature_of(example: Example, spec: TensorSpec, place: ExamplePlace, number: int) -> list[object]:
    """The values of a feature; true and false are integers to an Example, and its integers may be true and false."""
    value = example.get(spec.name, [])
    values = value if isinstance(value, list) else [value]
    if not values:
        raise invalid(
            f"Feature: {shown_name(spec.name)} (data type: {type_name(spec)}) is required but could not be found at "
            f"{place.example(number)}; {expectation(spec)}"
        )
    if spec.dtype == STRING:
        return values
    convert = as_boolean if spec.dtype == "bool" else as_integer
    return [convert(one) for one in values]


def as_boolean(value: object) -> object:
    return bool(value) if type(value) is int and value in {0, 1} else value


def as_integer(value: object) -> object:
    return int(value) if isinstance(value, bool) else value
