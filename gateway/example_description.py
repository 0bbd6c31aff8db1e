"""The OpenAPI description of `:classify` and `:regress`, which FastAPI does not route either."""

from __future__ import annotations

from dataclasses import dataclass

from auth.scopes import Scope
from gateway.prediction_description import (
    PREFER,
    TAG,
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

FEATURES: Json = {"type": "object", "additionalProperties": {}}
EXAMPLE_SCHEMAS: dict[str, Json] = {
    "ExamplesRequest": {
        "type": "object",
        "description": (
            "Examples by the names of their features: each input is filled from the feature of its name, a value or a "
            'flat list of an instance\'s values in row-major order. `{"b64": "…"}` stands for bytes. What `context` '
            "says counts for every example that does not say otherwise."
        ),
        "required": ["examples"],
        "properties": {
            "signature_name": {"type": "string"},
            "context": FEATURES,
            "examples": {"type": "array", "minItems": 1, "items": FEATURES},
        },
    },
    "ClassifyAnswer": {
        "type": "object",
        "description": "For each example all its classes, in the model's order, as label and score.",
        "required": ["results"],
        "properties": {
            "results": {
                "type": "array",
                "items": {"type": "array", "items": {"type": "array", "minItems": 2, "maxItems": 2, "items": {}}},
            }
        },
    },
    "RegressAnswer": {
        "type": "object",
        "description": "For each example its value.",
        "required": ["results"],
        "properties": {"results": {"type": "array", "items": {}}},
    },
}
REQUESTS: dict[str, Json] = {
    "linear": {"summary": "linear: two examples", "value": {"examples": [{"x": [1.0, 2.0]}, {"x": [0.5, -1.5]}]}},
    "linear_context": {
        "summary": "linear: one of them as it is in the context",
        "value": {"context": {"x": [1.0, 2.0]}, "examples": [{}, {"x": [0.5, -1.5]}]},
    },
}


@dataclass(frozen=True, slots=True)
class Method:
    """One of the two, and what it answers."""

    verb: str
    schema: str
    results: list[object]


METHODS = (
    Method("classify", "ClassifyAnswer", [[["", -0.6]], [["", 10.3]]]),
    Method("regress", "RegressAnswer", [-0.6, 10.3]),
)


def example_paths() -> dict[str, Json]:
    """The OpenAPI path items of both, by path template."""
    return {
        f"/v1/models/{{model}}{target}:{method.verb}": {"post": _operation(method, target, meaning)}
        for target, meaning in TARGETS.items()
        for method in METHODS
    }


def _operation(method: Method, target: str, meaning: str) -> Json:
    return {
        "tags": [TAG["name"]],
        "summary": f"{method.verb.capitalize()} with {meaning}",
        "operationId": operation_id(method.verb, target),
        "parameters": [*parameters(target), PREFER, *submit_options()],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": reference("ExamplesRequest"), "examples": REQUESTS}},
        },
        "responses": refusals()
        | {
            "200": _answered(method),
            "202": accepted("The prediction is a job, as `Prefer` asked."),
            "503": failure("The version is not ready, the queue is away, or rights cannot be read.", retry=True),
            "504": failure("The prediction took longer than the synchronous limit; nobody works on it any more."),
        },
        "security": [{"token": [str(Scope.PREDICT)]}],
    }


def _answered(method: Method) -> Json:
    return {
        "description": "The results, one for each example, by the version that the header names.",
        "headers": {"Sluice-Model-Version": header("The version that answered.")},
        "content": {"application/json": {"schema": reference(method.schema), "example": {"results": method.results}}},
    }
