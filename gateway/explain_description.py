"""The OpenAPI description of `:explain`, which FastAPI does not route either."""

from __future__ import annotations

from collections.abc import Sequence

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
from workers.protocols.explain_options import METHODS, MOST_PATCH

SIDE: Json = {"type": "integer", "minimum": 1, "maximum": MOST_PATCH}


def options_schema(inputs: Sequence[str] = (), outputs: Sequence[str] = ()) -> Json:
    """The member `explain` of a request; the names are those of one version, where it is about one."""
    return {
        "type": ["object", "null"],
        "description": "What to explain, and how; all of it may be left out, or null.",
        "additionalProperties": False,
        "properties": {
            "output": _name(outputs, "The output whose value is explained; the first, else."),
            "class": {
                "type": ["integer", "string", "null"],
                "minimum": 0,
                "description": "The class, by its number or name; of each instance the best, else.",
            },
            "method": {"type": ["string", "null"], "enum": [*METHODS, None]},
            "input": _name(inputs, "The only input of which parts are taken away; all of them, else."),
            "patch": {
                "description": "The length of what is taken away at once, or [rows, columns] of an image.",
                "anyOf": [SIDE, {"type": "array", "minItems": 2, "maxItems": 2, "items": SIDE}, {"type": "null"}],
            },
            "baseline": {
                "description": "What takes its place: a value, an instance, or a word of a text; 0, or nothing, else."
            },
            "overlay": {
                "type": ["boolean", "null"],
                "default": True,
                "description": "Whether images come with a picture.",
            },
        },
    }


def _name(names: Sequence[str], description: str) -> Json:
    return {"type": ["string", "null"], "description": description, **({"enum": [*names, None]} if names else {})}


EXPLANATION: Json = {
    "type": "object",
    "required": ["method", "output", "class", "score", "attributions"],
    "properties": {
        "method": {"type": "string", "enum": list(METHODS)},
        "output": {"type": "string"},
        "class": {"type": "integer"},
        "class_name": {"type": "string"},
        "score": {"description": "Of the instance as it is; NaN and infinities are bare tokens."},
        "attributions": {
            "type": "object",
            "description": "By input: an array of an instance's shape, or of a text a number for each word.",
        },
        "words": {"type": "object", "description": "By input that is a text: its words."},
        "overlays": {"type": "object", "description": "By input that is an image: a PNG as `b64`."},
    },
}
EXPLAIN_SCHEMAS: dict[str, Json] = {
    "ExplainRequest": {
        "description": "A `PredictRequest`, and what to explain of it.",
        "allOf": [
            reference("PredictRequest"),
            {"type": "object", "properties": {"explain": options_schema()}},
        ],
    },
    "Explanations": {
        "type": "object",
        "description": (
            "The predictions of the instances themselves, and an explanation of each: by how much the score of the "
            "class fell where a part of the input was taken away. NaN and infinities are bare tokens."
        ),
        "required": ["explanations"],
        "properties": {"predictions": {}, "outputs": {}, "explanations": {"type": "array", "items": EXPLANATION}},
    },
}
EXPLAIN_EXAMPLES: dict[str, Json] = {
    "linear": {"summary": "linear: one row", "value": {"instances": [[1.0, 2.0]]}},
    "linear_baseline": {
        "summary": "linear: against another row than zeros",
        "value": {"instances": [[1.0, 2.0]], "explain": {"class": 0, "baseline": [0.5, -1.5]}},
    },
}
EXPLAIN_ANSWER: Json = {
    "predictions": [[-0.6]],
    "explanations": [
        {
            "method": "occlusion",
            "output": "y",
            "class": 0,
            "score": -0.6,
            "attributions": {"x": [2.0, -6.8]},
        }
    ],
}


def explain_paths() -> dict[str, Json]:
    """The OpenAPI path items of `:explain`, by path template."""
    return {
        f"/v1/models/{{model}}{target}:explain": {"post": _operation(target, meaning)}
        for target, meaning in TARGETS.items()
    }


def _operation(target: str, meaning: str) -> Json:
    return {
        "tags": [TAG["name"]],
        "summary": f"Explain predictions of {meaning}",
        "description": (
            "Patches of an image, words of a text or features of a table are taken away one by one (occlusion). Each "
            "copy is an instance, and they run in a job at bulk priority, for which this waits as for a prediction."
        ),
        "operationId": operation_id("explain", target),
        "parameters": [*parameters(target), PREFER, *submit_options()],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": reference("ExplainRequest"), "examples": EXPLAIN_EXAMPLES}},
        },
        "responses": explain_responses(),
        "security": [{"token": [str(Scope.EXPLAIN)]}],
    }


def explain_responses() -> dict[str, Json]:
    """What `:explain` may answer."""
    answer = {"schema": reference("Explanations"), "example": EXPLAIN_ANSWER}
    return refusals() | {
        "200": {
            "description": "The explanations, one for each instance, by the version that the header names.",
            "headers": {"Sluice-Model-Version": header("The version that answered.")},
            "content": {"application/json": answer},
        },
        "202": accepted("The job, where it is not done in time, or `Prefer` asked for it."),
        "500": failure("The model failed on an instance, or on a copy with a part taken away."),
        "503": failure(
            "The version is not ready, its queue too old, the database away, or rights cannot be read.", retry=True
        ),
    }
