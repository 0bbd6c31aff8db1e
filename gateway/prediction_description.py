"""The OpenAPI description of the prediction paths, which FastAPI does not route and so cannot describe."""

from __future__ import annotations

from typing import Any

from auth.scopes import Scope
from gateway.file_description import FILES
from gateway.submit_description import submit_options

Json = dict[str, Any]

TAG = {
    "name": "Predictions",
    "description": (
        "The REST interface of TensorFlow Serving, with a bearer token added. A request is either in rows "
        "(`instances`, answered by `predictions`) or in columns (`inputs`, answered by `outputs`)."
    ),
}
NAME_PATTERN = "^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"

# A seven on 28x28 pixels, drawn with a pen two pixels wide.
SEVEN = [
    *[[0] * 28 for _ in range(6)],
    *[[0] * 7 + [1] * 13 + [0] * 8 for _ in range(2)],
    *[[0] * (18 - step // 2) + [1, 1] + [0] * (8 + step // 2) for step in range(14)],
    *[[0] * 28 for _ in range(6)],
]

EXAMPLES: dict[str, Json] = {
    "linear": {
        "summary": "linear: two rows of two numbers",
        "value": {"instances": [[1.0, 2.0], [0.5, -1.5]]},
    },
    "linear_columns": {
        "summary": "linear: the same as columns",
        "value": {"signature_name": "serving_default", "inputs": {"x": [[1.0, 2.0], [0.5, -1.5]]}},
    },
    "mnist": {
        "summary": "mnist: a digit of 28x28 pixels (put mnist as the model)",
        "value": {"instances": [SEVEN]},
    },
}
ANSWERS: dict[str, Json] = {
    "rows": {"summary": "to instances", "value": {"predictions": [[-0.6], [10.3]]}},
    "columns": {"summary": "to inputs", "value": {"outputs": [[-0.6], [10.3]]}},
}
SCHEMAS: dict[str, Json] = {
    "PredictRequest": {
        "type": "object",
        "description": (
            "Exactly one of `instances` and `inputs`. With several inputs, each instance is an object with a value for "
            'each of them, and `inputs` an object of tensors. `{"b64": "…"}` stands for bytes. NaN, Infinity and '
            "-Infinity may be written as bare tokens."
        ),
        "properties": {
            "signature_name": {
                "type": "string",
                "description": "Which of the version's signatures; `serving_default`, or no name, is the default.",
            },
            "instances": {"type": "array", "minItems": 1, "items": {}},
            "inputs": {"description": "A tensor as nested lists, or an object of tensors by input name."},
            "top_k": {
                "type": "integer",
                "minimum": 1,
                "description": "Answer only so many best classes of each instance: index, class (its name), score.",
            },
        },
        "oneOf": [{"required": ["instances"]}, {"required": ["inputs"]}],
    },
    "PredictAnswer": {
        "type": "object",
        "description": (
            "`predictions` has one element per instance, `outputs` the tensors. A single output's name is dropped; "
            "several are objects by output name."
        ),
        "properties": {"predictions": {"type": "array", "items": {}}, "outputs": {}},
        "oneOf": [{"required": ["predictions"]}, {"required": ["outputs"]}],
    },
    "JobAccepted": {
        "type": "object",
        "description": "The job as `GET /v1/jobs/{id}` shows it.",
        "required": ["id", "model", "version", "state"],
        "properties": {
            "id": {"type": "string"},
            "model": {"type": "string"},
            "version": {"type": "string"},
            "state": {
                "type": "string",
                "enum": ["queued", "running", "succeeded", "failed", "canceled", "expired"],
            },
            "created_at": {"type": "string", "format": "date-time"},
        },
    },
}
JOB_EXAMPLE = {
    "id": "Zk0o3rVxQ1uYt5pWc8sLd2Ea",
    "model": "linear",
    "version": "1",
    "state": "queued",
    "priority": "bulk",
    "created_at": "2026-01-02T03:04:05.006Z",
    "started_at": None,
    "finished_at": None,
    "attempts": 0,
    "queue_position": None,
    "jobs_ahead": None,
    "estimated_wait_seconds": None,
    "estimated_start_at": None,
    "progress": {"done": 0, "total": 2},
    "error": None,
}
PREFER: Json = {
    "name": "Prefer",
    "in": "header",
    "description": (
        "`respond-async` makes the prediction a job and answers 202 at once; `wait=5` makes it a job and waits up to 5 "
        "seconds for its result before it answers 202 (RFC 7240)."
    ),
    "schema": {"type": "string"},
    "examples": {
        "none": {"summary": "wait for the answer", "value": ""},
        "job": {"summary": "answer with a job", "value": "respond-async"},
        "wait": {"summary": "answer with a job after 5 seconds", "value": "wait=5"},
    },
}
TARGETS = {
    "": "the highest AVAILABLE version",
    "/versions/{version}": "one version",
    "/labels/{label}": "the version that a label points to",
}


def prediction_paths() -> dict[str, Json]:
    """The OpenAPI path items of `:predict` and `:submit`, by path template."""
    paths: dict[str, Json] = {}
    for target, meaning in TARGETS.items():
        paths[f"/v1/models/{{model}}{target}:predict"] = {"post": predict_operation(target, meaning)}
        paths[f"/v1/models/{{model}}{target}:submit"] = {"post": submit_operation(target, meaning)}
    return paths


def predict_operation(target: str, meaning: str) -> Json:
    responses = {
        "200": answered("The prediction, by the version that the header names."),
        "202": accepted("The prediction is a job, as `Prefer` asked."),
        "503": failure("The version is not ready, the queue is away, or rights cannot be read.", retry=True),
        "504": failure("The prediction took longer than the synchronous limit; nobody works on it any more."),
    }
    return operation(target, f"Predict with {meaning}", responses)


def submit_operation(target: str, meaning: str) -> Json:
    responses = {
        "200": answered("The prediction, where `Prefer: wait` asked for it and it succeeded in time."),
        "202": accepted("The job is written down: it survives the end of any process."),
        "503": failure(
            "The version is not ready, its queue too old, the database away, or rights cannot be read.",
            retry=True,
        ),
    }
    return operation(target, f"Submit a job to {meaning}", responses)


def answered(description: str) -> Json:
    return {
        "description": description,
        "headers": {"Sluice-Model-Version": header("The version that answered.")},
        "content": {"application/json": {"schema": reference("PredictAnswer"), "examples": ANSWERS}},
    }


def operation(target: str, summary: str, responses: dict[str, Json]) -> Json:
    return {
        "tags": [TAG["name"]],
        "summary": summary,
        "operationId": operation_id(summary.split()[0].lower(), target),
        "parameters": [*parameters(target), PREFER, *submit_options()],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": reference("PredictRequest"), "examples": EXAMPLES}} | FILES,
        },
        "responses": refusals() | responses,
        "security": [{"token": [str(Scope.PREDICT)]}],
    }


def operation_id(verb: str, target: str) -> str:
    return f"{verb}_{target.strip('/').partition('/')[0].rstrip('s') or 'model'}"


def refusals() -> dict[str, Json]:
    """What any prediction may be refused with, in any dialect."""
    return {
        "400": failure("The body does not fit the version's signature: the text says where, and what was expected.")
        | {"headers": {"Link": header("The version's own description, as `service-desc` (RFC 8631).")}},
        "404": failure("No such model or version, or no grant for it: the two answers are equal."),
        "413": failure("The body is larger than the limit (16 MiB unless set otherwise)."),
        "415": failure(
            "The body is no JSON and of a Content-Type that this address does not take: the text says which it takes. "
            "Or it has a Content-Encoding other than gzip and deflate."
        ),
        "422": failure("The `Idempotency-Key` came with another request before."),
        "429": failure("The client is at one of its limits: `RateLimit-Policy` says at which.", retry=True),
    }


def parameters(target: str) -> list[Json]:
    found = [in_path("model", "The model's name.", {"type": "string", "pattern": NAME_PATTERN}, "linear")]
    if "{version}" in target:
        found.append(in_path("version", "The version's number.", {"type": "integer", "minimum": 1}, 1))
    if "{label}" in target:
        found.append(in_path("label", "The label's name.", {"type": "string", "pattern": NAME_PATTERN}, "stable"))
    return found


def in_path(name: str, description: str, schema: Json, example: object) -> Json:
    return {
        "name": name,
        "in": "path",
        "required": True,
        "description": description,
        "schema": schema,
        "example": example,
    }


def accepted(description: str) -> Json:
    return {
        "description": description,
        "headers": {
            "Location": header("The job's address."),
            "Preference-Applied": header("`respond-async` or `wait`, where `Prefer` asked for it."),
            "Idempotent-Replayed": header("`true` where an earlier request with the same key made the job."),
        },
        "content": {"application/json": {"schema": reference("JobAccepted"), "example": JOB_EXAMPLE}},
    }


def failure(description: str, *, retry: bool = False) -> Json:
    """A response without its body: `openapi.describe` adds the shape that errors of the path have."""
    headers = (
        {"headers": {"Retry-After": header("Seconds until it is worth trying again.", "integer")}} if retry else {}
    )
    return {"description": description, **headers}


def header(description: str, kind: str = "string") -> Json:
    return {"description": description, "schema": {"type": kind}}


def reference(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}
