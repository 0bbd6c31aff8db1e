"""The OpenAPI description of MLflow's invocations, which FastAPI does not route either."""

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

SCORING_TAG: Json = {
    "name": "MLflow scoring",
    "description": (
        "What MLflow's model servers speak, with a bearer token added: `/models/{model}` is the base URL of a model's "
        "own server. Errors are `error_code` and `message`, without stack traces."
    ),
}
SCORING_EXAMPLES: dict[str, Json] = {
    "linear": {"summary": "linear: two rows as a tensor", "value": {"inputs": [[1.0, 2.0], [0.5, -1.5]]}},
    "linear_split": {
        "summary": "linear: the same as a table",
        "value": {"dataframe_split": {"columns": ["a", "b"], "data": [[1.0, 2.0], [0.5, -1.5]]}},
    },
    "linear_records": {
        "summary": "linear: the same as records",
        "value": {"dataframe_records": [{"a": 1.0, "b": 2.0}, {"a": 0.5, "b": -1.5}]},
    },
}
SCORING_ANSWER: Json = {"predictions": [[-0.6], [10.3]]}
FORMS = ("dataframe_split", "dataframe_records", "instances", "inputs")
SCORING_SCHEMAS: dict[str, Json] = {
    "ScoringRequest": {
        "type": "object",
        "description": (
            "Exactly one of `dataframe_split`, `dataframe_records`, `instances` and `inputs`. A single input takes the "
            "column of its name, or all columns in their order; each of several takes the column of its name, and "
            "other columns are dropped. null is NaN where a float is wanted."
        ),
        "properties": {
            "dataframe_split": {
                "type": "object",
                "required": ["data"],
                "properties": {
                    "columns": {"type": ["array", "null"], "items": {"type": ["string", "integer"]}},
                    "index": {"type": ["array", "null"], "items": {}},
                    "data": {"type": "array", "minItems": 1, "items": {"type": "array", "items": {}}},
                },
                "additionalProperties": False,
            },
            "dataframe_records": {"type": "array", "minItems": 1, "items": {"type": "object"}},
            "instances": {"type": "array", "minItems": 1, "items": {}},
            "inputs": {"description": "A tensor as nested lists, or an object of tensors by input name."},
            "params": {
                "type": ["object", "null"],
                "description": (
                    "Checked by the params of a model that came from MLflow with such; other names are ignored. No "
                    "answer depends on them."
                ),
            },
        },
        "oneOf": [{"required": [form]} for form in FORMS],
    },
    "ScoringAnswer": {
        "type": "object",
        "description": "Of a single output the nested lists, of several an object of them by name.",
        "required": ["predictions"],
        "properties": {"predictions": {}},
    },
    "ScoringError": {
        "type": "object",
        "description": "An error as MLflow writes it; there is never a stack trace.",
        "required": ["error_code", "message"],
        "properties": {"error_code": {"type": "string"}, "message": {"type": "string"}},
    },
}
CSV: Json = {
    "schema": {"type": "string"},
    "examples": {"linear": {"summary": "linear: a line of names, then the rows", "value": "a,b\n1.0,2.0\n0.5,-1.5\n"}},
}


def scoring_paths() -> dict[str, Json]:
    """The OpenAPI path items of `invocations`, by path template."""
    paths = {
        f"/models/{{model}}{target}/invocations": {"post": _operation(target, meaning, operation_id("invoke", target))}
        for target, meaning in TARGETS.items()
    }
    paths["/endpoints/{model}/invocations"] = {"post": _operation("", TARGETS[""], "invoke_endpoint")}
    return paths


def _operation(target: str, meaning: str, identifier: str) -> Json:
    return {
        "tags": [SCORING_TAG["name"]],
        "summary": f"Invoke {meaning}" + (", as MLflow's deployment client does" if "endpoint" in identifier else ""),
        "operationId": identifier,
        "parameters": [*parameters(target), PREFER, *submit_options()],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": reference("ScoringRequest"), "examples": SCORING_EXAMPLES},
                "text/csv": CSV,
            },
        },
        "responses": refusals()
        | {
            "200": {
                "description": "The predictions.",
                "headers": {"Sluice-Model-Version": header("The version that answered.")},
                "content": {"application/json": {"schema": reference("ScoringAnswer"), "example": SCORING_ANSWER}},
            },
            "202": accepted("The prediction is a job, as `Prefer` asked."),
            "415": failure("Neither JSON nor CSV, a charset other than UTF-8, or a Content-Encoding that is unknown."),
            "503": failure("The version is not ready, the queue is away, or rights cannot be read.", retry=True),
            "504": failure("The prediction took longer than the synchronous limit; nobody works on it any more."),
        },
        "security": [{"token": [str(Scope.PREDICT)]}],
    }
