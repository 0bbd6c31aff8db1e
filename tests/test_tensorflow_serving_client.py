"""The package `tensorflow-serving-api` as a client over gRPC, in an environment of its own."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.grpc_services.messages import Fields, pool
from tests.foreign_clients import serve_texts, token_of, visit
from tests.processes import Cluster, wait_for
from tests.serving_models import serve_every_dtype, serve_halves

pytestmark = pytest.mark.long  # its packages are fetched, and TensorFlow is imported


@pytest.fixture(scope="module")
def found(serving: Cluster) -> dict[str, Any]:
    """What the client found."""
    serve_halves(serving)
    serve_texts(serving, "texts")
    names = ["double", "times", "half_plus_two", "texts", *serve_every_dtype(serving)]
    caller = serving.caller(*names)
    wait_for(lambda: len(caller.get("/v1/models").json()["models"]) == len(names), 20)
    asked = {"address": serving.grpc_addresses[0], "token": token_of(caller), "messages": sorted(described())}
    return visit("tensorflow_serving_client", asked)


def described() -> dict[str, dict[str, list[object]]]:
    """Fields of our messages under TensorFlow's names: number, type, whether repeated, and the type's own name."""
    found: dict[str, dict[str, list[object]]] = {}
    waiting: list[Fields] = [
        message
        for file in ("tensorflow_framework.proto", "tensorflow_serving.proto")
        for message in pool().FindFileByName(file).message_types_by_name.values()
    ]
    while waiting:
        one = waiting.pop()
        waiting += one.nested_types
        found[one.full_name] = {
            field.name: [
                field.number,
                field.type,
                field.is_repeated,
                getattr(field.message_type or field.enum_type, "full_name", ""),
            ]
            for field in one.fields
        }
    return found


def test_predictions_are_made_and_read_as_tensorflows_users_do(found: dict[str, Any]):
    told = found["predictions"]
    assert told["answer"] == [[2.0, 4.0], [6.0, -9.0]]
    assert told["float_val"] == [2.0, 4.0, 6.0, -9.0]
    assert told["spec"] == ["times", 1, "serving_default"]
    assert (told["latest"], told["version"]) == (2, 1)
    assert told["one value for all"] == [[5.0, 5.0], [5.0, 5.0]]
    assert told["half_plus_two"] == [2.5, 3.0, 4.5]
    assert told["strings"] == ["Bär".encode().hex(), "610062"]


def test_a_tensor_of_every_dtype_comes_back_bit_by_bit(found: dict[str, Any]):
    assert all(found["dtypes"].values()), found["dtypes"]
    assert len(found["dtypes"]) == 9


def test_examples_are_classified_and_regressed(found: dict[str, Any]):
    told = found["examples"]
    assert told["classes"] == [[["", 2.0], ["", 4.0]], [["", 6.0], ["", -9.0]]]
    assert told["values"] == [2.5, 3.0]
    assert told["several"] == [[2.5, 3.0]]
    assert told["spec"] == ["half_plus_two", 1]


def test_metadata_and_status_are_understood(found: dict[str, Any]):
    told = found["models"]
    assert told["unpacked"] is True
    assert told["methods"] == {
        "serving_default": "tensorflow/serving/predict",
        "regression": "tensorflow/serving/regress",
    }
    assert told["input"] == [True, -1]
    assert told["states"] == [[2, "AVAILABLE", 0], [1, "AVAILABLE", 0]]
    assert told["reload"][0] == "UNIMPLEMENTED"


def test_refusals_have_tensorflow_servings_codes(found: dict[str, Any]):
    told = found["refusals"]
    assert told["model"] == ["NOT_FOUND", "Servable not found for request: Latest(nothing)"]
    assert told["version"] == ["NOT_FOUND", "Servable not found for request: Specific(double, 50)"]
    assert told["label"] == ["INVALID_ARGUMENT", "Unrecognized servable version label: canary"]
    assert told["signature"][0] == "INVALID_ARGUMENT"
    assert told["shape"][0] == "INVALID_ARGUMENT"
    assert told["status"] == ["NOT_FOUND", "Servable not found for request: Latest(nothing)"]
    assert told["token"][0] == "UNAUTHENTICATED"


def test_our_messages_have_the_packages_fields_under_their_numbers(found: dict[str, Any]):
    theirs, ours = found["messages"], described()
    assert "tensorflow.TensorProto" in ours
    for name, fields in ours.items():
        assert fields == {field: theirs[name].get(field) for field in fields}, name


def test_every_method_of_the_package_is_described_with_its_messages(found: dict[str, Any]):
    for name, methods in found["methods"].items():
        service: Fields = pool().FindServiceByName(name)
        ours = {one.name: [one.input_type.full_name, one.output_type.full_name] for one in service.methods}
        assert ours == methods
