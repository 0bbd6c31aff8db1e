"""LiteRT, the runtime of small devices: converting a SavedModel, and running what came out; in a runner only."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from model_store.signature import Signature, Tensors
from workers.errors import PredictionFailed, brief
from workers.preparation.trial import median_seconds, undisturbed_seconds
from workers.runner import archive
from workers.runner.savedmodel import SIGNATURE, match_names

FOLDER = "savedmodel"
HELD = "litert_model"
# How the converter names what it cannot express, in the first of many lines.
OPERATION = re.compile(r"'tf\.(\w+)'")

Json = dict[str, Any]


def convert(held: Json, arguments: Json, tensors: Tensors) -> tuple[Json, Tensors]:  # noqa: ARG001 - a command's signature
    """Writes `target`, a flatbuffer of the SavedModel packed in `source`; with weights of 8 bits if `quantised`.

    With `tensors`, inputs of several instances, activations are quantised as well, to the ranges that these show.
    Answers `reason` where LiteRT cannot express the model.
    """
    import tensorflow

    folder = Path(FOLDER)
    if not folder.exists():
        archive.unpack(Path(arguments["source"]), folder)
    converter = _converter()
    if arguments["quantised"]:
        converter.optimizations = [tensorflow.lite.Optimize.DEFAULT]
    if tensors:
        converter.representative_dataset = lambda: _rows(tensors)
    try:
        converted = converter.convert()
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - a converter for arbitrary graphs; the model is served without it
        return {"reason": _reason(error)}, {}
    Path(arguments["target"]).write_bytes(converted)
    return {}, {}


def start(held: Json, arguments: Json, tensors: Tensors) -> tuple[Json, Tensors]:  # noqa: ARG001 - a command's signature
    """Imports LiteRT, so that what the process grows by afterwards is the model's own."""
    from ai_edge_litert import interpreter  # noqa: F401 - see above

    return {}, {}


def load(held: Json, arguments: Json, tensors: Tensors) -> tuple[Json, Tensors]:  # noqa: ARG001 - a command's signature
    """Loads the file `path` of a `signature` in JSON, to run on `threads`. PredictionFailed where that cannot be."""
    from ai_edge_litert.interpreter import Interpreter

    signature = Signature.from_json(arguments["signature"])
    # By its bytes: a path would be mapped, and the file is in a folder that the model's code can write to.
    interpreter = Interpreter(model_content=Path(arguments["path"]).read_bytes(), num_threads=arguments["threads"])
    run = interpreter.get_signature_runner(SIGNATURE)
    inputs = match_names([spec.name for spec in signature.inputs], run.get_input_details())
    outputs = match_names([spec.name for spec in signature.outputs], run.get_output_details())
    held[HELD] = (interpreter, run, inputs, outputs)
    return {}, {}


def predict(held: Json, arguments: Json, tensors: Tensors) -> tuple[Json, Tensors]:  # noqa: ARG001 - a command's signature
    """Outputs of the loaded model."""
    return {}, _run(held, tensors)


def time(held: Json, arguments: Json, tensors: Tensors) -> tuple[Json, Tensors]:  # noqa: ARG001 - a command's signature
    """Answers `seconds`, the median of several runs without a pipe between."""
    return {"seconds": median_seconds(lambda: _run(held, tensors), undisturbed_seconds)}, {}


def _converter() -> Any:  # noqa: ANN401 - TensorFlow's converter
    """A converter for the SavedModel in FOLDER, also where it cannot restore itself (savedmodel_gate.py)."""
    import tensorflow
    from tensorflow.core.protobuf import saved_model_pb2

    [graph] = saved_model_pb2.SavedModel.FromString((Path(FOLDER) / "saved_model.pb").read_bytes()).meta_graphs
    if graph.saver_def.restore_op_name:
        return tensorflow.lite.TFLiteConverter.from_saved_model(FOLDER, signature_keys=[SIGNATURE])
    model = tensorflow.saved_model.load(FOLDER)
    return tensorflow.lite.TFLiteConverter.from_concrete_functions([model.signatures[SIGNATURE]], model)


def _run(held: Json, tensors: Tensors) -> Tensors:
    _, run, inputs, outputs = held[HELD]
    try:
        found = run(**{theirs: tensors[ours] for ours, theirs in inputs})
    except (ValueError, RuntimeError, TypeError) as error:
        raise PredictionFailed(f"the model failed: {brief(error)}") from error
    return {ours: found[theirs] for ours, theirs in outputs}


def _rows(tensors: Tensors) -> Iterator[Tensors]:
    for row in range(min(len(tensor) for tensor in tensors.values())):
        yield {name: tensor[row : row + 1] for name, tensor in tensors.items()}


def _reason(error: Exception) -> str:
    operations = sorted(set(OPERATION.findall(str(error))))
    if operations:
        return f"LiteRT cannot express TensorFlow's {', '.join(operations[:5])} as this model uses it"
    return f"the conversion failed: {brief(error)}"
