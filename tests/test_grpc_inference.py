"""Inference over gRPC as callers use it, through gateway, queue and worker as processes of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import httpx
import numpy as np
import pytest

from gateway.grpc_services.messages import Fields, message
from tests.grpc_kit import GrpcCaller, Refused, connected, infer_request, outputs_of, token_of
from tests.live_gateway import eventually
from tests.processes import Cluster
from tests.serving import ended, paused_workers

ROWS = np.array([[0.1, 1e-30], [np.float32(1) / 3, 3.4e38]], np.float32)
WAITING_FOR_DOUBLE = 'sluice_waiting_requests{model="double"'
WORDS = np.array([[b"Some words"], [b"\xf0\x9f\x90\x9f"]], object)


@pytest.fixture(scope="module")
def grpc_caller(serving: Cluster, caller: httpx.Client) -> Iterator[GrpcCaller]:
    """The same client as `caller`, over gRPC."""
    with connected(serving.grpc_addresses[0], token_of(caller)) as made:
        yield made


def refusal(call: Callable[[], object]) -> tuple[str, str]:
    """Code and text of a call that fails."""
    with pytest.raises(Refused) as caught:
        call()
    return caught.value.code, caught.value.text


@pytest.mark.parametrize("typed", [False, True], ids=["raw", "typed"])
def test_an_answer_has_the_numbers_of_http_in_the_form_of_its_request(
    grpc_caller: GrpcCaller, caller: httpx.Client, typed: bool
):
    other = caller.post("/v1/models/double:predict", json={"instances": ROWS.tolist()})
    answer = grpc_caller.infer("double", {"x": ROWS}, typed=typed, id="order-0815")
    found = answer.message
    assert (found.model_name, found.model_version, found.id) == ("double", "1", "order-0815")
    assert [(output.datatype, list(output.shape)) for output in found.outputs] == [("FP32", [2, 2])]
    assert bool(found.raw_output_contents) == (not typed)
    assert outputs_of(found)["y"].tobytes() == np.array(other.json()["predictions"], np.float32).tobytes()
    assert answer.trailers["sluice-model-version"] == "1"
    assert answer.trailers["x-request-id"]


@pytest.mark.parametrize("typed", [False, True], ids=["raw", "typed"])
def test_integers_and_strings_come_back_as_they_were(grpc_caller: GrpcCaller, serving: Cluster, typed: bool):
    numbers = np.array([[-1, 0, 2**53 + 1]], np.int64)
    assert outputs_of(grpc_caller.infer("whole", {"n": numbers}, typed=typed).message)["doubled"].tolist() == [
        [-2, 0, 2**54 + 2]
    ]
    with serving.caller("words") as reader, connected(serving.grpc_addresses[0], token_of(reader)) as words:
        assert outputs_of(words.infer("words", {"x": WORDS}, typed=typed).message)["y"].shape == (2, 1)


def test_a_version_in_the_message_is_the_one_that_answers(grpc_caller: GrpcCaller):
    for version, factor in (("1", 2), ("2", 3), ("", 3)):
        found = grpc_caller.infer("times", {"x": ROWS[:1]}, model_version=version)
        assert outputs_of(found.message)["y"].tolist() == (ROWS[:1] * np.float32(factor)).tolist()


def test_parameters_and_requested_outputs_reach_the_model(grpc_caller: GrpcCaller):
    request = infer_request("double", {"x": ROWS})
    request.parameters["priority"].uint64_param = 1
    request.outputs.add(name="y").parameters["classification"].int64_param = 1
    found = grpc_caller.call("ModelInfer", request).message
    assert found.outputs[0].datatype == "BYTES"
    assert [text.split(b":")[1] for text in outputs_of(found)["y"].reshape(-1)] == [b"0", b"1"]


def test_a_preferred_job_answers_with_its_id_and_its_result_is_there_over_http(
    grpc_caller: GrpcCaller, caller: httpx.Client
):
    answer = grpc_caller.infer("double", {"x": ROWS[:1]}, ("prefer", "respond-async"), id="mine")
    found = answer.message
    assert (found.model_name, found.model_version, found.id, len(found.outputs)) == ("double", "1", "mine", 0)
    job = found.parameters["sluice_job_id"].string_param
    assert found.parameters["sluice_job_state"].string_param == "queued"
    assert answer.trailers["location"] == f"/v1/jobs/{job}"
    assert answer.trailers["preference-applied"] == "respond-async"
    assert ended(caller, job)["state"] == "succeeded"
    result = caller.get(f"/v1/jobs/{job}/result")
    assert result.content.endswith((ROWS[:1] * np.float32(2)).tobytes())


def test_a_job_that_is_waited_for_answers_with_its_result(grpc_caller: GrpcCaller):
    found = grpc_caller.infer("double", {"x": ROWS[:1]}, ("prefer", "wait=20"), typed=True).message
    assert outputs_of(found)["y"].tolist() == (ROWS[:1] * np.float32(2)).tolist()


def test_a_stream_answers_each_request_in_order_and_outlives_one_that_fails(grpc_caller: GrpcCaller):
    kind = message("inference.ModelStreamInferResponse")
    stream = grpc_caller.channel.stream_stream(
        "/inference.GRPCInferenceService/ModelStreamInfer",
        request_serializer=lambda one: one.SerializeToString(),
        response_deserializer=kind.FromString,
    )
    models = ["double", "nothing", "double"]
    requests = (infer_request(model, {"x": ROWS[:1]}, id=str(number)) for number, model in enumerate(models))
    answers: list[Fields] = list(stream(requests, metadata=grpc_caller.metadata, timeout=30))
    assert [answer.infer_response.id for answer in answers] == ["0", "1", "2"]
    assert [answer.error_message for answer in answers] == ["", "Request for unknown model: 'nothing' is not found", ""]
    assert outputs_of(answers[2].infer_response)["y"].tolist() == (ROWS[:1] * np.float32(2)).tolist()


def test_a_call_whose_deadline_passes_waits_no_more(grpc_caller: GrpcCaller, caller: httpx.Client, serving: Cluster):
    def waiting() -> set[str]:
        text = caller.get("/metrics").text
        return {line.rpartition(" ")[2] for line in text.splitlines() if line.startswith(WAITING_FOR_DOUBLE)}

    with paused_workers(serving):
        request = infer_request("double", {"x": ROWS})
        assert refusal(lambda: grpc_caller.call("ModelInfer", request, seconds=3))[0] == "DEADLINE_EXCEEDED"
        assert refusal(lambda: grpc_caller.call("ModelInfer", request, seconds=0))[0] == "DEADLINE_EXCEEDED"
        eventually(lambda: waiting() <= {"0.0"})
    # Whoever asks next is answered.
    assert outputs_of(grpc_caller.infer("double", {"x": ROWS}).message)["y"].shape == (2, 2)


def test_a_large_tensor_goes_both_ways(grpc_caller: GrpcCaller):
    # Over the bound from which tensors are rewritten in a thread; the model takes at most 1,024 instances of 2.
    rows = np.arange(2048, dtype=np.float32).reshape(1024, 2)
    for typed in (True, False):
        request = infer_request("double", {"x": rows}, typed=typed)
        request.parameters["note"].string_param = "n" * 100_000
        assert outputs_of(grpc_caller.call("ModelInfer", request).message)["y"].tolist() == (rows * 2).tolist()


def test_metadata_that_are_no_callers_to_say_are_left_out(grpc_caller: GrpcCaller):
    odd = [
        ("inference-header-content-length", "7"),
        ("content-encoding", "gzip"),
        ("accept-encoding", "gzip"),
        ("cookie", "a=b"),
        ("x-request-id", "order-0815"),
    ]
    answer = grpc_caller.infer("double", {"x": ROWS}, *odd)
    assert outputs_of(answer.message)["y"].shape == (2, 2)
    assert answer.trailers["x-request-id"] == "order-0815"


def with_both(request: Fields) -> None:
    request.inputs[0].contents.fp32_contents.append(1.0)


def with_one_too_many(request: Fields) -> None:
    request.raw_input_contents.append(b"")


def without_contents(request: Fields) -> None:
    del request.raw_input_contents[:]


def with_a_datatype_nobody_knows(request: Fields) -> None:
    request.inputs[0].datatype = "FP128"


def with_typed_halves(request: Fields) -> None:
    del request.raw_input_contents[:]
    request.inputs[0].datatype = "FP16"
    request.inputs[0].contents.fp32_contents.append(1.0)


def with_contents_of_another_type(request: Fields) -> None:
    del request.raw_input_contents[:]
    request.inputs[0].contents.int_contents.append(1)


def with_too_few_values(request: Fields) -> None:
    del request.raw_input_contents[:]
    request.inputs[0].contents.fp32_contents.append(1.0)


def with_a_value_that_does_not_fit(request: Fields) -> None:
    del request.raw_input_contents[:]
    request.inputs[0].datatype = "INT8"
    request.inputs[0].contents.int_contents.extend([1, 2, 3, 128])


def with_an_empty_parameter(request: Fields) -> None:
    request.parameters["nothing"].SetInParent()


def with_another_shape(request: Fields) -> None:
    request.inputs[0].shape[1] = 3


@pytest.mark.parametrize(
    ("spoiled", "told"),
    [
        (with_both, "inputs[0] has contents, but the request has raw_input_contents"),
        (with_one_too_many, "raw_input_contents has 2 tensors, but there are 1 inputs"),
        (without_contents, "inputs[0] has no contents"),
        (with_a_datatype_nobody_knows, "inputs[0].datatype 'FP128' is unknown"),
        (with_typed_halves, "FP16 has no typed contents"),
        (with_contents_of_another_type, "inputs[0].contents has int_contents, but FP32 is in fp32_contents"),
        (with_too_few_values, "inputs[0].contents has 1 values, but shape [2,2] takes 4"),
        (with_a_value_that_does_not_fit, "inputs[0].contents has a value that INT8 has no room for"),
        (with_an_empty_parameter, "the parameter 'nothing' has no value"),
        (with_another_shape, "input 'x' takes FP32 of shape [-1,2]"),
    ],
    ids=lambda case: getattr(case, "__name__", ""),
)
def test_a_request_that_cannot_be_read_is_refused_with_its_place(
    grpc_caller: GrpcCaller, spoiled: Callable[[Fields], None], told: str
):
    request = infer_request("double", {"x": ROWS})
    spoiled(request)
    code, text = refusal(lambda: grpc_caller.call("ModelInfer", request))
    assert code == "INVALID_ARGUMENT"
    assert told in text


@pytest.mark.parametrize(
    ("model", "version", "code"),
    [
        ("nothing", "", "NOT_FOUND"),
        ("double", "9", "NOT_FOUND"),
        ("unready", "", "UNAVAILABLE"),
        ("double", "first", "INVALID_ARGUMENT"),
        # A name does not break out of its place in a path.
        ("double/versions/1", "", "NOT_FOUND"),
        ("../../admin/keys/rotate#", "", "NOT_FOUND"),
    ],
)
def test_what_does_not_answer_says_so_by_its_code(grpc_caller: GrpcCaller, model: str, version: str, code: str):
    assert refusal(lambda: grpc_caller.infer(model, {"x": ROWS}, model_version=version))[0] == code


def test_a_version_that_is_not_ready_says_when_to_call_again(grpc_caller: GrpcCaller):
    with pytest.raises(Refused) as caught:
        grpc_caller.infer("unready", {"x": ROWS})
    assert caught.value.trailers["grpc-retry-pushback-ms"] == "1000"
