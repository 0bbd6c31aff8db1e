"""The gate for `.onnx` files: checked, rid of all that is no graph, and written anew; runs in a runner only.

The operators of ONNX's own domains compute and do nothing else. What leads out of the file is refused: external data,
other domains, functions in other domains.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import helper, inliner

from model_store.signature import STRING, Tensors
from workers.errors import brief
from workers.preparation.converted_files import ONNX
from workers.preparation.findings import refused, shown
from workers.preparation.onnx_functions import expanded_nodes

UPLOAD = "upload.onnx"
DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml"})
NODES_LIMIT = 200_000
# Protobuf itself reads messages up to 100 deep, which are 33 graphs in each other.
DEPTH_LIMIT = 16
NAME_LIMIT = 128
# ONNX Runtime lays out sparse weights in full when it loads them.
SPARSE_NUMBERS_LIMIT = 2**24
DTYPES = frozenset({"bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"})
DTYPES |= {"float16", "float32", "float64"}


def rebuild_onnx(held: dict[str, Any], arguments: dict[str, Any], tensors: Tensors) -> tuple[dict[str, Any], Tensors]:  # noqa: ARG001 - a command's signature
    """Checks upload.onnx and writes model.onnx. Answers `inputs`, `outputs`, `nodes`, `opset`, `size_bytes`.

    Raises UploadRefused: onnx_structure, onnx_domain, onnx_operator, onnx_external_data, onnx_nodes, onnx_depth,
    onnx_functions, onnx_sparse, signature.
    """
    source = Path(UPLOAD)
    model = _parsed(source.read_bytes())
    if model.functions:
        model = _inlined(model)
    nodes = _check(model)
    _strip(model.graph, 0)
    clean = helper.make_model(
        model.graph, opset_imports=list(model.opset_import), ir_version=model.ir_version, producer_name="sluice"
    )
    Path(ONNX).write_bytes(clean.SerializeToString(deterministic=True))
    source.unlink()
    weights = {tensor.name for tensor in clean.graph.initializer}
    answer = {
        "inputs": [_described(value) for value in clean.graph.input if value.name not in weights],
        "outputs": [_described(value) for value in _with_shapes(clean).graph.output],
        "nodes": nodes,
        "opset": max(opset.version for opset in clean.opset_import),
        "size_bytes": Path(ONNX).stat().st_size,
    }
    if not answer["inputs"] or not answer["outputs"]:
        raise refused("signature", "the graph has no inputs or no outputs")
    return answer, {}


def _parsed(data: bytes) -> onnx.ModelProto:
    try:
        model: onnx.ModelProto = onnx.ModelProto.FromString(data)
    except (DecodeError, RecursionError) as error:
        raise refused("onnx_structure", "the file is no ONNX model, or it is truncated") from error
    if not model.graph.node or not model.opset_import:
        raise refused("onnx_structure", "the file holds no ONNX graph")
    if model.training_info:
        raise refused("onnx_structure", "the file holds a training graph")
    return model


def _inlined(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with its own functions, as PyTorch writes them, put in the places of their calls."""
    if expanded_nodes(model) > NODES_LIMIT:
        raise refused("onnx_nodes", f"with its functions, the graph has more than {NODES_LIMIT} nodes")
    try:
        return inliner.inline_local_functions(model)
    except (ValueError, RuntimeError, onnx.checker.ValidationError) as error:
        raise refused("onnx_structure", f"its functions cannot be resolved: {brief(error)}") from error


def _check(model: onnx.ModelProto) -> int:
    """How many nodes there are, all of known operators."""
    versions = {opset.domain: opset.version for opset in model.opset_import}
    if foreign := versions.keys() - DOMAINS:
        used = {node.domain for node in _nodes(model.graph, 0)}
        if foreign & used:
            raise refused("onnx_domain", f"operators of {shown(min(foreign & used))} are not taken")
        keep = [opset for opset in model.opset_import if opset.domain in DOMAINS]
        del model.opset_import[:]
        model.opset_import.extend(keep)
    count = 0
    for node in _nodes(model.graph, 0):
        count += 1
        if count > NODES_LIMIT:
            raise refused("onnx_nodes", f"the graph has more than {NODES_LIMIT} nodes")
        domain = "" if node.domain == "ai.onnx" else node.domain
        version = versions.get(node.domain, versions.get("", 1))
        if domain not in DOMAINS or not onnx.defs.has(node.op_type, version, domain):
            raise refused("onnx_operator", f"{shown(node.op_type)} of {shown(node.domain)} is no operator of ONNX")
    _check_data(model.graph, 0)
    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, ValueError, RuntimeError) as error:
        raise refused("onnx_structure", brief(error)) from error
    return count


def _nodes(graph: onnx.GraphProto, depth: int) -> Iterator[onnx.NodeProto]:
    if depth > DEPTH_LIMIT:
        raise refused("onnx_depth", f"graphs are nested deeper than {DEPTH_LIMIT}")
    for node in graph.node:
        yield node
        for inner in _inner_graphs(node):
            yield from _nodes(inner, depth + 1)


def _inner_graphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _check_data(graph: onnx.GraphProto, depth: int) -> None:
    """All weights lie in the file itself."""
    held = list(graph.initializer)
    sparse = list(graph.sparse_initializer)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.ref_attr_name:
                raise refused(
                    "onnx_structure", "a node takes an attribute of a function it is not in", shown(node.name)
                )
            held += [attribute.t, *attribute.tensors]
            sparse += [attribute.sparse_tensor, *attribute.sparse_tensors]
        for inner in _inner_graphs(node):
            _check_data(inner, depth + 1)
    for tensor in sparse:
        held += [tensor.values, tensor.indices]
        if min(tensor.dims, default=0) < 0 or math.prod(tensor.dims) > SPARSE_NUMBERS_LIMIT:
            name = shown(tensor.values.name)
            raise refused("onnx_sparse", f"sparse weights of more than {SPARSE_NUMBERS_LIMIT} numbers", name)
    for tensor in held:
        if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
            raise refused("onnx_external_data", "weights in other files are not taken", shown(tensor.name))


def _strip(graph: onnx.GraphProto, depth: int) -> None:
    """Removes notes that exporters leave: stack traces with paths of the machine that trained the model, for one."""
    for part in (graph, *graph.node, *graph.initializer, *graph.input, *graph.output, *graph.value_info):
        part.ClearField("doc_string")
        part.ClearField("metadata_props")
    for node in graph.node:
        for inner in _inner_graphs(node):
            _strip(inner, depth + 1)


def _with_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with the shapes of its outputs, as far as they follow from the graph."""
    if all(value.type.tensor_type.HasField("shape") for value in model.graph.output):
        return model
    try:
        return onnx.shape_inference.infer_shapes(model)
    except (onnx.shape_inference.InferenceError, ValueError, RuntimeError) as error:
        raise refused("signature", f"shapes cannot be inferred: {brief(error)}") from error


def _described(value: onnx.ValueInfoProto) -> dict[str, Any]:
    if not value.name or len(value.name) > NAME_LIMIT or not value.name.isprintable():
        raise refused("signature", "a tensor has no proper name", shown(value.name))
    kind = value.type.tensor_type
    if not value.type.HasField("tensor_type") or not kind.HasField("shape"):
        raise refused("signature", "only tensors of known rank can be served", shown(value.name))
    if kind.elem_type == onnx.TensorProto.STRING:
        dtype = STRING
    else:
        try:
            dtype = np.dtype(helper.tensor_dtype_to_np_dtype(kind.elem_type)).name
        except KeyError:
            dtype = "unknown"
    if dtype != STRING and dtype not in DTYPES:
        raise refused("signature", f"tensors of {dtype} cannot be served", shown(value.name))
    shape = [size.dim_value if size.HasField("dim_value") else None for size in kind.shape.dim]
    if not shape:
        raise refused("signature", "a tensor without a batch dimension cannot be served", shown(value.name))
    return {"name": value.name, "dtype": dtype, "shape": shape}
