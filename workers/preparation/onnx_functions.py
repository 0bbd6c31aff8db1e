"""Functions that an ONNX model brings along: how large the graph becomes once their nodes stand in their calls' places.

Counted before anything is put anywhere: forty functions that each call the one before twice stand for 10^12 nodes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx

from workers.preparation.findings import refused, shown

DEPTH_LIMIT = 16
CALLS_LIMIT = 32

Name = tuple[str, str, str]


def expanded_nodes(model: onnx.ModelProto) -> int:
    """Nodes of the graph with every call replaced by the function's own.

    Raises UploadRefused: onnx_functions for functions that call themselves, twice defined or nested too deeply;
    onnx_depth.
    """
    bodies: dict[Name, onnx.FunctionProto] = {}
    for function in model.functions:
        name = function.domain, function.name, function.overload
        if name in bodies:
            raise refused("onnx_functions", f"the function {shown(function.name)} stands in the file twice")
        bodies[name] = function
    return _Count(bodies).of(model.graph.node, ())


class _Count:
    """Sizes of functions, each counted once."""

    def __init__(self, bodies: dict[Name, onnx.FunctionProto]) -> None:
        self._bodies = bodies
        self._known: dict[Name, int] = {}

    def of(self, nodes: Iterable[onnx.NodeProto], callers: tuple[Name, ...]) -> int:
        return sum(self._of_node(node, callers) for node in _with_inner(nodes, 0))

    def _of_node(self, node: onnx.NodeProto, callers: tuple[Name, ...]) -> int:
        name = node.domain, node.op_type, node.overload
        if name not in self._bodies:
            return 1
        if name in callers:
            raise refused("onnx_functions", f"the function {shown(node.op_type)} calls itself")
        if len(callers) >= CALLS_LIMIT:
            raise refused("onnx_functions", f"functions call each other more than {CALLS_LIMIT} deep")
        if name not in self._known:
            self._known[name] = self.of(self._bodies[name].node, (*callers, name))
        return self._known[name]


def _with_inner(nodes: Iterable[onnx.NodeProto], depth: int) -> Iterator[onnx.NodeProto]:
    if depth > DEPTH_LIMIT:
        raise refused("onnx_depth", f"graphs are nested deeper than {DEPTH_LIMIT}")
    for node in nodes:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _with_inner(attribute.g.node, depth + 1)
            for inner in attribute.graphs:
                yield from _with_inner(inner.node, depth + 1)
