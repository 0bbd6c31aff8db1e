"""Bodies take no value of another type of JSON than the OpenAPI document says: false is no 0, and "1" is no 1."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from fastapi.routing import iter_route_contexts
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from tests.test_scopes_of_routes import application

# A value, and the types of JSON Schema that it is of. Whole numbers are integers before they come here.
VALUES: list[tuple[object, frozenset[str]]] = [
    (False, frozenset({"boolean"})),
    (1, frozenset({"integer", "number"})),
    (1.5, frozenset({"number"})),
    ("1", frozenset({"string"})),
    ("true", frozenset({"string"})),
]


def bodies(annotation: object) -> Iterator[type[BaseModel]]:
    """The models in an annotation, and those of their fields."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
        for field in annotation.model_fields.values():
            yield from bodies(field.annotation)
    for inner in typing.get_args(annotation):
        yield from bodies(inner)


def fields_of_bodies(folder: Path) -> dict[tuple[type[BaseModel], str], FieldInfo]:
    """Each field of each model that a route of the interface reads from a body."""
    return {
        (model, name): field
        for route in iter_route_contexts(application(folder).routes)
        for parameter in getattr(getattr(route, "dependant", None), "body_params", ())
        for model in bodies(parameter.field_info.annotation)
        for name, field in model.model_fields.items()
    }


def types_in(schema: dict[str, typing.Any], adapter: TypeAdapter[typing.Any]) -> set[str]:
    """The types of JSON that a schema takes, at its top."""
    if "$ref" in schema:
        return types_in(adapter.json_schema()["$defs"][schema["$ref"].rpartition("/")[2]], adapter)
    inner = schema.get("anyOf", []) + schema.get("oneOf", [])
    return {schema["type"]} if "type" in schema else {kind for one in inner for kind in types_in(one, adapter)}


def test_a_body_takes_no_value_of_another_type_than_documented(tmp_path: Path):
    fields = fields_of_bodies(tmp_path)
    assert len(fields) > 60
    loose = []
    for (model, name), field in fields.items():
        adapter: TypeAdapter[typing.Any] = TypeAdapter(Annotated[field.annotation, field])
        documented = types_in(adapter.json_schema(), adapter)
        for value, kinds in VALUES:
            if kinds & documented:
                continue
            try:
                adapter.validate_python(value)
            except ValidationError:
                continue
            loose.append(f"{model.__module__}.{model.__name__}.{name}: {value!r} is taken as {sorted(documented)}")
    assert not loose, "\n".join(loose)
