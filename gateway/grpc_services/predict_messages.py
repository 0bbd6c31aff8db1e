"""Predict's messages and the bodies of `/v2/…/infer`: one is rewritten as the other, tensors as bytes throughout."""

from __future__ import annotations

import json

from gateway.grpc_services.calls import Reply
from gateway.grpc_services.messages import Fields, message
from gateway.grpc_services.model_specs import Target, answered_by
from gateway.grpc_services.rewriting import INLINE_BYTES
from gateway.grpc_services.tensor_protos import RawTensor, least_bytes, raw_of, tensor_of
from gateway.prediction_bodies import BYTES, HEAD_LENGTH, RawHeaders
from workers.protocols.errors import shown_name
from workers.protocols.signature_names import SIGNATURE_NAME

PredictResponse = message("tensorflow.serving.PredictResponse")


def size_of(request: Fields) -> int:
    """About how many bytes a request takes, as a message and as tensors: a short message may mean long ones."""
    size: int = request.ByteSize()
    if size > INLINE_BYTES:
        return size
    return size + sum(least_bytes(tensor) for tensor in request.inputs.values())


def body_of(request: Fields, limit_bytes: int) -> tuple[bytes, RawHeaders]:
    """A request as JSON in front of its tensors, and the headers that say so; raises InputInvalid, RequestTooLarge."""
    inputs, parts = [], []
    for name in request.inputs:
        tensor = raw_of(request.inputs[name], f"inputs['{shown_name(name)}']", limit_bytes)
        limit_bytes -= len(tensor.data)
        size = {"binary_data_size": len(tensor.data)}
        inputs.append({"name": name, "datatype": tensor.datatype, "shape": list(tensor.shape), "parameters": size})
        parts.append(tensor.data)
    parameters: dict[str, object] = {"binary_data_output": True}
    if request.model_spec.signature_name:
        parameters[SIGNATURE_NAME] = request.model_spec.signature_name
    head: dict[str, object] = {"inputs": inputs, "parameters": parameters}
    if request.output_filter:
        head["outputs"] = [{"name": name, "parameters": {"binary_data": True}} for name in request.output_filter]
    text = json.dumps(head).encode()
    return b"".join([text, *parts]), [BYTES, (HEAD_LENGTH, b"%d" % len(text))]


def response_of(reply: Reply, target: Target) -> Fields:
    """An answer as a message; of a job, whose address is in the trailing metadata, one without outputs."""
    made: Fields = PredictResponse(model_spec=answered_by(target, reply))
    if reply.status == 202:
        return made
    start = int(reply.headers[HEAD_LENGTH])
    for output in json.loads(reply.body[:start])["outputs"]:
        end = start + output["parameters"]["binary_data_size"]
        tensor = RawTensor(output["datatype"], tuple(output["shape"]), reply.body[start:end])
        made.outputs[output["name"]].CopyFrom(tensor_of(tensor))
        start = end
    return made
