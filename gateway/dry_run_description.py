"""The OpenAPI description of dry runs, a query parameter of every prediction's path."""

from __future__ import annotations

from typing import Any

from gateway.dry_runs import PARAMETER

Json = dict[str, Any]

DRY_RUN_PARAMETER: Json = {
    "name": PARAMETER,
    "in": "query",
    "description": (
        "`true` runs nothing: 200 tells how the body is read, and 400 what is wrong with it, beside what the version "
        "takes (`expected`), what came (`received`) and a body that works (`example`; `example_at` where that is long)."
    ),
    "schema": {"type": "boolean", "default": False},
}
DRY_RUN_SCHEMAS: dict[str, Json] = {
    "DryRun": {
        "type": "object",
        "description": "How a request is read, where `validate_only` asked for no more.",
        "required": ["valid", "model", "version", "dialect", "instances", "inputs"],
        "properties": {
            "valid": {"const": True},
            "model": {"type": "string"},
            "version": {"type": "string"},
            "dialect": {"type": "string"},
            "instances": {"type": "integer", "minimum": 1, "description": "How many would run."},
            "inputs": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["name", "dtype", "shape"],
                    "properties": {
                        "name": {"type": "string"},
                        "dtype": {"type": "string"},
                        "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}},
                    },
                },
            },
        },
    }
}
EXAMPLE: Json = {
    "valid": True,
    "model": "linear",
    "version": "1",
    "dialect": "tensorflow_serving",
    "instances": 2,
    "inputs": [{"name": "x", "dtype": "float32", "shape": [2, 2]}],
}
JSON = "application/json"


def with_dry_runs(paths: dict[str, Json]) -> dict[str, Json]:
    """The path items of predictions, each of which answers a dry run as well."""
    return {path: {"post": _with_dry_run(item["post"])} for path, item in paths.items()}


def _with_dry_run(operation: Json) -> Json:
    answer = operation["responses"]["200"]
    content = answer["content"][JSON]
    schema = {"anyOf": [content["schema"], {"$ref": "#/components/schemas/DryRun"}]}
    shown = {"dry_run": {"summary": "to a dry run", "value": EXAMPLE}}
    examples = content.get("examples") or {"answer": {"summary": "the prediction", "value": content.get("example")}}
    answered = {**answer, "content": {**answer["content"], JSON: {"schema": schema, "examples": examples | shown}}}
    return {
        **operation,
        "parameters": [*operation.get("parameters", []), DRY_RUN_PARAMETER],
        "responses": {**operation["responses"], "200": answered},
    }
