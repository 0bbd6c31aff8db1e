"""TensorFlow Serving over gRPC as callers use it, through gateway, queue and worker as processes of their own."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping

import httpx
import numpy as np
import pytest

from gateway.grpc_services.messages import enum_number
from model_store.signature import Tensor
from tests.grpc_kit import connected, token_of
from tests.grpc_serving_kit import ServingCaller, examples, predict_request, read, refusal, request_of, spec_of
from tests.processes import Cluster, wait_for
from tests.serving import ended

ROWS = np.array([[0.1, -1e38], [np.float32(1) / 3, 2]], np.float32)


@pytest.fixture(scope="module")
def serving_caller(serving: Cluster, caller: httpx.Client) -> Iterator[ServingCaller]:
    """The same client as `caller`, over gRPC."""
    with connected(serving.grpc_addresses[0], token_of(caller)) as made:
        yield ServingCaller(made)


@pytest.mark.parametrize(
    ("spec", "version", "factor"),
    [
        (spec_of("times"), 2, 3),
        (spec_of("times", 1), 1, 2),
        (spec_of("times", version_label="stable"), 1, 2),
        (spec_of("times", 1, signature_name="serving_default"), 1, 2),
    ],
    ids=["latest", "version", "label", "signature"],
)
def test_an_answer_says_which_version_it_is_of_and_has_the_numbers_of_http(
    serving_caller: ServingCaller, caller: httpx.Client, spec: Mapping[str, object], version: int, factor: float
):
    answer = serving_caller.predict(spec, {"x": ROWS})
    found = answer.message
    assert (found.model_spec.name, found.model_spec.version.value) == ("times", version)
    assert found.model_spec.signature_name == "serving_default"
    assert read(found.outputs["y"]).tobytes() == (ROWS * np.float32(factor)).tobytes()
    # Where clients of TensorFlow Serving look, make_ndarray or not.
    assert list(found.outputs["y"].float_val) == (ROWS * np.float32(factor)).reshape(-1).tolist()
    other = caller.post(f"/v1/models/times/versions/{version}:predict", json={"instances": ROWS.tolist()}).json()
    assert read(found.outputs["y"]).tolist() == np.array(other["predictions"], np.float32).tolist()
    assert answer.trailers["sluice-model-version"] == str(version)


def test_integers_and_values_that_stand_for_several_reach_the_model(serving_caller: ServingCaller):
    request = request_of("Predict", model_spec=spec_of("whole"))
    request.inputs["n"].dtype = enum_number("tensorflow.DataType", "DT_INT64")
    request.inputs["n"].int64_val.extend([2**53 + 1])
    for size in (1, 3):
        request.inputs["n"].tensor_shape.dim.add(size=size)
    found = serving_caller.call("Predict", request).message
    assert list(found.outputs["doubled"].int64_val) == [2**54 + 2] * 3


def test_an_output_filter_names_the_outputs_that_are_wanted(serving_caller: ServingCaller):
    wanted = predict_request(spec_of("double"), {"x": ROWS}, output_filter=["y"])
    assert list(serving_caller.call("Predict", wanted).message.outputs) == ["y"]
    unknown = predict_request(spec_of("double"), {"x": ROWS}, output_filter=["z"])
    code, text = refusal(lambda: serving_caller.call("Predict", unknown))
    assert code == "INVALID_ARGUMENT"
    assert "z" in text


def test_a_large_tensor_goes_both_ways(serving_caller: ServingCaller):
    # Over the bound from which tensors are rewritten in a thread.
    rows = np.arange(2048, dtype=np.float32).reshape(1024, 2)
    request = predict_request(spec_of("double"), {"x": rows})
    request.model_spec.signature_name = "serving_default"
    found = serving_caller.call("Predict", request).message
    assert read(found.outputs["y"]).tolist() == (rows * 2).tolist()


@pytest.mark.parametrize(
    ("spec", "tensors", "code", "text"),
    [
        pytest.param({}, {"x": ROWS}, "INVALID_ARGUMENT", "Missing ModelSpec", id="nothing"),
        pytest.param(spec_of("unknown"), {"x": ROWS}, "NOT_FOUND", "request: Latest(unknown)", id="model"),
        pytest.param(spec_of("times", 9), {"x": ROWS}, "NOT_FOUND", "request: Specific(times, 9)", id="version"),
        pytest.param(spec_of("times", 2**62), {"x": ROWS}, "NOT_FOUND", f"Specific(times, {2**62})", id="no version"),
        pytest.param(spec_of("times/versions/1"), {"x": ROWS}, "NOT_FOUND", "Latest(times/versions/1)", id="a path"),
        pytest.param(
            spec_of("times", version_label="canary"),
            {"x": ROWS},
            "INVALID_ARGUMENT",
            "Unrecognized servable version label: canary",
            id="label",
        ),
        pytest.param(
            spec_of("times", version_label="a/b"),
            {"x": ROWS},
            "INVALID_ARGUMENT",
            "Unrecognized servable version label: a/b",
            id="no label",
        ),
        pytest.param(spec_of("unready"), {"x": ROWS}, "UNAVAILABLE", "is being prepared", id="unready"),
        pytest.param(
            spec_of("double", signature_name="other"),
            {"x": ROWS},
            "INVALID_ARGUMENT",
            'Serving signature name: "other" not found',
            id="signature",
        ),
        pytest.param(spec_of("double"), {"z": ROWS}, "INVALID_ARGUMENT", "z", id="input"),
        pytest.param(spec_of("double"), {"x": ROWS.astype(np.float64)}, "INVALID_ARGUMENT", "FP64", id="type"),
        pytest.param(spec_of("double"), {"x": ROWS[:, :1]}, "INVALID_ARGUMENT", "shape [-1,2]", id="shape"),
        pytest.param(spec_of("double"), {}, "INVALID_ARGUMENT", "input", id="no inputs"),
        pytest.param(spec_of("double"), {"x": ROWS[:0]}, "INVALID_ARGUMENT", "", id="no instances"),
    ],
)
def test_what_cannot_be_answered_is_refused_with_tensorflow_servings_code(
    serving_caller: ServingCaller, spec: Mapping[str, object], tensors: Mapping[str, Tensor], code: str, text: str
):
    found, told = refusal(lambda: serving_caller.predict(spec, tensors))
    assert found == code
    assert text in told


def test_a_preferred_job_has_its_address_beside_an_empty_answer(serving_caller: ServingCaller, caller: httpx.Client):
    answer = serving_caller.predict(spec_of("double"), {"x": ROWS}, ("prefer", "respond-async"))
    assert answer.trailers["preference-applied"] == "respond-async"
    assert (answer.message.model_spec.version.value, len(answer.message.outputs)) == (1, 0)
    place = answer.trailers["location"]
    assert ended(caller, place.removeprefix("/v1/jobs/"))["state"] == "succeeded"
    assert caller.get(f"{place}/result").content.endswith((ROWS * np.float32(2)).tobytes())
    classify = request_of("Classification", model_spec=spec_of("double"), input=examples({"x": [1.0, 2.0]}))
    of_examples = serving_caller.call("Classify", classify, ("prefer", "respond-async"))
    assert not of_examples.message.result.classifications
    assert ended(caller, of_examples.trailers["location"].removeprefix("/v1/jobs/"))["state"] == "succeeded"


def test_who_names_a_signature_of_a_hidden_model_is_in_the_audit_log(serving: Cluster):
    with serving.caller("times") as other:
        request = predict_request(spec_of("double", signature_name="other"), {"x": ROWS})
        with connected(serving.grpc_addresses[0], token_of(other)) as made:
            assert refusal(lambda: ServingCaller(made).call("Predict", request))[0] == "NOT_FOUND"
        identity = json.loads(base64.urlsafe_b64decode(token_of(other).split(".")[1] + "=="))["sub"]
        asked = {"act": "predict", "outcome": "refused", "identity": identity}
        wait_for(lambda: other.get("/admin/audit", params=asked).json()["entries"], 20)


def test_a_call_without_a_token_or_a_grant_is_refused(serving: Cluster):
    request = predict_request(spec_of("double"), {"x": ROWS})
    with connected(serving.grpc_addresses[0]) as stranger:
        assert refusal(lambda: ServingCaller(stranger).call("Predict", request))[0] == "UNAUTHENTICATED"
    with serving.caller("times") as other, connected(serving.grpc_addresses[0], token_of(other)) as made:
        asked = (request, predict_request(spec_of("double", signature_name="other"), {"x": ROWS}))
        assert {refusal(lambda one=one: ServingCaller(made).call("Predict", one)) for one in asked} == {
            ("NOT_FOUND", "Servable not found for request: Latest(double)")
        }
