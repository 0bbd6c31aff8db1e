"""What a user of `tensorflow-serving-api` does with a gateway: run in an environment of its own, without ours.

`python visit.py` reads `{"address", "token", "messages"}` as JSON from standard input and writes what it found as JSON
to standard output. Tensors are made and read as TensorFlow's users do.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
import tensorflow as tf
from google.protobuf import descriptor_pool
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    model_service_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

SECONDS = 60
ROWS = np.array([[1.0, 2.0], [3.0, -4.5]], np.float32)
# Of every dtype, by the model that gives it back as it is.
SAMPLES = {
    "bool": np.array([True, False]),
    "float16": np.array([0.1, np.inf], np.float16),
    "float32": np.array([np.float32(1) / 3, np.nan], np.float32),
    "float64": np.array([1 / 3, -np.inf]),
    "int8": np.array([-128, 127], np.int8),
    "int32": np.array([-(2**31), 7], np.int32),
    "int64": np.array([2**62 + 1, -1]),
    "uint8": np.array([0, 255], np.uint8),
    "uint64": np.array([2**64 - 1, 0], np.uint64),
}


class Visit:
    """One client with one token, and what it is answered."""

    def __init__(self, address: str, token: str) -> None:
        channel = grpc.insecure_channel(address)
        self.predictions = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        self.models = model_service_pb2_grpc.ModelServiceStub(channel)
        self.named = {"metadata": [("authorization", f"Bearer {token}")], "timeout": SECONDS}

    def predict(self, model: str, inputs: dict[str, Any], **spec: Any) -> Any:  # noqa: ANN401 - protobuf's messages carry no annotations
        request = predict_pb2.PredictRequest()
        fill(request.model_spec, model, **spec)
        for name, value in inputs.items():
            made = value if isinstance(value, tf.make_tensor_proto(0).__class__) else tf.make_tensor_proto(value)
            request.inputs[name].CopyFrom(made)
        return self.predictions.Predict(request, **self.named)

    def examples(self, kind: Any, model: str, *given: dict[str, float], **context: list[float]) -> Any:  # noqa: ANN401 - as above
        request = kind()
        fill(request.model_spec, model)
        if not context:
            request.input.example_list.examples.extend(map(example, given))
        else:
            request.input.example_list_with_context.examples.extend(map(example, given))
            request.input.example_list_with_context.context.CopyFrom(example(context))
        return request


def fill(spec: Any, model: str, version: int | None = None, label: str = "", signature: str = "") -> None:  # noqa: ANN401 - as above
    spec.name, spec.signature_name = model, signature
    if version is not None:
        spec.version.value = version
    if label:
        spec.version_label = label


def example(features: dict[str, Any]) -> tf.train.Example:
    made = tf.train.Example()
    for name, value in features.items():
        made.features.feature[name].float_list.value.extend(np.atleast_1d(value).tolist())
    return made


def refused(call: Callable[[], object]) -> list[str]:
    """Code and text of a call that fails."""
    try:
        call()
    except grpc.RpcError as error:
        return [error.code().name, error.details()]
    return []


def predictions(visit: Visit) -> dict[str, object]:
    answer = visit.predict("times", {"x": ROWS}, label="stable", signature="serving_default")
    constant = tf.make_tensor_proto(2.5, shape=[2, 2], dtype=tf.float32)
    return {
        "answer": tf.make_ndarray(answer.outputs["y"]).tolist(),
        "float_val": list(answer.outputs["y"].float_val),
        "spec": [answer.model_spec.name, answer.model_spec.version.value, answer.model_spec.signature_name],
        "latest": visit.predict("times", {"x": ROWS}).model_spec.version.value,
        "version": visit.predict("times", {"x": ROWS}, version=1).model_spec.version.value,
        "one value for all": tf.make_ndarray(visit.predict("double", {"x": constant}).outputs["y"]).tolist(),
        "half_plus_two": list(visit.predict("half_plus_two", {"x": [1.0, 2.0, 5.0]}).outputs["y"].float_val),
        "strings": [
            text.hex() for text in visit.predict("texts", {"x": [["Bär".encode()], [b"a\0b"]]}).outputs["y"].string_val
        ],
    }


def dtypes(visit: Visit) -> dict[str, bool]:
    """Whether a model that changes nothing gives back the very bits, for each dtype."""
    found = {}
    for name, sample in SAMPLES.items():
        answer = visit.predict(f"same-{name}", {"x": sample})
        back = tf.make_ndarray(answer.outputs["y"])
        found[name] = back.dtype == sample.dtype and back.tobytes() == sample.tobytes()
    return found


def examples(visit: Visit) -> dict[str, object]:
    classified = visit.predictions.Classify(
        visit.examples(classification_pb2.ClassificationRequest, "double", {}, {"x": [3.0, -4.5]}, x=[1.0, 2.0]),
        **visit.named,
    )
    asked = visit.examples(regression_pb2.RegressionRequest, "half_plus_two", {"x": 1.0}, {"x": 2.0})
    regressed = visit.predictions.Regress(asked, **visit.named)
    several = inference_pb2.MultiInferenceRequest(input=asked.input)
    task = several.tasks.add(method_name="tensorflow/serving/regress")
    fill(task.model_spec, "half_plus_two", signature="regression")
    both = visit.predictions.MultiInference(several, **visit.named)
    return {
        "classes": [[[one.label, one.score] for one in row.classes] for row in classified.result.classifications],
        "values": [one.value for one in regressed.result.regressions],
        "spec": [regressed.model_spec.name, regressed.model_spec.version.value],
        "several": [[one.value for one in result.regression_result.regressions] for result in both.results],
    }


def models(visit: Visit) -> dict[str, object]:
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    fill(request.model_spec, "half_plus_two")
    metadata = visit.predictions.GetModelMetadata(request, **visit.named)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    unpacked = metadata.metadata["signature_def"].Unpack(signatures)
    default = signatures.signature_def["serving_default"]
    status = get_model_status_pb2.GetModelStatusRequest()
    fill(status.model_spec, "times")
    states = visit.models.GetModelStatus(status, **visit.named).model_version_status
    state = get_model_status_pb2.ModelVersionStatus.State
    return {
        "unpacked": unpacked,
        "methods": {name: one.method_name for name, one in signatures.signature_def.items()},
        "input": [
            default.inputs["x"].dtype == tf.float32.as_datatype_enum,
            default.inputs["x"].tensor_shape.dim[0].size,
        ],
        "states": [[one.version, state.Name(one.state), one.status.error_code] for one in states],
        "reload": refused(
            lambda: visit.models.HandleReloadConfigRequest(model_management_pb2.ReloadConfigRequest(), **visit.named)
        ),
    }


def refusals(visit: Visit, address: str) -> dict[str, list[str]]:
    status = get_model_status_pb2.GetModelStatusRequest()
    fill(status.model_spec, "nothing")
    return {
        "model": refused(lambda: visit.predict("nothing", {"x": ROWS})),
        "version": refused(lambda: visit.predict("double", {"x": ROWS}, version=50)),
        "label": refused(lambda: visit.predict("double", {"x": ROWS}, label="canary")),
        "signature": refused(lambda: visit.predict("double", {"x": ROWS}, signature="other")),
        "shape": refused(lambda: visit.predict("double", {"x": ROWS[:, :1]})),
        "status": refused(lambda: visit.models.GetModelStatus(status, **visit.named)),
        "token": refused(lambda: Visit(address, "none").predict("double", {"x": ROWS})),
    }


def described(names: list[str]) -> dict[str, dict[str, list[object]]]:
    """Fields of messages as the package has them: number, type, whether repeated, and the type's own name."""
    pool = descriptor_pool.Default()
    return {
        name: {
            field.name: [
                field.number,
                field.type,
                field.is_repeated,
                getattr(field.message_type or field.enum_type, "full_name", ""),
            ]
            for field in pool.FindMessageTypeByName(name).fields
        }
        for name in names
    }


def methods() -> dict[str, dict[str, list[str]]]:
    """Methods of both services as the package has them: what each takes and gives."""
    services = (
        prediction_service_pb2.DESCRIPTOR.services_by_name["PredictionService"],
        model_service_pb2.DESCRIPTOR.services_by_name["ModelService"],
    )
    return {
        service.full_name: {
            method.name: [method.input_type.full_name, method.output_type.full_name] for method in service.methods
        }
        for service in services
    }


def main() -> None:
    asked = json.load(sys.stdin)
    visit = Visit(asked["address"], asked["token"])
    found = {
        "predictions": predictions(visit),
        "dtypes": dtypes(visit),
        "examples": examples(visit),
        "models": models(visit),
        "refusals": refusals(visit, asked["address"]),
        "messages": described(asked["messages"]),
        "methods": methods(),
    }
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
