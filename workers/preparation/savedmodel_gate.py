"""The gate for SavedModels: reads the graph without running it, and writes one that holds nothing but what it read.

Runs in a runner only. What serves a signature is a set of functions; all that can be reached from the object graph is
checked operator by operator, and everything else (the saver's functions, which read and write files, and the graph of
TensorFlow 1 around them) is left out of the new file.
"""

from __future__ import annotations

import base64
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from google.protobuf.message import DecodeError

from model_store.signature import Tensors
from workers.preparation import savedmodel_archive
from workers.preparation.converted_files import SAVEDMODEL
from workers.preparation.findings import refused, shown
from workers.preparation.savedmodel_examples import examples_for
from workers.preparation.savedmodel_operators import OPERATORS
from workers.runner import archive
from workers.runner.savedmodel import SIGNATURE, stored_name

if TYPE_CHECKING:
    from tensorflow.core.framework import function_pb2, node_def_pb2
    from tensorflow.core.protobuf import meta_graph_pb2, saved_object_graph_pb2

UPLOAD, UNPACKED, CLEAN, GRAPH = "upload.archive", "unpacked", "clean", "saved_model.pb"
HELD = "savedmodel_graph"
SERVE = "serve"
NODES_LIMIT = 200_000
SHOWN_SIGNATURES = 10
# Of one version: each is tried in its preparation, and is known to every gateway.
MOST_SIGNATURES = 16
NAME_CHARACTERS = 256
_HALF = (14, 19)  # DT_BFLOAT16 and DT_HALF of types.proto


def open_savedmodel(
    held: dict[str, Any],
    arguments: dict[str, Any],
    tensors: Tensors,  # noqa: ARG001 - a command's signature
) -> tuple[dict[str, Any], Tensors]:
    """Unpacks upload.archive into at most `limit_bytes` and checks its graph.

    Answers `files`, `functions`, `nodes`, `half` (whether it computes in 16 bits), and `examples` in base64 where it
    parses such.
    Raises UploadRefused: savedmodel_archive, savedmodel_structure, savedmodel_operator, savedmodel_signature.
    """
    packed = Path(UPLOAD)
    files = savedmodel_archive.unpack(packed, Path(UNPACKED), int(arguments["limit_bytes"]))
    packed.unlink()
    folder = _root(Path(UNPACKED))
    graph = _parsed(folder / GRAPH)
    functions = _kept(graph)
    nodes = [node for function in functions for node in function.node_def]
    if len(nodes) > NODES_LIMIT:
        raise refused("savedmodel_structure", f"the graph has more than {NODES_LIMIT} nodes")
    for function in functions:
        _check(function)
    held[HELD] = folder, graph, functions, _signatures(graph)
    answer = {
        "files": files,
        "functions": len(functions),
        "nodes": len(nodes),
        "half": any(attribute.type in _HALF for node in nodes for attribute in node.attr.values()),
        "examples": [base64.b64encode(example).decode() for example in examples_for(functions)],
    }
    return answer, {}


def rebuild_savedmodel(
    held: dict[str, Any],
    arguments: dict[str, Any],
    tensors: Tensors,  # noqa: ARG001 - a command's signature
) -> tuple[dict[str, Any], Tensors]:
    """Writes savedmodel.tar with what was checked, `signature` (or the only one) as its `serving_default`.

    Answers `signature`, `size_bytes`, and of the others `further` (which are kept as well), `aliases` (which are the
    same function once more) and `left_out` (the first of those that are too many). Raises UploadRefused:
    savedmodel_signature.
    """
    from tensorflow.core.protobuf import saved_model_pb2

    folder, graph, functions, signatures = held.pop(HELD)
    chosen = _chosen(arguments["signature"], sorted(signatures))
    clean = Path(CLEAN)
    clean.mkdir()
    for part in ("variables", "assets"):
        if (folder / part).is_dir():
            (folder / part).rename(clean / part)
    others = [name for name in sorted(signatures) if name != chosen and 0 < len(name) <= NAME_CHARACTERS]
    others, left_out = others[: MOST_SIGNATURES - 1], others[MOST_SIGNATURES - 1 :][:SHOWN_SIGNATURES]
    own = _form(graph, functions, signatures[chosen])
    aliases = [name for name in others if _form(graph, functions, signatures[name]) == own]
    kept = [name for name in others if name not in aliases]
    _keep_signatures(graph, chosen, kept)
    _keep(graph, functions)
    written = saved_model_pb2.SavedModel(saved_model_schema_version=1, meta_graphs=[graph])
    (clean / GRAPH).write_bytes(written.SerializeToString(deterministic=True))
    archive.pack(clean, Path(SAVEDMODEL))
    shutil.rmtree(clean)
    shutil.rmtree(UNPACKED)
    answer = {"signature": chosen, "size_bytes": Path(SAVEDMODEL).stat().st_size}
    return {**answer, "further": kept, "aliases": aliases, "left_out": left_out}, {}


def _root(unpacked: Path) -> Path:
    """The folder of the one SavedModel that the archive holds, at its top or below."""
    found = sorted(unpacked.rglob(GRAPH))
    if len(found) != 1:
        raise refused("savedmodel_structure", f"the archive holds {len(found)} files {GRAPH}; exactly one is taken")
    return found[0].parent


def _parsed(path: Path) -> meta_graph_pb2.MetaGraphDef:
    from tensorflow.core.protobuf import saved_model_pb2

    try:
        model = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    except (DecodeError, RecursionError) as error:
        raise refused("savedmodel_structure", "the file is no SavedModel, or it is truncated", GRAPH) from error
    graphs = [graph for graph in model.meta_graphs if SERVE in graph.meta_info_def.tags]
    if len(graphs) != 1:
        raise refused("savedmodel_structure", f"{len(graphs)} graphs are tagged {SERVE!r}; exactly one is taken", GRAPH)
    if not graphs[0].object_graph_def.nodes:
        raise refused(
            "savedmodel_structure", "TensorFlow 1 wrote it: save it with tf.saved_model.save of TensorFlow 2", GRAPH
        )
    return graphs[0]


def _kept(graph: meta_graph_pb2.MetaGraphDef) -> list[function_pb2.FunctionDef]:
    """The functions that loading makes use of: those of the object graph, and whatever they call."""
    library = graph.graph_def.library
    known = {function.signature.name: function for function in library.function}
    if len(known) != len(library.function):
        raise refused("savedmodel_structure", "two functions have the same name", GRAPH)
    waiting = list(graph.object_graph_def.concrete_functions)
    waiting += [gradient.gradient_func for gradient in (*library.gradient, *library.registered_gradients)]
    reached: dict[str, function_pb2.FunctionDef] = {}
    while waiting:
        name = waiting.pop()
        if name in reached:
            continue
        if name not in known:
            raise refused("savedmodel_structure", f"the function {shown(name)} is missing", GRAPH)
        reached[name] = known[name]
        waiting += [called for node in known[name].node_def for called in _called(node)]
    return [function for name, function in known.items() if name in reached]


def _called(node: node_def_pb2.NodeDef) -> Iterable[str]:
    for attribute in node.attr.values():
        if attribute.HasField("func"):
            yield attribute.func.name
        for function in attribute.list.func:
            yield function.name


def _check(function: function_pb2.FunctionDef) -> None:
    for node in function.node_def:
        if node.op not in OPERATORS:
            raise refused(
                "savedmodel_operator",
                f"the operator {shown(node.op)} does more than compute, and is not taken",
                shown(function.signature.name),
            )


def _signatures(graph: meta_graph_pb2.MetaGraphDef) -> dict[str, int]:
    """Nodes of the object graph by the names of the signatures that they are."""
    owner = _signature_map(graph)
    found = {} if owner is None else {child.local_name: child.node_id for child in owner.children}
    if not found:
        raise refused("savedmodel_signature", "it has no signatures: save it with tf.saved_model.save(…, signatures=…)")
    return found


def _signature_map(graph: meta_graph_pb2.MetaGraphDef) -> saved_object_graph_pb2.SavedObject | None:
    nodes = graph.object_graph_def.nodes
    for child in nodes[0].children:
        if child.local_name == "signatures" and 0 <= child.node_id < len(nodes):
            return nodes[child.node_id]
    return None


def _chosen(wanted: str | None, known: list[str]) -> str:
    chosen = wanted or (SIGNATURE if SIGNATURE in known else known[0])
    if chosen in known and (wanted or chosen == SIGNATURE or len(known) == 1):
        return chosen
    told = ", ".join(shown(name) for name in known[:SHOWN_SIGNATURES])
    raise refused(
        "savedmodel_signature", f"choose one of its signatures with the upload's option signature=NAME: {told}"
    )


def _keep(graph: meta_graph_pb2.MetaGraphDef, functions: list[function_pb2.FunctionDef]) -> None:
    """Leaves out of the graph whatever was not checked; of its own nodes, only the object graph's constants stay."""
    constants = {node.constant.operation for node in graph.object_graph_def.nodes if node.HasField("constant")}
    nodes = [node for node in graph.graph_def.node if node.op == "Const" and node.name in constants]
    del graph.graph_def.node[:]
    graph.graph_def.node.extend(nodes)
    del graph.graph_def.library.function[:]
    graph.graph_def.library.function.extend(functions)
    graph.ClearField("saver_def")
    graph.ClearField("collection_def")
    graph.meta_info_def.ClearField("stripped_op_list")


def _form(
    graph: meta_graph_pb2.MetaGraphDef, functions: list[function_pb2.FunctionDef], node: int
) -> tuple[str, bytes, bytes]:
    """What a signature computes, whatever it is called: exports of Keras have one function under two names.

    Two that are equal here call the same functions with the same tensors and variables.
    """
    name = graph.object_graph_def.nodes[node].bare_concrete_function.concrete_function_name
    found = next((function for function in functions if function.signature.name == name), None)
    if found is None:
        return str(node), b"", b""
    plain = type(found).FromString(found.SerializeToString())
    plain.signature.ClearField("name")
    # Of variables it is a number that is drawn for each function.
    for argument in plain.arg_attr.values():
        argument.attr.pop("_user_specified_name", None)
    bound = graph.object_graph_def.concrete_functions[name]
    return "", plain.SerializeToString(deterministic=True), bound.SerializeToString(deterministic=True)


def _keep_signatures(graph: meta_graph_pb2.MetaGraphDef, chosen: str, further: list[str]) -> None:
    """The default is served under the name by which whatever serves it asks."""
    owner = _signature_map(graph)
    assert owner is not None  # noqa: S101 - for the type checker: a signature was chosen of it
    nodes = {child.local_name: child.node_id for child in owner.children}
    described = {name: type(one).FromString(one.SerializeToString()) for name, one in graph.signature_def.items()}
    del owner.children[:]
    graph.signature_def.clear()
    for name in (chosen, *further):
        stored = stored_name(name, chosen)
        owner.children.add(node_id=nodes[name], local_name=stored)
        if name in described:
            graph.signature_def[stored].CopyFrom(described[name])
