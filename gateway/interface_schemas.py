"""Schemas of one version's requests and answers, for its own OpenAPI document."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gateway.example_description import EXAMPLE_SCHEMAS
from gateway.explain_description import EXPLAIN_SCHEMAS, options_schema
from gateway.parameter_schemas import parameters_schema
from gateway.scoring_description import SCORING_SCHEMAS
from gateway.tensor_schemas import (
    ANSWERED_NUMBER,
    answered_tensor,
    answered_value,
    described,
    infer_tensor,
    nested_schema,
    scored_value,
    value_schema,
)
from model_store.further_signatures import NO_FURTHER, FurtherSignatures
from model_store.signature import STRING, Signature, TensorSpec
from workers.protocols.signature_names import PREDICT_METHOD, SIGNATURE_NAME, default_names

Json = dict[str, Any]

MOST_CLASSES_SHOWN = 1000
BEST: Json = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["index", "score"],
        "properties": {"index": {"type": "integer"}, "class": {"type": "string"}, "score": ANSWERED_NUMBER},
    },
}


@dataclass(frozen=True, slots=True)
class Interface:
    """What there is to say of a version: `most_instances` of one request, and what its classes are called.

    `further` is what callers choose by name.
    """

    signature: Signature
    most_instances: int
    class_names: tuple[str, ...] = ()
    further: FurtherSignatures = NO_FURTHER

    @property
    def beside(self) -> list[Interface]:
        """What there is to say of each of the further signatures."""
        return [Interface(one.signature, self.most_instances, self.class_names) for one in self.further.listed]


def schemas(interface: Interface) -> dict[str, Json]:
    """The schemas by name, as `components/schemas` has them."""
    signature = interface.signature
    inputs, outputs = " and ".join(map(described, signature.inputs)), " and ".join(map(described, signature.outputs))
    predict, further = _predict(interface), interface.beside
    options = options_schema([spec.name for spec in signature.inputs], [spec.name for spec in signature.outputs])
    return {
        "PredictRequest": _or_named(
            {"type": "object", "description": f"Takes {inputs}.", **predict},
            {one.signature.name: {"type": "object", **_predict(one)} for one in further},
        ),
        "PredictAnswer": _any_of(
            {"type": "object", "description": f"Gives {outputs}.", **_predicted(interface)},
            *({"type": "object", **_predicted(one)} for one in further),
        ),
        "ExamplesRequest": _or_named(_examples(interface), {one.signature.name: _examples(one) for one in further}),
        "ClassifyAnswer": EXAMPLE_SCHEMAS["ClassifyAnswer"],
        "RegressAnswer": EXAMPLE_SCHEMAS["RegressAnswer"],
        "ExplainRequest": {
            "type": "object",
            "description": f"Takes {inputs}, and what to explain.",
            **predict,
            "properties": predict["properties"] | {"explain": options},
        },
        "Explanations": EXPLAIN_SCHEMAS["Explanations"],
        "InferRequest": _any_of(_infer(signature), *(_infer_named(one.signature) for one in further)),
        "InferAnswer": {
            "type": "object",
            "required": ["model_name", "model_version", "outputs"],
            "properties": {
                "model_name": {"type": "string"},
                "model_version": {"type": "string"},
                "outputs": {
                    "type": "array",
                    "items": {"anyOf": [answered_tensor(spec) for spec in _outputs(interface)]},
                },
            },
        },
        "ScoringRequest": _scoring(interface),
        "ScoringAnswer": SCORING_SCHEMAS["ScoringAnswer"],
        "ScoringError": SCORING_SCHEMAS["ScoringError"],
    }


def _outputs(interface: Interface) -> list[TensorSpec]:
    return [spec for one in (interface, *interface.beside) for spec in one.signature.outputs]


def _or_named(own: Json, further: Mapping[str, Json]) -> Json:
    """A request to the default signature, or to another, which it names."""
    return _any_of(own, *(_naming(schema, {SIGNATURE_NAME: {"const": name}}) for name, schema in further.items()))


def _any_of(own: Json, *others: Json) -> Json:
    return {"anyOf": [own, *others]} if others else own


def _naming(schema: Json, naming: Json) -> Json:
    required = [*schema.get("required", ()), *naming]
    return {**schema, "required": required, "properties": schema["properties"] | naming}


def _infer_named(signature: Signature) -> Json:
    named: Json = {"const": signature.name}
    parameters = {"type": "object", "required": [SIGNATURE_NAME], "properties": {SIGNATURE_NAME: named}}
    return _naming(_infer(signature), {"parameters": parameters})


def _predict(interface: Interface) -> Json:
    """Rows where every input has instances, and columns; and the best classes in place of scores."""
    specs, most = interface.signature.inputs, interface.most_instances
    properties: Json = {
        "signature_name": {"type": "string", "enum": _signature_names(interface)},
        "inputs": _columns(specs, most),
    }
    forms: list[Json] = [{"required": ["inputs"]}]
    if all(spec.batched for spec in specs):
        properties["instances"] = _rows(specs, most)
        forms = [{"required": ["instances"]}, *forms]
    if _has_scores(interface.signature):
        properties["top_k"] = {"type": "integer", "minimum": 1, "description": "Only so many best classes."}
    return {"properties": properties, "oneOf": forms}


def _signature_names(interface: Interface) -> list[str]:
    return list(default_names(interface.signature, *interface.further.aliases, PREDICT_METHOD, ""))


def _rows(specs: tuple[TensorSpec, ...], most: int) -> Json:
    named = {
        "type": "object",
        "required": [spec.name for spec in specs],
        "properties": {spec.name: nested_schema(spec.shape[1:], value_schema(spec)) for spec in specs},
        "additionalProperties": False,
    }
    row = named if len(specs) > 1 else {"anyOf": [nested_schema(specs[0].shape[1:], value_schema(specs[0])), named]}
    return {"type": "array", "minItems": 1, "maxItems": most, "items": row}


def _columns(specs: tuple[TensorSpec, ...], most: int, value: Callable[[TensorSpec], Json] = value_schema) -> Json:
    named = {
        "type": "object",
        "required": [spec.name for spec in specs],
        "properties": {spec.name: nested_schema(spec.shape, value(spec), most) for spec in specs},
    }
    return named if len(specs) > 1 else {"anyOf": [nested_schema(specs[0].shape, value(specs[0]), most), named]}


def _predicted(interface: Interface) -> Json:
    specs = interface.signature.outputs
    rows = {spec.name: _output(spec, spec.shape[1:], interface) for spec in specs}
    columns = {spec.name: _output(spec, spec.shape, interface) for spec in specs}
    only = specs[0].name
    row = rows[only] if len(specs) == 1 else {"type": "object", "required": list(rows), "properties": rows}
    whole = columns[only] if len(specs) == 1 else {"type": "object", "required": list(columns), "properties": columns}
    return {
        "properties": {"predictions": {"type": "array", "items": row}, "outputs": whole},
        "oneOf": [{"required": ["predictions"]}, {"required": ["outputs"]}],
    }


def _output(spec: TensorSpec, shape: tuple[int | None, ...], interface: Interface) -> Json:
    """An output's values, or the best classes in their place; class names are told of those that have them."""
    found = nested_schema(shape, answered_value(spec))
    if not _has_scores(interface.signature):
        return found
    best = BEST if len(shape) == 1 else {"type": "array", "items": BEST}
    names = interface.class_names[:MOST_CLASSES_SHOWN]
    named = {"x-class-names": list(names)} if names and spec.shape[-1] == len(interface.class_names) else {}
    return {"anyOf": [found, best], **named}


def _has_scores(signature: Signature) -> bool:
    return all(spec.dtype != STRING and len(spec.shape) == 2 for spec in signature.outputs)


def _examples(interface: Interface) -> Json:
    specs = interface.signature.inputs
    example = {
        "type": "object",
        "required": [spec.name for spec in specs],
        "properties": {spec.name: {"description": described(spec)} for spec in specs},
    }
    listed = {"type": "array", "minItems": 1, "maxItems": interface.most_instances, "items": example}
    return {"type": "object", "required": ["examples"], "properties": {"examples": listed}}


def _infer(signature: Signature) -> Json:
    specs = signature.inputs
    names = [spec.name for spec in signature.outputs]
    wanted = {"type": "object", "required": ["name"], "properties": {"name": {"enum": names}}}
    return {
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": {"type": ["string", "null"], "maxLength": 1024},
            "inputs": {
                "type": "array",
                "minItems": len(specs),
                "maxItems": len(specs),
                "items": {"anyOf": [infer_tensor(spec) for spec in specs]},
            },
            "outputs": {"type": ["array", "null"], "items": wanted, "maxItems": len(names)},
        },
    }


def _scoring(interface: Interface) -> Json:
    """MLflow's `inputs`, the form that suits every signature; it takes tables and CSV too."""
    columns = _columns(interface.signature.inputs, interface.most_instances, scored_value)
    parameters = interface.signature.parameters
    params = {"params": parameters_schema(parameters)} if parameters else {}
    return {"type": "object", "required": ["inputs"], "properties": {"inputs": columns, **params}}
