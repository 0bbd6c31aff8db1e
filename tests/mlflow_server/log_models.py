"""Logs a Keras and an ONNX model at the MLflow server that is named, and prints where they are; runs beside mlflow."""

from __future__ import annotations

import json
import sys

import keras
import mlflow
import mlflow.keras
import mlflow.onnx
import numpy as np
from mlflow.models import infer_signature
from onnx import TensorProto, helper

PARAMS = {"temperature": 0.5, "beams": 4, "strict": True, "stop": ["."], "more": {"a": 1}}


def keras_model() -> keras.Model:
    x = keras.Input((3,), name="x")
    return keras.Model(x, keras.layers.Dense(2, name="y", activation="tanh")(x))


def onnx_model() -> object:
    specs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 2]) for name in "ab"]
    graph = helper.make_graph([helper.make_node("Add", ["a", "a"], ["b"])], "twice", specs[:1], specs[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def main() -> None:
    mlflow.set_tracking_uri(sys.argv[1])
    model, inputs = keras_model(), np.array([[1.0, -2.0, 0.5]], np.float32)
    outputs = np.asarray(model(inputs))
    with mlflow.start_run() as keras_run:
        mlflow.keras.log_model(
            model, name="model", signature=infer_signature(inputs, outputs, PARAMS), pip_requirements=["keras"],
            registered_model_name="tanh",
        )  # fmt: skip
    example = {"a": np.ones((1, 2), np.float32)}
    with mlflow.start_run() as onnx_run:
        mlflow.onnx.log_model(
            onnx_model(), name="model", signature=infer_signature(example, {"b": 2 * example["a"]}),
            input_example=example, pip_requirements=["onnx"], registered_model_name="twice",
            save_as_external_data=False,
        )  # fmt: skip
    mlflow.MlflowClient().set_registered_model_alias("tanh", "champion", "1")
    found = {"inputs": inputs.tolist(), "outputs": outputs.tolist()}
    sys.stdout.write(json.dumps(found | {"keras_run": keras_run.info.run_id, "onnx_run": onnx_run.info.run_id}) + "\n")


main()
