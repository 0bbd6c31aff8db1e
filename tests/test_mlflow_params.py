"""Parameters that MLflow's signatures have: what a request may say of them, and what is kept of them with a version."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from gateway.model_interface import Facts, document
from model_store.model_settings import Metadata
from model_store.parameters import ParametersUnreadable, read_parameters
from model_store.signature import Signature
from tests.dialect_kit import LINEAR
from tests.open_inference_kit import contract_of
from workers.errors import InputInvalid
from workers.protocols import mlflow_scoring
from workers.protocols.body import Body, Dialect

ROWS = [[1.0, 2.0, 3.0]]
SCHEMA = [
    {"name": "temperature", "type": "double", "default": 0.7, "shape": None},
    {"name": "beams", "type": "long", "default": 4, "shape": None},
    {"name": "strict", "type": "boolean", "default": False, "shape": None},
    {"name": "stop", "type": "string", "default": ["."], "shape": [-1]},
    {"name": "since", "type": "datetime", "default": "2026-11-23T08:00:00", "shape": None},
    {"name": "more", "type": "object", "default": {"a": 1}, "shape": None},
]
KNOWING = replace(LINEAR, parameters=read_parameters(SCHEMA))


def refusal(params: object, signature: Signature = KNOWING) -> str:
    body = Body(json.dumps({"inputs": ROWS, "params": params}).encode(), Dialect.MLFLOW)
    try:
        request = mlflow_scoring.parse(body, contract_of(signature))
    except InputInvalid as error:
        return error.message
    assert request.tensors["x"].tolist() == ROWS
    return ""


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"temperature": 1},
        {"temperature": 0.5, "beams": 2, "strict": True, "stop": ["a", "b"], "since": "2026-11-23", "more": {}},
        {"temperature": None, "stop": []},
        {"another": "ignored", "beams": 3},
    ],
    ids=["none", "an integer for a float", "all", "null and an empty list", "a name that is not known"],
)
def test_values_of_their_types_are_taken_and_other_names_ignored(params: dict[str, object]):
    assert refusal(params) == ""


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"temperature": "hot"}, 'Invalid parameters found: {"temperature": the value is not of double}'),
        ({"temperature": [0.5]}, "the value is not of double"),
        ({"beams": 1.5}, '"beams": the value is not of long'),
        ({"beams": True}, '"beams": the value is not of long'),
        ({"strict": 1}, '"strict": the value is not of boolean'),
        ({"stop": "."}, '"stop": the value is no list of string'),
        ({"stop": None}, '"stop": the value is no list of string'),
        ({"stop": [".", 1]}, '"stop": not every value of the list is of string'),
        ({"since": "yesterday"}, '"since": the value is not of datetime'),
        ({"more": []}, '"more": the value is not of object'),
        ({"beams": "a", "strict": "b"}, '"beams": the value is not of long, "strict": the value is not of boolean'),
        ([1], "Parameters must be a dictionary. Got […]."),
    ],
)
def test_a_value_of_another_type_is_refused_by_its_name(params: object, said: str):
    assert said in refusal(params)


def test_a_signature_keeps_its_parameters_and_is_the_same_without_them():
    again = Signature.from_json(KNOWING.to_json())
    assert again.parameters == KNOWING.parameters
    assert (again, hash(again)) == (LINEAR, hash(LINEAR))
    assert "params" not in LINEAR.to_json()


def test_a_release_that_wrote_dtype_for_type_is_read_as_well():
    older = [{"name": "beams", "dtype": "long", "default": 4, "shape": None}]
    assert read_parameters(older) == (KNOWING.parameters[1],)


def nested(levels: int) -> dict[str, object]:
    """Objects in one another."""
    return {"k": nested(levels - 1)} if levels > 1 else {}


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"type": "long", "default": 1}], "one of them has no name"),
        ([{"name": "k", "type": "binary", "default": ""}], "'k' has another type than boolean"),
        ([{"name": "k", "type": "long", "default": "1"}], "the default of 'k' does not fit: the value is not of long"),
        ([{"name": "k", "type": "long", "default": 1, "shape": [2]}], "'k' is neither one value nor a list of them"),
        ([{"name": "k", "type": "long", "default": 1}] * 2, "two of them have the same name"),
        ([{"name": str(n), "type": "long", "default": 1} for n in range(65)], "there are 65 of them; 64 are kept"),
        ([{"name": "k", "type": "double", "default": float("1e999")}], "'k' is not what every reader of JSON can hold"),
        ([{"name": "k", "type": "long", "default": 2**63}], "'k' is not what every reader of JSON can hold"),
        ([{"name": "k", "type": "string", "default": "\ud800"}], "'k' is not what every reader of JSON can hold"),
        ([{"name": "\ud800", "type": "long", "default": 1}], "is not what every reader of JSON can hold"),
        ([{"name": "k", "type": "object", "default": nested(9)}], "'k' is not what every reader of JSON can hold"),
    ],
    ids=[
        *("no name", "another type", "another default", "another shape", "twice", "too many"),
        *("an infinite number", "a number that is too large", "half a character", "a name of half a character", "deep"),
    ],
)
def test_what_mlflow_does_not_write_of_params_is_refused(rows: list[dict[str, object]], said: str):
    with pytest.raises(ParametersUnreadable, match=said):
        read_parameters(rows)


def test_a_models_own_document_tells_its_parameters_and_their_defaults():
    scoring = document(Facts("m", 1, "", KNOWING, 8, Metadata()))["components"]["schemas"]["ScoringRequest"]
    described = scoring["properties"]["params"]["properties"]
    assert {name: one["default"] for name, one in described.items()} == {row["name"]: row["default"] for row in SCHEMA}
    assert described["stop"]["items"] == {"type": ["string", "null"]}
