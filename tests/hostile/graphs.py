"""M73 to M79: ONNX graphs that lead out of their file, grow without end, or have no meaning."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, helper

from tests.hostile.bait import Case

FLOAT = TensorProto.FLOAT


def model_of(
    nodes: Sequence[onnx.NodeProto],
    weights: Sequence[onnx.TensorProto] = (),
    *,
    shape: Sequence[object] = ("batch", 2),
    functions: Sequence[onnx.FunctionProto] = (),
    domains: Sequence[str] = (),
) -> onnx.ModelProto:
    """A model from x to y, both float32 of the shape."""
    values = [helper.make_tensor_value_info(name, FLOAT, shape) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], weights)
    opsets = [helper.make_opsetid("", 17), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, opset_imports=opsets, functions=functions, ir_version=9)


def _case(id: str, what: str, code: str, place: str, make: Callable[[], onnx.ModelProto], **more: object) -> Case:
    return Case(id, what, code, place, lambda _: make().SerializeToString(), format="onnx", **more)


def _outside(name: str = "w", dims: Sequence[int] = (2,)) -> onnx.TensorProto:
    """A tensor whose numbers would be read from another file."""
    tensor = TensorProto(name=name, data_type=FLOAT, dims=dims, data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="/etc/hostname")
    return tensor


def _add(*weights: onnx.TensorProto) -> onnx.ModelProto:
    return model_of([helper.make_node("Add", ["x", "w"], ["y"])], weights)


def _constant() -> onnx.NodeProto:
    return helper.make_node("Constant", [], ["w"], value=_outside())


def _sparse_outside() -> onnx.ModelProto:
    model = model_of([helper.make_node("Add", ["x", "w"], ["y"])])
    indices = helper.make_tensor("i", TensorProto.INT64, [1], [0])
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(_outside(dims=(1,)), indices, [2]))
    return model


def _branch(*nodes: onnx.NodeProto, weights: Sequence[onnx.TensorProto] = ()) -> onnx.NodeProto:
    """An If with these nodes, which make `z`, in one of its branches."""
    output = [helper.make_tensor_value_info("z", FLOAT, None)]
    graph = helper.make_graph(nodes, "branch", [], output, weights)
    other = helper.make_graph([helper.make_node("Identity", ["x"], ["z"])], "other", [], output)
    return helper.make_node("If", ["condition"], ["y"], then_branch=graph, else_branch=other)


def _choosing(*nodes: onnx.NodeProto, weights: Sequence[onnx.TensorProto] = ()) -> onnx.ModelProto:
    always = helper.make_tensor("condition", TensorProto.BOOL, [], [True])
    return model_of([_branch(*nodes, weights=weights)], [always])


def _nested(levels: int) -> onnx.ModelProto:
    node = helper.make_node("Identity", ["x"], ["z"])
    for _ in range(levels):
        inner = _branch(node)
        inner.output[0] = "z"
        node = inner
    node.output[0] = "y"
    return model_of([node], [helper.make_tensor("condition", TensorProto.BOOL, [], [True])])


def _nested_bytes(levels: int) -> bytes:
    """Graphs in attributes in nodes in graphs, deeper than any library would write them."""
    graph = b""
    for _ in range(levels):
        attribute = field(6, graph)  # AttributeProto.g
        graph = field(1, field(5, attribute))  # GraphProto.node, NodeProto.attribute
    return field(7, graph)  # ModelProto.graph


def field(number: int, content: bytes) -> bytes:
    """A field of protobuf that holds bytes."""
    size, length = len(content), bytearray()
    while size > 0x7F:
        length.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes([number << 3 | 2, *length, size]) + content


def _function(name: str, *nodes: onnx.NodeProto) -> onnx.FunctionProto:
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    return helper.make_function("own", name, ["a"], ["b"], nodes, opsets)


def _calls(name: str, given: str = "a", made: str = "b") -> onnx.NodeProto:
    return helper.make_node(name, [given], [made], domain="own")


def _calling(*functions: onnx.FunctionProto) -> onnx.ModelProto:
    last = functions[-1].name
    return model_of([_calls(last, "x", "y")], functions=functions, domains=["own"])


def _doubling(levels: int) -> onnx.ModelProto:
    """Functions that each call the one before twice: 2^levels nodes once they stand in their calls' places."""
    first = _function("f0", helper.make_node("Neg", ["a"], ["b"]))
    others = (
        _function(f"f{level + 1}", _calls(f"f{level}", "a", "m"), _calls(f"f{level}", "m", "b"))
        for level in range(levels)
    )
    return _calling(first, *others)


def _referring() -> onnx.ModelProto:
    """A function's body that reads another file, by a constant of its own."""
    add = helper.make_node("Add", ["a", "w"], ["b"])
    return _calling(_function("f", _constant(), add))


def _many_nodes() -> onnx.ModelProto:
    names = ["x", *(f"t{index}" for index in range(200_000)), "y"]
    return model_of([helper.make_node("Neg", names[i : i + 1], names[i + 1 : i + 2]) for i in range(200_001)])


def _sparse_bomb() -> onnx.ModelProto:
    model = model_of([helper.make_node("Add", ["x", "w"], ["y"])])
    values = helper.make_tensor("w", FLOAT, [1], [1.0])
    indices = helper.make_tensor("i", TensorProto.INT64, [1], [0])
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [10**12]))
    return model


def _huge_dims() -> onnx.ModelProto:
    return _add(TensorProto(name="w", data_type=FLOAT, dims=[10**9, 2], raw_data=b"\0" * 8))


def _endless_loop() -> onnx.ModelProto:
    """A Loop without a bound whose condition stays true."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_on"]),
            helper.make_node("Neg", ["kept"], ["next"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("kept", FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", FLOAT, None),
        ],
    )
    always = helper.make_tensor("condition", TensorProto.BOOL, [], [True])
    return model_of([helper.make_node("Loop", ["", "condition", "x"], ["y"], body=body)], [always])


def _wide(columns: int) -> onnx.ModelProto:
    """Every instance is repeated until it has `columns` columns, and summed up again."""
    repeats = helper.make_tensor("repeats", TensorProto.INT64, [2], [1, columns])
    nodes = [
        helper.make_node("Tile", ["x", "repeats"], ["wide"]),
        helper.make_node("ReduceMax", ["wide"], ["top"], axes=[1]),
        helper.make_node("Add", ["x", "top"], ["y"]),
    ]
    return model_of(nodes, [repeats])


def _training() -> onnx.ModelProto:
    model = model_of([helper.make_node("Neg", ["x"], ["y"])])
    model.training_info.add().algorithm.CopyFrom(model.graph)
    return model


def _referred_attribute() -> onnx.ModelProto:
    """A node that takes an attribute of a function it does not stand in."""
    node = helper.make_node("LeakyRelu", ["x"], ["y"])
    node.attribute.append(AttributeProto(name="alpha", ref_attr_name="x", type=AttributeProto.FLOAT))
    return model_of([node])


NAN = helper.make_tensor("w", FLOAT, [2], [float("nan"), float("inf")])
NEG = helper.make_node("Neg", ["x"], ["y"])
FOREIGN = helper.make_node("Trie", ["x"], ["z"], domain="com.x")
OUT = "onnx_external_data"

CASES = (
    _case("M57", "a graph of weights that are not numbers", "non_finite_output", "NaN", lambda: _add(NAN)),
    _case("M58", "a loop without an end", "runner_timeout", "too long", _endless_loop,
          settings={"preparation_seconds": 2.0}),
    _case("M59", "an instance that takes 3 GB", "runner_memory", "memory", lambda: _wide(400_000_000),
          settings={"runner_memory_bytes": 2 * 1024**3}),
    _case("M60", "an input of unknown rank", "onnx_structure", "shape", lambda: model_of([NEG], shape=None)),
    _case("M60", "an input of 2^34 columns", "signature", "bytes", lambda: model_of([NEG], shape=["b", 2**34])),
    _case("M60", "an input without a batch", "signature", "'x'", lambda: model_of([NEG], shape=[])),
    _case("M60", "a negative dimension", "signature", "x", lambda: model_of([NEG], shape=["b", -5])),
    _case("M73", "weights in another file", OUT, "'w'", lambda: _add(_outside())),
    _case("M73", "a constant in another file", OUT, "", lambda: model_of(
        [_constant(), helper.make_node("Add", ["x", "w"], ["y"])])),
    _case("M73", "sparse weights in another file", OUT, "", _sparse_outside),
    _case("M73", "weights of a branch in another file", OUT, "'w'",
          lambda: _choosing(helper.make_node("Add", ["x", "w"], ["z"]), weights=[_outside()])),
    _case("M73", "a function's constant in another file", OUT, "", _referring),
    _case("M74", "an operator of a foreign domain", "onnx_domain", "com.x", lambda: model_of(
        [helper.make_node("Trie", ["x"], ["y"], domain="com.x")], domains=["com.x"])),
    _case("M74", "a foreign operator in a branch", "onnx_operator", "Trie", lambda: _choosing(FOREIGN)),
    _case("M74", "a foreign operator in a function", "onnx_operator", "Trie", lambda: _calling(
        _function("f", helper.make_node("Trie", ["a"], ["b"], domain="com.x")))),
    _case("M74", "an operator that ONNX does not have", "onnx_operator", "ReadFile", lambda: model_of(
        [helper.make_node("ReadFile", ["x"], ["y"])])),
    _case("M75", "a function that calls itself", "onnx_functions", "'f'", lambda: _calling(
        _function("f", _calls("f")))),
    _case("M75", "functions that call each other", "onnx_functions", "'f'", lambda: _calling(
        _function("g", _calls("f")), _function("f", _calls("g")))),
    _case("M75", "functions that double 20 times", "onnx_nodes", "200000", lambda: _doubling(20)),
    _case("M76", "branches in each other, 17 deep", "onnx_depth", "deeper", lambda: _nested(17)),
    Case("M76", "branches in each other, 5,000 deep", "onnx_structure", "no ONNX model",
         lambda _: _nested_bytes(5000), format="onnx"),
    _case("M76", "more nodes than are taken", "onnx_nodes", "200000", _many_nodes, slow=True),
    _case("M77", "nodes in a circle", "onnx_structure", "", lambda: model_of(
        [helper.make_node("Add", ["x", "b"], ["a"]), helper.make_node("Neg", ["a"], ["b"]),
         helper.make_node("Neg", ["b"], ["y"])])),
    _case("M77", "an input that nothing makes", "onnx_structure", "nothing", lambda: model_of(
        [helper.make_node("Add", ["x", "nothing"], ["y"])])),
    _case("M77", "an attribute of no function", "onnx_structure", "", _referred_attribute),
    _case("M77", "a training graph", "onnx_structure", "training", _training),
    _case("M78", "weights that declare 8 GB", "onnx_structure", "w", _huge_dims),
    _case("M78", "sparse weights of 10^12 numbers", "onnx_sparse", "'w'", _sparse_bomb),
    Case("M79", "noise named onnx", "onnx_structure", "no ONNX", lambda _: np.random.default_rng(79).bytes(4096),
         format="onnx"),
    Case("M79", "a graph that is cut off", "onnx_structure", "no ONNX",
         lambda _: _add(helper.make_tensor("w", FLOAT, [2], [1.0, 2.0])).SerializeToString()[:-9], format="onnx"),
    Case("M79", "an archive of Keras named onnx", "onnx_structure", "no ONNX", lambda _: b"PK\x03\x04" * 99,
         format="onnx"),
)  # fmt: skip
