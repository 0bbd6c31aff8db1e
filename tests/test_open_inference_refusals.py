"""The Open Inference Protocol: what is refused before any model runs, with the place and what was expected there."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest

from model_store.signature import Signature, TensorSpec
from tests.dialect_kit import LINEAR, TWO_INPUTS, signature_of, taking
from tests.open_inference_kit import binary_request, json_request, parse_infer
from workers.errors import InputInvalid
from workers.protocols.body import TEXT

ROW = np.array([[1.0, 2.0, 3.5]], np.float32)
TWO = {"size": np.array([[1.0, 2.0], [3.0, 4.0]], np.float32), "word": np.array([b"a", b"bc"], object)}


def one(**changes: object) -> bytes:
    """A request for LINEAR with its only input changed; None takes a member away."""
    described = {"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3], **changes}
    return json.dumps({"inputs": [{name: value for name, value in described.items() if value is not None}]}).encode()


X = {"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}

REFUSED: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "The document is empty"),
    "no object": (b"[1]", "Is not object"),
    "half a document": (b'{"inputs": [', "at offset: 12"),
    "two documents": (one() + b"{}", "Extra data"),
    "a key twice": (b'{"inputs": [], "inputs": []}', "given twice"),
    "data twice": (one()[:-3] + b', "data": [1, 2, 3]}]}', "given twice"),
    "deep nesting": (one(data=None)[:-3] + b', "data": ' + b"[" * 100_000, "nested deeper than 64 levels"),
    "no inputs": (b"{}", "inputs must be a list"),
    "empty inputs": (b'{"inputs": []}', "expected 1 inputs but got 0: x missing"),
    "an input that is no object": (b'{"inputs": [7]}', "inputs[0] must be an object with a name"),
    "an unknown input": (one(name="z"), 'unexpected inference input "z"; the model takes x'),
    "an input twice": (json.dumps({"inputs": [X, X]}).encode(), 'inputs[1]: input "x" already exists in request'),
    "no datatype": (one(datatype=None), "inputs[0].datatype is null; input 'x' takes FP32 of shape [-1,3]"),
    "another datatype": (one(datatype="INT64"), "inputs[0].datatype is \"INT64\"; input 'x' takes FP32"),
    "BF16 as JSON": (one(datatype="BF16"), "receiving BF16 data via JSON is not supported"),
    "a datatype that nobody has": (one(datatype="FP8"), 'inputs[0].datatype is "FP8"'),
    "no shape": (one(shape=None), "inputs[0].shape must be a list of integers"),
    "a shape of fractions": (one(shape=[1.0, 3]), "inputs[0].shape must be a list of integers"),
    "a shape of booleans": (one(shape=[True, 3]), "inputs[0].shape must be a list of integers"),
    "another rank": (one(shape=[3]), "inputs[0].shape is [3]; input 'x' takes FP32 of shape [-1,3]"),
    "another shape": (one(shape=[1, 2]), "inputs[0].shape is [1,2]"),
    "a negative dimension": (one(shape=[-1, 3]), "inputs[0].shape is [-1,3]"),
    "no instance": (one(shape=[0, 3], data=[]), "inputs[0].shape is [0,3]"),
    "too many instances": (one(shape=[9, 3], data=[0] * 27), "takes at most 8"),
    "a dimension of 4,000 digits": (one(shape=[10**4000, 3]), "causes total element count to exceed"),
    "too few values": (one(data=[1, 2]), "inputs[0].data is 2 values, but shape [1,3] takes 3"),
    "too many values": (one(data=[1, 2, 3, 4]), "inputs[0].data is 4 values"),
    "ragged values": (one(shape=[2, 3], data=[[1, 2, 3], [4, 5]]), "at inputs[0].data[1]"),
    "values of another shape": (one(shape=[1, 3], data=[[1], [2], [3]]), "inputs[0].data"),
    "values nested too deep": (one(data=[[[1, 2, 3]]]), "inputs[0].data"),
    "values that are text": (one(data=["1", "2", "3"]), "is not of expected type: float at inputs[0].data[0]"),
    "a value that is null": (one(data=[1, None, 3]), "at inputs[0].data[1]"),
    "data that is no list": (one(data=7), "inputs[0].data is Number, but shape [1,3] takes 3"),
    "neither data nor bytes": (one(data=None), "must have either data or the parameter binary_data_size"),
    "data and bytes": (one(parameters={"binary_data_size": 12}), "must have either data or the parameter"),
    "bytes that cannot come": (one(data=None, parameters={"binary_data_size": 12}), "no Inference-Header-Content"),
    "parameters that are none": (one(parameters=[1]), "inputs[0].parameters must be an object"),
    "shared memory": (one(parameters={"shared_memory_region": "r"}), "shared_memory_region is not supported"),
    "an id of megabytes": (json.dumps({"id": "x" * 1025, "inputs": [X]}).encode(), "at most 1024"),
    "an id that is none": (json.dumps({"id": 7, "inputs": [X]}).encode(), "id must be a string"),
    "outputs that are none": (json.dumps({"inputs": [X], "outputs": {}}).encode(), "outputs must be a list"),
    "an unknown output": (
        json.dumps({"inputs": [X], "outputs": [{"name": "z"}]}).encode(),
        'outputs[0]: unexpected inference output "z"; the model gives y',
    ),
    "an output twice": (
        json.dumps({"inputs": [X], "outputs": [{"name": "y"}, {"name": "y"}]}).encode(),
        'outputs[1]: output "y" already exists in request',
    ),
    "an output's form that is none": (
        json.dumps({"inputs": [X], "outputs": [{"name": "y", "parameters": {"binary_data": 1}}]}).encode(),
        "binary_data must be true or false",
    ),
    "a form that is none": (
        json.dumps({"inputs": [X], "parameters": {"binary_data_output": "yes"}}).encode(),
        "binary_data_output must be true or false",
    ),
    "shared memory for an output": (
        json.dumps({"inputs": [X], "outputs": [{"name": "y", "parameters": {"shared_memory_region": "r"}}]}).encode(),
        "shared_memory_region is not supported",
    ),
}


def refused(data: bytes, signature: Signature = LINEAR, head: int = TEXT) -> str:
    with pytest.raises(InputInvalid) as caught:
        parse_infer(data, signature, head)
    assert caught.value.status == 400
    assert len(caught.value.message) <= 300
    return caught.value.message


@pytest.mark.parametrize("case", REFUSED)
def test_json_that_does_not_fit_is_refused_with_the_place(case: str):
    body, said = REFUSED[case]
    assert said in refused(body)


def binary(shape: list[int], size: object, behind: int, datatype: str = "FP32") -> tuple[bytes, int]:
    """A request whose input claims `size` bytes, with `behind` bytes after the JSON."""
    described = {"name": "x", "shape": shape, "datatype": datatype, "parameters": {"binary_data_size": size}}
    head = json.dumps({"inputs": [described]}).encode()
    return head + bytes(behind), len(head)


@pytest.mark.parametrize(
    ("shape", "size", "behind", "said"),
    [
        ([1, 3], 12, 11, "11 bytes follow the JSON, but its inputs have 12 bytes"),
        ([1, 3], 12, 13, "13 bytes follow the JSON"),
        ([1, 3], 8, 8, "binary_data_size is 8, but FP32 of shape [1,3] takes 12 bytes"),
        ([2, 3], 12, 12, "takes 24 bytes"),
        ([1, 3], -12, 12, "binary_data_size must be a number of bytes, not -12"),
        ([1, 3], 12.0, 12, "binary_data_size must be a number of bytes, not 12.0"),
        ([1, 3], True, 1, "binary_data_size must be a number of bytes, not true"),
        ([1, 3], 10**4000, 12, "binary_data_size must be a number of bytes"),
        ([-1, 3], 12, 12, "inputs[0].shape is [-1,3]"),
        ([9, 3], 108, 108, "takes at most 8"),
        ([2**62, 3], 12, 12, "causes total element count to exceed"),
    ],
)
def test_bytes_that_do_not_make_up_the_shape_are_refused(shape: list[int], size: object, behind: int, said: str):
    body, head = binary(shape, size, behind)
    assert said in refused(body, LINEAR, head)


def test_a_shape_whose_size_overflows_a_machine_word_is_refused():
    body, head = binary([2, 2**31, 2**31], 16, 16)
    assert "causes total element count to exceed maximum size of 2147483647" in refused(
        body, taking("float32", None, None, None), head
    )


@pytest.mark.parametrize(
    ("count", "data", "said"),
    [
        (1, struct.pack("<I", 5) + b"four", "element 0 is 5 bytes long, but 4 are left"),
        (1, struct.pack("<I", 2**32 - 1), "element 0 is 4294967295 bytes long"),
        (2, struct.pack("<I", 4) + b"four", "the bytes end before element 1 of 2"),
        (1, struct.pack("<I", 3) + b"four", "1 bytes are left after 1 elements"),
        (4, b"\0\0\0", "BYTES of shape [4] takes 16 bytes or more"),
    ],
)
def test_strings_that_do_not_make_up_their_bytes_are_refused(count: int, data: bytes, said: str):
    body, head = binary([count], len(data), 0, "BYTES")
    assert said in refused(body + data, taking("string", None), head)


def test_a_head_longer_than_the_body_is_refused():
    assert refused(one(), LINEAR, len(one()) + 1).startswith("Inference-Header-Content-Length is")


def test_a_head_that_ends_within_the_json_is_refused():
    assert "JSON Parse error" in refused(one(), LINEAR, len(one()) - 1)


@pytest.mark.parametrize(
    ("signature", "size", "said"),
    [
        (TWO_INPUTS, 8, "Raw request must only have 1 input (found 1) to be deduced but got 2 inputs"),
        (LINEAR, 11, "11 bytes do not make up one instance; input 'x' takes FP32 of shape [-1,3]"),
        (LINEAR, 24, "24 bytes do not make up one instance"),
        (LINEAR, 0, "0 bytes do not make up one instance"),
        (taking("float32", None, None), 0, "0 bytes do not make up one instance"),
        (
            taking("float32", None, None, None),
            8,
            "can not be deduced because there are more than one variable-sized dimension",
        ),
        (taking("string", None, 2), 8, "For BYTE datatype raw input 'x', the model must have input shape [1]"),
    ],
)
def test_bytes_alone_whose_shape_does_not_follow_are_refused(signature: Signature, size: int, said: str):
    assert said in refused(bytes(size), signature, 0)


def test_fp16_has_no_form_in_json():
    half = np.zeros((1, 3), np.float16)
    assert "receiving FP16 data via JSON is not supported" in refused(
        json_request({"x": half}), taking("float16", None, 3)
    )
    answering = signature_of(*LINEAR.inputs, outputs=(TensorSpec("y", "float16", (None,)),))
    assert "sending FP16 data via JSON is not supported" in refused(json_request({"x": ROW}), answering)


def test_inputs_with_different_numbers_of_instances_are_refused():
    body, head = binary_request({"size": TWO["size"], "word": TWO["word"][:1]})
    assert "All inputs must have the same number of instances, but size has 2, word has 1" in refused(
        body, TWO_INPUTS, head
    )


def test_what_was_refused_once_is_refused_again():
    body, head = binary([1, 3], 8, 8)
    assert refused(body, LINEAR, head) == refused(body, LINEAR, head)
    assert refused(one(shape=[1, 2])) == refused(one(shape=[1, 2]))
