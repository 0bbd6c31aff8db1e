"""The OpenAPI description of predictions in the Open Inference Protocol, which FastAPI does not route either."""

from __future__ import annotations

from auth.scopes import Scope
from gateway.prediction_description import (
    PREFER,
    TARGETS,
    Json,
    accepted,
    failure,
    header,
    operation_id,
    parameters,
    reference,
    refusals,
)
from gateway.submit_description import submit_options

INFER_TAG = {
    "name": "Open Inference Protocol",
    "description": (
        "The REST interface of KServe V2 and Triton, with a bearer token added and Triton's binary tensor data "
        "extension: tensors as JSON or as bytes behind it, in requests and answers alike."
    ),
}
HEAD_LENGTH = "Inference-Header-Content-Length"

INFER_EXAMPLES: dict[str, Json] = {
    "linear": {
        "summary": "linear: two rows of two numbers",
        "value": {"inputs": [{"name": "x", "shape": [2, 2], "datatype": "FP32", "data": [1.0, 2.0, 0.5, -1.5]}]},
    },
    "linear_named": {
        "summary": "linear: nested data, an id, and one output by name",
        "value": {
            "id": "order-0815",
            "inputs": [{"name": "x", "shape": [2, 2], "datatype": "FP32", "data": [[1.0, 2.0], [0.5, -1.5]]}],
            "outputs": [{"name": "y"}],
        },
    },
}
INFER_ANSWER: Json = {
    "model_name": "linear",
    "model_version": "1",
    "outputs": [{"name": "y", "datatype": "FP32", "shape": [2, 1], "data": [-0.6, 10.3]}],
}
DATATYPE: Json = {
    "type": "string",
    "enum": [
        "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64",
        "BYTES",
    ],
}  # fmt: skip
SHAPE: Json = {"type": "array", "items": {"type": "integer", "minimum": 1}}

INFER_SCHEMAS: dict[str, Json] = {
    "InferRequest": {
        "type": "object",
        "description": (
            "Every input of the version, once. `data` is flat in row-major order or nested by the shape; with the "
            "parameter `binary_data_size` instead, that many bytes follow the JSON, in the order of the inputs: "
            "little-endian, a BOOL in one byte, an element of BYTES behind its length in four. FP16 travels as bytes "
            "only. `outputs` names those that are wanted; without it, all are answered."
        ),
        "required": ["inputs"],
        "properties": {
            "id": {"type": "string", "description": "Comes back in the answer."},
            "parameters": {"$ref": "#/components/schemas/InferParameters"},
            "inputs": {"type": "array", "minItems": 1, "items": {"$ref": "#/components/schemas/InferInput"}},
            "outputs": {"type": "array", "items": {"$ref": "#/components/schemas/InferRequestedOutput"}},
        },
    },
    "InferParameters": {
        "type": "object",
        "properties": {
            "binary_data_output": {
                "type": "boolean",
                "description": "Answer with bytes all outputs that do not say otherwise.",
            },
            "priority": {
                "type": "integer",
                "minimum": 0,
                "description": "Of a job: 1 makes it `interactive`; anything else leaves it to `Sluice-Priority`.",
            },
            "timeout": {
                "type": "integer",
                "minimum": 0,
                "description": "Microseconds to wait at most (503 after that), or a job's deadline; 0 is none.",
            },
        },
    },
    "InferInput": {
        "type": "object",
        "required": ["name", "shape", "datatype"],
        "properties": {
            "name": {"type": "string"},
            "shape": SHAPE,
            "datatype": DATATYPE,
            "parameters": {"type": "object", "properties": {"binary_data_size": {"type": "integer", "minimum": 0}}},
            "data": {"type": "array", "items": {}},
        },
    },
    "InferRequestedOutput": {
        "type": "object",
        "required": ["name"],
        "properties": {
            "name": {"type": "string"},
            "parameters": {
                "type": "object",
                "properties": {
                    "binary_data": {"type": "boolean"},
                    "classification": {
                        "type": "integer",
                        "minimum": 1,
                        "description": "Only so many best classes of each instance, as `score:index:label`.",
                    },
                },
            },
        },
    },
    "InferAnswer": {
        "type": "object",
        "required": ["model_name", "model_version", "outputs"],
        "properties": {
            "model_name": {"type": "string"},
            "model_version": {"type": "string"},
            "id": {"type": "string"},
            "outputs": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["name", "shape", "datatype"],
                    "properties": {
                        "name": {"type": "string"},
                        "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}},
                        "datatype": DATATYPE,
                        "parameters": {"type": "object", "properties": {"binary_data_size": {"type": "integer"}}},
                        "data": {"type": "array", "items": {}},
                    },
                },
            },
        },
    },
}
BINARY: Json = {"schema": {"type": "string", "format": "binary"}}


def infer_paths() -> dict[str, Json]:
    """The OpenAPI path items of `infer`, by path template."""
    return {
        f"/v2/models/{{model}}{target}/infer": {"post": infer_operation(target, meaning)}
        for target, meaning in TARGETS.items()
    }


def infer_operation(target: str, meaning: str) -> Json:
    length: Json = {
        "name": HEAD_LENGTH,
        "in": "header",
        "description": (
            "How many bytes of the body are JSON; the tensors follow as bytes. 0: the body is the only input's one "
            "instance. Without it, the whole body is JSON."
        ),
        "schema": {"type": "integer", "minimum": 0},
    }
    return {
        "tags": [INFER_TAG["name"]],
        "summary": f"Infer with {meaning}",
        "operationId": operation_id("infer", target),
        "parameters": [*parameters(target), length, PREFER, *submit_options()],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": reference("InferRequest"), "examples": INFER_EXAMPLES},
                "application/octet-stream": BINARY,
            },
        },
        "responses": refusals()
        | {
            "200": answered(),
            "202": accepted("The prediction is a job, as `Prefer` asked."),
            "503": failure("The version is not ready, the queue is away, or rights cannot be read.", retry=True),
            "504": failure("The prediction took longer than the synchronous limit; nobody works on it any more."),
        },
        "security": [{"token": [str(Scope.PREDICT)]}],
    }


def answered() -> Json:
    return {
        "description": "The prediction: JSON, or JSON in front of tensors as bytes where any output was asked for so.",
        "headers": {
            "Sluice-Model-Version": header("The version that answered."),
            HEAD_LENGTH: header("How many bytes of the body are JSON, where tensors follow.", "integer"),
        },
        "content": {
            "application/json": {"schema": reference("InferAnswer"), "example": INFER_ANSWER},
            "application/octet-stream": BINARY,
        },
    }
