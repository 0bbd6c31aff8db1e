"""ModelInfer's messages and the bodies of `/v2/…/infer`: one is rewritten as the other, tensors as bytes throughout."""

from __future__ import annotations

import json

import grpc

from gateway.errors import RequestTooLarge
from gateway.grpc_services.calls import Reply
from gateway.grpc_services.failures import CallFailed
from gateway.grpc_services.messages import Fields, message
from gateway.grpc_services.tensor_contents import CONTENTS, RAW_ONLY, fill, raw_of, require_datatype
from gateway.prediction_bodies import HEAD_LENGTH, RawHeaders
from workers.protocols.errors import invalid

ModelInferResponse = message("inference.ModelInferResponse")
# No model has more inputs or outputs. A message of empty ones is a hundred times as long in JSON, and as slow to write.
MOST_PARTS = 10_000
JOB_ID = "sluice_job_id"
JOB_STATE = "sluice_job_state"


def body_of(request: Fields, limit_bytes: int) -> tuple[bytes, RawHeaders]:
    """A request as JSON in front of its tensors, and the headers that say so; raises InputInvalid, RequestTooLarge."""
    _require_few(request.inputs, "inputs")
    _require_few(request.outputs, "outputs")
    tensors = _tensors(request, limit_bytes)
    head: dict[str, object] = {
        "inputs": [
            {
                "name": tensor.name,
                "datatype": tensor.datatype,
                "shape": list(tensor.shape),
                "parameters": _parameters(tensor.parameters) | {"binary_data_size": len(raw)},
            }
            for tensor, raw in zip(request.inputs, tensors, strict=True)
        ],
        "parameters": _parameters(request.parameters) | {"binary_data_output": True},
    }
    if request.id:
        head["id"] = request.id
    if request.outputs:
        head["outputs"] = [
            {"name": output.name, "parameters": _parameters(output.parameters) | {"binary_data": True}}
            for output in request.outputs
        ]
    text = json.dumps(head).encode()
    headers = [(b"content-type", b"application/octet-stream"), (HEAD_LENGTH, b"%d" % len(text))]
    return b"".join([text, *tensors]), headers


def response_of(reply: Reply, request: Fields) -> Fields:
    """An answer as a message: outputs raw where the request was, else typed; of a job, its id and no outputs."""
    if reply.status == 202:
        return _accepted(reply, request)
    size = reply.headers.get(HEAD_LENGTH)
    if size is None:
        raise CallFailed(grpc.StatusCode.INTERNAL, "the answer is not in bytes")
    document: Fields = json.loads(reply.body[: int(size)])
    made: Fields = ModelInferResponse(
        model_name=document["model_name"], model_version=document["model_version"], id=document.get("id", "")
    )
    data, position = memoryview(reply.body), int(size)
    # All outputs in one way: what has no typed contents decides for the others too.
    raw = bool(request.raw_input_contents) or any(output["datatype"] in RAW_ONLY for output in document["outputs"])
    for output in document["outputs"]:
        parameters = dict(output.get("parameters", {}))
        end = position + parameters.pop("binary_data_size")
        tensor = made.outputs.add(name=output["name"], datatype=output["datatype"], shape=output["shape"])
        _set_parameters(tensor.parameters, parameters)
        if raw:
            made.raw_output_contents.append(bytes(data[position:end]))
        else:
            fill(tensor.contents, output["datatype"], output["shape"], data[position:end])
        position = end
    _set_parameters(made.parameters, document.get("parameters") or {})
    return made


def _require_few(parts: Fields, named: str) -> None:
    if len(parts) > MOST_PARTS:
        raise invalid(f"there are more than {MOST_PARTS} {named}")


def _tensors(request: Fields, limit_bytes: int) -> list[bytes]:
    typed = [place for place, tensor in enumerate(request.inputs) if tensor.HasField("contents")]
    for place, tensor in enumerate(request.inputs):
        require_datatype(tensor.datatype, f"inputs[{place}]")
    if request.raw_input_contents:
        if typed:
            raise invalid(f"inputs[{typed[0]}] has contents, but the request has raw_input_contents: send one of both")
        if len(request.raw_input_contents) != len(request.inputs):
            raise invalid(
                f"raw_input_contents has {len(request.raw_input_contents)} tensors, but there are "
                f"{len(request.inputs)} inputs"
            )
        return list(request.raw_input_contents)
    missing = [place for place, tensor in enumerate(request.inputs) if not tensor.HasField("contents")]
    if missing:
        raise invalid(f"inputs[{missing[0]}] has no contents, and the request has no raw_input_contents")
    _require_room(request.inputs, limit_bytes)
    return [raw_of(tensor, f"inputs[{place}]") for place, tensor in enumerate(request.inputs)]


def _require_room(inputs: Fields, limit_bytes: int) -> None:
    # A small number takes one byte in a message, and up to eight as an element of a tensor.
    sizes = (
        len(getattr(tensor.contents, known.field)) * int(known.dtype[-1])
        for tensor in inputs
        if (known := CONTENTS.get(tensor.datatype)) is not None and known.dtype
    )
    if sum(sizes) > limit_bytes:
        raise RequestTooLarge(f"the tensors are larger than {limit_bytes} bytes")


def _accepted(reply: Reply, request: Fields) -> Fields:
    document: Fields = json.loads(reply.body)
    made: Fields = ModelInferResponse(
        model_name=str(document["model"]), model_version=str(document["version"]), id=request.id
    )
    _set_parameters(made.parameters, {JOB_ID: document["id"], JOB_STATE: document["state"]})
    return made


def _parameters(given: Fields) -> dict[str, object]:
    _require_few(given, "parameters")
    found: dict[str, object] = {}
    for name, parameter in given.items():
        choice = parameter.WhichOneof("parameter_choice")
        if choice is None:
            raise invalid(f"the parameter {name[:64]!r} has no value")
        found[name] = getattr(parameter, choice)
    return found


def _set_parameters(made: Fields, parameters: dict[str, object]) -> None:
    for name, value in parameters.items():
        if isinstance(value, bool):
            made[name].bool_param = value
        elif isinstance(value, int):
            made[name].int64_param = value
        elif isinstance(value, float):
            made[name].double_param = value
        elif isinstance(value, str):
            made[name].string_param = value
