"""Every way in which a tensor can be sent to a model and its answer read: all dialects, waiting or as a job."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx
import numpy as np

from model_store.signature import Tensor
from tests.grpc_kit import Answered, GrpcCaller, infer_request, outputs_of
from tests.grpc_serving_kit import ServingCaller, read, spec_of
from tests.open_inference_kit import HEAD_LENGTH, binary_request, json_request, raw, read_answer
from workers.protocols.body import TEXT

JOB_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Seen:
    """The only output of an answer, and the version that gave it."""

    output: Tensor
    version: str


@dataclass(frozen=True, slots=True)
class World:
    """Callers of one client, over HTTP and over gRPC."""

    http: httpx.Client
    grpc: GrpcCaller


Way = Callable[[World, str, Tensor, bool], Seen]


def takes_text(tensor: Tensor) -> bool:
    """Whether the Open Inference Protocol has a spelling in JSON: not of half floats."""
    return tensor.dtype != np.float16


def takes_raw(tensor: Tensor) -> bool:
    """Whether a body of nothing but bytes says all: one instance, and at most one dimension of any size."""
    return tensor.dtype != object and tensor.shape[0] == 1 and tensor.ndim <= 2


def anything(tensor: Tensor) -> bool:  # noqa: ARG001 - one of several answers to a question
    return True


def post(world: World, path: str, data: bytes, headers: Mapping[str, str], as_job: bool) -> tuple[httpx.Response, str]:
    """The answer to a prediction, which a job's result is as well, and the version that the gateway names."""
    sent = {**headers, **({"prefer": "respond-async"} if as_job else {})}
    answer = world.http.post(path, content=data, headers=sent)
    version = answer.headers.get("sluice-model-version", "")
    if as_job:
        assert answer.status_code == 202, answer.text
        answer = result_of(world, urlsplit(answer.headers["location"]).path)
    assert answer.status_code == 200, answer.text
    return answer, version


def result_of(world: World, place: str) -> httpx.Response:
    ended = world.http.get(place, params={"wait": JOB_SECONDS})
    assert ended.json()["state"] == "succeeded", ended.text
    return world.http.get(f"{place}/result")


def values(listed: object, asked: Tensor) -> Tensor:
    """Numbers of JSON, each read as the float32 that it spells; strings as bytes."""
    if asked.dtype == object:
        found = np.empty(asked.size, object)
        found[:] = [text.encode() for text in np.array(listed, object).reshape(-1)]
        return found.reshape(asked.shape)
    return np.array(listed, np.float64).astype(np.float32)


def plain(tensor: Tensor) -> object:
    """A tensor as lists for JSON."""
    if tensor.dtype != object:
        return tensor.tolist()
    return np.array([element.decode() for element in tensor.reshape(-1)], object).reshape(tensor.shape).tolist()


def by_json(path: str, key: str, answered: str) -> Way:
    """A dialect of plain JSON: the tensor under one key, the output under another."""

    def ask(world: World, model: str, tensor: Tensor, as_job: bool) -> Seen:
        body = json.dumps({key: plain(tensor)}).encode()
        headers = {"content-type": "application/json"}
        answer, version = post(world, path.format(model=model), body, headers, as_job)
        return Seen(values(answer.json()[answered], tensor), version)

    return ask


def inferred(answer: httpx.Response, version: str) -> Seen:
    found = read_answer(answer.content, int(answer.headers.get(HEAD_LENGTH, TEXT)))
    assert found.document["model_version"] == version
    return Seen(found.outputs["y"], version)


def by_open_inference_text(*, nested: bool) -> Way:
    def ask(world: World, model: str, tensor: Tensor, as_job: bool) -> Seen:
        return inferred(
            *post(world, f"/v2/models/{model}/infer", json_request({"x": tensor}, nested=nested), {}, as_job)
        )

    return ask


def by_open_inference_bytes(*, asked: bool) -> Way:
    """Tensors as bytes on the way in, and on the way out where they are asked for so."""

    def ask(world: World, model: str, tensor: Tensor, as_job: bool) -> Seen:
        body, head = binary_request({"x": tensor}, **({"parameters": {"binary_data_output": True}} if asked else {}))
        return inferred(*post(world, f"/v2/models/{model}/infer", body, {HEAD_LENGTH: str(head)}, as_job))

    return ask


def by_raw_body(world: World, model: str, tensor: Tensor, as_job: bool) -> Seen:
    return inferred(*post(world, f"/v2/models/{model}/infer", raw(tensor), {HEAD_LENGTH: "0"}, as_job))


def of_call(world: World, answered: Answered, read_message: Callable[[Answered], Seen], as_job: bool) -> Seen:
    """What a call answered; a job's result is fetched over HTTP, in the dialect that all calls are passed on in."""
    if not as_job:
        return read_message(answered)
    place = answered.trailers["location"]
    return inferred(result_of(world, place), answered.trailers["sluice-model-version"])


def preferring(as_job: bool) -> tuple[tuple[str, str], ...]:
    return (("prefer", "respond-async"),) if as_job else ()


def by_inference_call(*, typed: bool) -> Way:
    def ask(world: World, model: str, tensor: Tensor, as_job: bool) -> Seen:
        request = infer_request(model, {"x": tensor}, typed=typed)
        answered = world.grpc.call("ModelInfer", request, *preferring(as_job))
        return of_call(
            world, answered, lambda one: Seen(outputs_of(one.message)["y"], one.message.model_version), as_job
        )

    return ask


def by_predict_call(world: World, model: str, tensor: Tensor, as_job: bool) -> Seen:
    answered = ServingCaller(world.grpc).predict(spec_of(model), {"x": tensor}, *preferring(as_job))

    def read_message(one: Answered) -> Seen:
        return Seen(read(one.message.outputs["y"]), str(one.message.model_spec.version.value))

    return of_call(world, answered, read_message, as_job)


WAYS: Mapping[str, tuple[Way, Callable[[Tensor], bool]]] = {
    "TensorFlow Serving, rows": (by_json("/v1/models/{model}:predict", "instances", "predictions"), anything),
    "TensorFlow Serving, columns": (by_json("/v1/models/{model}:predict", "inputs", "outputs"), anything),
    "Open Inference, JSON": (by_open_inference_text(nested=False), takes_text),
    "Open Inference, nested JSON": (by_open_inference_text(nested=True), takes_text),
    "Open Inference, bytes": (by_open_inference_bytes(asked=True), anything),
    "Open Inference, bytes answered as JSON": (by_open_inference_bytes(asked=False), anything),
    "Open Inference, raw body": (by_raw_body, takes_raw),
    "MLflow, inputs": (by_json("/models/{model}/invocations", "inputs", "predictions"), anything),
    "MLflow, instances": (by_json("/models/{model}/invocations", "instances", "predictions"), anything),
    "gRPC, Open Inference, raw": (by_inference_call(typed=False), anything),
    "gRPC, Open Inference, typed": (by_inference_call(typed=True), takes_text),
    "gRPC, TensorFlow Serving": (by_predict_call, anything),
}
