"""Converting a loaded Keras model into what can be served: a SavedModel and an ONNX graph; runs in a runner only."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from model_store.signature import Tensors
from workers.errors import brief
from workers.preparation.converted_files import ONNX, SAVEDMODEL
from workers.preparation.findings import keras_findings
from workers.preparation.loading import HELD, array, call, input_names, output_names
from workers.runner import archive

if TYPE_CHECKING:
    import keras
    import onnx
    import tensorflow
    import tf2onnx

EXPORT = "export"
FUNCTION = "serving_function"


def export_savedmodel(
    held: dict[str, Any],
    arguments: dict[str, Any],  # noqa: ARG001 - a command's signature
    tensors: Tensors,  # noqa: ARG001
) -> tuple[dict[str, Any], Tensors]:
    """Writes savedmodel.tar, whose `serving_default` has exactly the names of the signature. Answers `size_bytes`."""
    import keras

    model = held[HELD]
    with keras_findings("export_failed", "Keras cannot export the model"):
        exported = keras.export.ExportArchive()
        exported.track(model)
        held[FUNCTION] = exported.add_endpoint("serve", _serving_function(model), input_signature=_specs(model))
        exported.write_out(EXPORT, verbose=False)
    archive.pack(Path(EXPORT), Path(SAVEDMODEL))
    shutil.rmtree(EXPORT)
    return {"size_bytes": Path(SAVEDMODEL).stat().st_size}, {}


def export_onnx(
    held: dict[str, Any],
    arguments: dict[str, Any],  # noqa: ARG001 - a command's signature
    tensors: Tensors,  # noqa: ARG001
) -> tuple[dict[str, Any], Tensors]:
    """Writes model.onnx from the function that the SavedModel serves.

    Answers `size_bytes`, or `reason` where ONNX cannot express the model: the converter itself writes an invalid file
    then, and reports nothing.
    """
    model = held[HELD]
    return write_onnx(held[FUNCTION], _specs(model), input_names(model)), {}


def write_onnx(function: Any, specs: list[tensorflow.TensorSpec], names: list[str]) -> dict[str, Any]:  # noqa: ANN401 - a tf.function
    """Writes model.onnx from a function of tensors of these specs, called `names` in their order.

    Answers `size_bytes`, or `reason` where ONNX cannot express it.
    """
    import tf2onnx
    from keras.src.export.tf2onnx_lib import patch_tf2onnx

    patch_tf2onnx()  # for numpy 2, which tf2onnx does not know
    try:
        graph, _ = tf2onnx.convert.from_function(function, specs, custom_op_handlers={"Erfc": (_erfc, [])})
        _embed_captured(graph, function.get_concrete_function(*specs).graph.captures)
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - a converter for arbitrary graphs; the model is served without it
        return {"reason": f"the conversion failed: {brief(error)}"}
    reason = _fault(graph, names)
    if reason is None:
        Path(ONNX).write_bytes(graph.SerializeToString(deterministic=True))
        return {"size_bytes": Path(ONNX).stat().st_size}
    return {"reason": reason}


def _specs(model: keras.Model) -> list[tensorflow.TensorSpec]:
    import tensorflow

    return [
        tensorflow.TensorSpec(tensor.shape, "float32" if tensor.dtype == "bfloat16" else tensor.dtype, name=name)
        for name, tensor in zip(input_names(model), model.inputs, strict=True)
    ]


def _serving_function(model: keras.Model) -> Any:  # noqa: ANN401 - a function of any number of tensors
    names = output_names(model)

    def serve(*flat: tensorflow.Tensor) -> dict[str, tensorflow.Tensor]:
        return dict(zip(names, call(model, list(flat)), strict=True))

    return serve


def _erfc(
    graph: tf2onnx.graph.Graph,
    node: tf2onnx.graph.Node,
    name: str,
    args: list[Any],  # noqa: ARG001 - tf2onnx's signature
) -> tf2onnx.graph.Node:
    """1 - erf(x): Keras computes the exact GELU with erfc, which ONNX lacks."""
    import tf2onnx

    output, source = node.output[0], node.input[0]
    kind, shape = graph.get_dtype(output), graph.get_shape(output)
    graph.remove_node(node.name)
    one = np.array(1.0, tf2onnx.utils.map_onnx_to_numpy_type(kind))
    constant = graph.make_const(tf2onnx.utils.make_name("one"), one)
    erf = graph.make_node("Erf", [source], dtypes=[kind], shapes=[shape])
    return graph.make_node(
        "Sub", [constant.output[0], erf.output[0]], outputs=[output], name=name, dtypes=[kind], shapes=[shape]
    )


def _embed_captured(graph: onnx.ModelProto, captures: Any) -> None:  # noqa: ANN401 - pairs of TensorFlow's tensors
    """Makes constants that the function captured into initializers: tf2onnx takes them for further inputs."""
    import tensorflow
    from onnx import numpy_helper

    values = {
        inner.name: outer for outer, inner in captures if outer.dtype not in (tensorflow.resource, tensorflow.variant)
    }
    used = {name for node in graph.graph.node for name in node.input}
    for value in [value for value in graph.graph.input if value.name in values]:
        if value.name in used:
            constant = array(values[value.name].numpy())
            graph.graph.initializer.append(numpy_helper.from_array(constant, value.name))
        graph.graph.input.remove(value)


def _fault(graph: onnx.ModelProto, names: list[str]) -> str | None:
    """Why the converted graph cannot be run; None where it can."""
    import onnx

    known = {opset.domain: opset.version for opset in graph.opset_import}
    unknown = {
        node.op_type
        for node in graph.graph.node
        if not onnx.defs.has(node.op_type, known.get(node.domain, 1), node.domain)
    }
    if unknown:
        return f"ONNX has no operation for TensorFlow's {', '.join(sorted(unknown))}"
    if [value.name for value in graph.graph.input] != names:
        return "the converted graph has other inputs than the model"
    try:
        onnx.checker.check_model(graph)
    except onnx.checker.ValidationError as error:
        return f"the converted graph is invalid: {brief(error)}"
    return None
