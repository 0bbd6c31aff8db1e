"""Examples, signatures and states in TensorFlow Serving over gRPC, through processes of their own."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from gateway.grpc_services.messages import Fields, enum_number, message
from tests.grpc_kit import connected, token_of
from tests.grpc_serving_kit import ServingCaller, examples, refusal, request_of, spec_of
from tests.processes import Cluster


@pytest.fixture(scope="module")
def serving_caller(serving: Cluster, caller: httpx.Client) -> Iterator[ServingCaller]:
    """The same client as `caller`, over gRPC."""
    with connected(serving.grpc_addresses[0], token_of(caller)) as made:
        yield ServingCaller(made)


# Classify, Regress, MultiInference


def test_examples_are_classified_with_their_context(serving_caller: ServingCaller):
    given = examples({"x": [1.0, 2.5]}, {}, context={"x": [3, 4]})
    request = request_of("Classification", model_spec=spec_of("times", version_label="stable"), input=given)
    found = serving_caller.call("Classify", request).message
    assert (found.model_spec.name, found.model_spec.version.value) == ("times", 1)
    told = [[(one.label, one.score) for one in row.classes] for row in found.result.classifications]
    assert told == [[("", 2), ("", 5)], [("", 6), ("", 8)]]


def test_a_regression_is_one_value_an_example(serving_caller: ServingCaller):
    request = request_of("Regression", model_spec=spec_of("table"), input=examples({"n": [3]}, {"n": [0]}))
    found = serving_caller.call("Regress", request).message
    assert [one.value for one in found.result.regressions] == [3.5, 0.5]


def test_several_inferences_share_their_examples(serving_caller: ServingCaller):
    tasks = [
        {"model_spec": spec_of("times", version), "method_name": "tensorflow/serving/classify"} for version in (1, 2)
    ]
    request = request_of("MultiInference", tasks=tasks, input=examples({"x": [1.0, 2.5]}))
    found = serving_caller.call("MultiInference", request).message
    assert [one.model_spec.version.value for one in found.results] == [1, 2]
    scores = [
        [one.score for one in result.classification_result.classifications[0].classes] for result in found.results
    ]
    assert scores == [[2, 5], [3, 7.5]]
    task = {"model_spec": spec_of("table"), "method_name": "tensorflow/serving/regress"}
    request = request_of("MultiInference", tasks=[task], input=examples({"n": [1]}))
    found = serving_caller.call("MultiInference", request).message
    assert found.results[0].regression_result.regressions[0].value == 1.5


def test_several_inferences_are_no_job_whose_address_nobody_would_be_told(serving_caller: ServingCaller):
    preferred = ("prefer", "respond-async")
    given = examples({"x": [1.0, 2.5]})
    one, several = (request_of("MultiInference", tasks=[TASK] * count, input=given) for count in (1, 2))
    assert serving_caller.call("MultiInference", one, preferred).trailers["location"].startswith("/v1/jobs/")
    code, told = refusal(lambda: serving_caller.call("MultiInference", several, preferred))
    assert (code, "call Classify or Regress for each" in told) == ("INVALID_ARGUMENT", True)


TASK = {"model_spec": {"name": "double"}, "method_name": "tensorflow/serving/classify"}


@pytest.mark.parametrize(
    ("name", "request_made", "code", "text"),
    [
        pytest.param(
            "Classify",
            request_of("Classification", model_spec=spec_of("double")),
            "INVALID_ARGUMENT",
            "Input is empty",
            id="no input",
        ),
        pytest.param(
            "Classify",
            request_of("Classification", model_spec=spec_of("double"), input=examples()),
            "INVALID_ARGUMENT",
            "'examples' value is an empty array",
            id="no examples",
        ),
        pytest.param(
            "Classify",
            request_of("Classification", model_spec=spec_of("double", signature_name="a"), input=examples({})),
            "INVALID_ARGUMENT",
            "not found in signature def",
            id="signature",
        ),
        pytest.param(
            "Regress",
            request_of("Regression", model_spec=spec_of("double"), input=examples({})),
            "INVALID_ARGUMENT",
            "Expected Regression Outputs Tensor shape",
            id="no value",
        ),
        pytest.param(
            "Regress",
            request_of("Regression", model_spec=spec_of("table"), input=examples({})),
            "INVALID_ARGUMENT",
            "Feature: n (data type: int64) is required",
            id="no feature",
        ),
        pytest.param(
            "Regress",
            request_of("Regression", model_spec=spec_of("nothing"), input=examples({})),
            "NOT_FOUND",
            "request: Latest(nothing)",
            id="no model",
        ),
        pytest.param(
            "MultiInference",
            request_of("MultiInference", input=examples({})),
            "INVALID_ARGUMENT",
            "1 to 16 inference tasks",
            id="no tasks",
        ),
        pytest.param(
            "MultiInference",
            request_of("MultiInference", tasks=[TASK] * 17),
            "INVALID_ARGUMENT",
            "1 to 16 inference tasks",
            id="too many tasks",
        ),
        pytest.param(
            "MultiInference",
            request_of("MultiInference", tasks=[TASK, TASK | {"model_spec": {"name": "table"}}]),
            "INVALID_ARGUMENT",
            "must access the same model name",
            id="two models",
        ),
        pytest.param(
            "MultiInference",
            request_of("MultiInference", tasks=[TASK | {"method_name": "predict"}]),
            "UNIMPLEMENTED",
            "Unsupported signature method_name: predict",
            id="another method",
        ),
        pytest.param(
            "GetModelMetadata",
            request_of("GetModelMetadata", model_spec=spec_of("double")),
            "INVALID_ARGUMENT",
            "at least one metadata_field",
            id="no field",
        ),
        pytest.param(
            "GetModelMetadata",
            request_of("GetModelMetadata", model_spec=spec_of("double"), metadata_field=["a"]),
            "INVALID_ARGUMENT",
            "Metadata field a is not supported",
            id="another field",
        ),
        pytest.param(
            "GetModelStatus",
            request_of("GetModelStatus", model_spec=spec_of("nothing")),
            "NOT_FOUND",
            "request: Latest(nothing)",
            id="status of nothing",
        ),
        pytest.param(
            "HandleReloadConfigRequest",
            request_of("ReloadConfig"),
            "UNIMPLEMENTED",
            "there is no configuration to reload",
            id="reload",
        ),
    ],
)
def test_other_calls_are_refused_with_tensorflow_servings_code(
    serving_caller: ServingCaller, name: str, request_made: Fields, code: str, text: str
):
    found, told = refusal(lambda: serving_caller.call(name, request_made))
    assert found == code
    assert text in told


# Metadata and status


def test_the_metadata_are_those_of_http(serving_caller: ServingCaller, caller: httpx.Client):
    request = request_of(
        "GetModelMetadata", model_spec=spec_of("times", version_label="stable"), metadata_field=["signature_def"]
    )
    found = serving_caller.call("GetModelMetadata", request).message
    assert (found.model_spec.name, found.model_spec.version.value) == ("times", 1)
    packed = found.metadata["signature_def"]
    assert packed.type_url == "type.googleapis.com/tensorflow.serving.SignatureDefMap"
    signatures: Fields = message("tensorflow.serving.SignatureDefMap").FromString(packed.value)
    other = caller.get("/v1/models/times/labels/stable/metadata").json()["metadata"]["signature_def"]["signature_def"]
    assert {name: one.method_name for name, one in signatures.signature_def.items()} == {
        name: one["method_name"] for name, one in other.items()
    }
    given = signatures.signature_def["serving_default"].inputs["x"]
    assert (given.name, given.dtype) == ("serving_default_x:0", enum_number("tensorflow.DataType", "DT_FLOAT"))
    assert [dimension.size for dimension in given.tensor_shape.dim] == [-1, 2]


def test_the_status_is_that_of_http(serving_caller: ServingCaller):
    found = serving_caller.call("GetModelStatus", request_of("GetModelStatus", model_spec=spec_of("times"))).message
    states = [
        (one.version, one.state, one.status.error_code, one.status.error_message) for one in found.model_version_status
    ]
    assert states == [(2, 30, 0, ""), (1, 30, 0, "")]
    unready = serving_caller.call("GetModelStatus", request_of("GetModelStatus", model_spec=spec_of("unready"))).message
    assert [one.state for one in unready.model_version_status] == [10]
    labelled = request_of("GetModelStatus", model_spec=spec_of("times", version_label="stable"))
    assert [one.version for one in serving_caller.call("GetModelStatus", labelled).message.model_version_status] == [1]
