"""Examples for SavedModels that parse `tensorflow.Example`s themselves: words drawn at random are none.

Which features a graph wants stands in it, beside the operator that parses them. Runs in a runner only.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from workers.preparation.samples import WORDS
from workers.protocols.example_bytes import example_bytes

if TYPE_CHECKING:
    from tensorflow.core.framework import attr_value_pb2, function_pb2, node_def_pb2

BATCH, SINGLE = "ParseExampleV2", "ParseSingleExample"
# Where the keys are among the inputs of the operator that parses a batch.
SPARSE_KEYS, DENSE_KEYS, RAGGED_KEYS = 2, 3, 4
DRAWN = 4
# Of one example; a graph may name shapes of any size.
MOST_VALUES = 65_536
_FLOAT, _STRING, _INT64 = 1, 7, 9  # of types.proto

Wanted = tuple[str, int, int]
"""A feature: its name, the number of its type, and how many values it has."""


def examples_for(functions: Iterable[function_pb2.FunctionDef]) -> list[bytes]:
    """A few Examples, serialized, with every feature that these functions parse; none where they parse none."""
    wanted = [feature for function in functions for feature in _wanted_by(function)]
    if not wanted or sum(count for _, _, count in wanted) > MOST_VALUES:
        return []
    return [
        example_bytes({name: _values(kind, count, number) for name, kind, count in wanted}, "a sample")
        for number in range(DRAWN)
    ]


def _values(kind: int, count: int, number: int) -> list[object]:
    if kind == _STRING:
        return [WORDS[number]] * count
    return [number / DRAWN if kind == _FLOAT else number] * count


def _wanted_by(function: function_pb2.FunctionDef) -> Iterator[Wanted]:
    nodes = {node.name: node for node in function.node_def}
    for node in function.node_def:
        attributes = node.attr
        if node.op == BATCH:
            sparse, dense, ragged = (_constant(node, place, nodes) for place in (SPARSE_KEYS, DENSE_KEYS, RAGGED_KEYS))
            yield from _singly(ragged, attributes["ragged_value_types"])
        elif node.op == SINGLE:
            sparse, dense = list(attributes["sparse_keys"].list.s), list(attributes["dense_keys"].list.s)
        else:
            continue
        yield from _singly(sparse, attributes["sparse_types"])
        shapes = attributes["dense_shapes"].list.shape
        for key, kind, shape in zip(dense, attributes["Tdense"].list.type, shapes, strict=False):
            yield key.decode("utf-8", "replace"), kind, math.prod(max(1, size.size) for size in shape.dim)


def _singly(keys: list[bytes], kinds: attr_value_pb2.AttrValue) -> Iterator[Wanted]:
    for key, kind in zip(keys, kinds.list.type, strict=False):
        yield key.decode("utf-8", "replace"), kind, 1


def _constant(node: node_def_pb2.NodeDef, place: int, nodes: dict[str, node_def_pb2.NodeDef]) -> list[bytes]:
    """The texts of an input that is a constant of the same function; none where it is something else."""
    if place >= len(node.input):
        return []
    given = nodes.get(node.input[place].partition(":")[0])
    return [] if given is None or given.op != "Const" else list(given.attr["value"].tensor.string_val)
