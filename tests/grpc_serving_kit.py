"""A client of TensorFlow Serving over gRPC of the tests' own, and requests as such clients make them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import grpc
import pytest

from gateway.grpc_services.messages import Fields, message
from gateway.grpc_services.tensor_protos import RawTensor, raw_of, tensor_of
from model_store.signature import Tensor
from tests.grpc_kit import Answered, GrpcCaller, Refused
from tests.open_inference_kit import datatype_of, from_bytes, raw

PREDICTIONS, MODELS = "tensorflow.serving.PredictionService", "tensorflow.serving.ModelService"
NAMES = {"Classify": "Classification", "Regress": "Regression", "HandleReloadConfigRequest": "ReloadConfig"}


class ServingCaller:
    """Calls both services by their methods' names."""

    def __init__(self, caller: GrpcCaller) -> None:
        self._caller = caller

    def call(self, name: str, request: Fields, *metadata: tuple[str, str]) -> Answered:
        service = MODELS if name in ("GetModelStatus", "HandleReloadConfigRequest") else PREDICTIONS
        method = self._caller.channel.unary_unary(f"/{service}/{name}")
        try:
            data, done = method.with_call(
                request.SerializeToString(), metadata=[*self._caller.metadata, *metadata], timeout=30
            )
        except grpc.RpcError as error:
            raise Refused(error) from None
        answer = message(f"tensorflow.serving.{NAMES.get(name, name)}Response")
        return Answered(answer.FromString(data), dict(done.trailing_metadata()))

    def predict(self, spec: Mapping[str, object], tensors: Mapping[str, Tensor], *more: tuple[str, str]) -> Answered:
        return self.call("Predict", predict_request(spec, tensors), *more)


def request_of(kind: str, **fields: object) -> Fields:
    return message(f"tensorflow.serving.{kind}Request")(**fields)


def spec_of(model: str, version: int | None = None, **more: object) -> dict[str, object]:
    return {"name": model, **({} if version is None else {"version": {"value": version}}), **more}


def predict_request(spec: Mapping[str, object], tensors: Mapping[str, Tensor], **more: object) -> Fields:
    request = request_of("Predict", model_spec=spec, **more)
    for name, tensor in tensors.items():
        request.inputs[name].CopyFrom(tensor_of(RawTensor(datatype_of(tensor), tensor.shape, raw(tensor))))
    return request


def read(tensor: Fields) -> Tensor:
    found = raw_of(tensor, "answer", 2**20)
    return from_bytes(found.data, {"datatype": found.datatype, "shape": list(found.shape)})


def examples(*given: Mapping[str, list[float]], context: Mapping[str, list[float]] | None = None) -> dict[str, object]:
    """An Input with features of floats, or of integers where all are."""
    made = [example(features) for features in given]
    if context is None:
        return {"example_list": {"examples": made}}
    return {"example_list_with_context": {"examples": made, "context": example(context)}}


def example(features: Mapping[str, list[float]]) -> Fields:
    made: Fields = message("tensorflow.Example")()
    for name, values in features.items():
        kind = "int64_list" if all(isinstance(value, int) for value in values) else "float_list"
        getattr(made.features.feature[name], kind).value.extend(values)
    return made


def refusal(call: Callable[[], object]) -> tuple[str, str]:
    """Code and text of a call that fails."""
    with pytest.raises(Refused) as caught:
        call()
    return caught.value.code, caught.value.text
