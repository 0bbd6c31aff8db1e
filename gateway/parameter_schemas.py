"""Parameters of a version as JSON Schema: what its own OpenAPI document says of MLflow's `params`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from model_store.parameters import Parameter

Json = dict[str, Any]

TYPES: Mapping[str, Json] = {
    "boolean": {"type": ["boolean", "null"]},
    "integer": {"type": ["integer", "null"]},
    "long": {"type": ["integer", "null"]},
    "float": {"type": ["number", "null"]},
    "double": {"type": ["number", "null"]},
    "string": {"type": ["string", "null"]},
    "datetime": {"type": ["string", "null"], "description": "A moment or a date as ISO 8601 writes it."},
    "object": {"type": ["object", "null"]},
}


def parameters_schema(parameters: tuple[Parameter, ...]) -> Json:
    """The object of all of them; each may be left out, and other names are ignored."""
    return {"type": ["object", "null"], "properties": {one.name: _value(one) for one in parameters}}


def _value(parameter: Parameter) -> Json:
    single = TYPES[parameter.type]
    return ({"type": "array", "items": single} if parameter.listed else single) | {"default": parameter.default}
