"""The Open Inference Protocol: what is read, from JSON and from bytes, and how it is answered."""

from __future__ import annotations

import json

import numpy as np
import pytest

from model_store.signature import Signature, Tensor, Tensors, TensorSpec
from tests.dialect_kit import FLOATS, INTEGERS, LINEAR, TWO_INPUTS, same, taking
from tests.open_inference_kit import binary_request, contract_of, json_request, parse_infer, raw, read_answer
from workers.errors import InputInvalid
from workers.protocols.body import TEXT

ROW = np.array([[1.0, 2.0, 3.5]], np.float32)
WORDS = np.array([b"one", b"", "zw\u00f6lf".encode(), b"\xff\x00"], object)
TWO = {"size": np.array([[1.0, 2.0], [3.0, 4.0]], np.float32), "word": np.array([b"a", b"bc"], object)}
OUTPUTS = Signature(
    LINEAR.inputs,
    (
        TensorSpec("y", "float32", (None, 2)),
        TensorSpec("half", "float16", (None,)),
        TensorSpec("word", "string", (None,)),
        TensorSpec("sure", "bool", (None,)),
    ),
)
ANSWER: Tensors = {
    "y": np.array([[0.1, np.nan]], np.float32),
    "half": np.array([0.5], np.float16),
    "word": np.array([b"seven"], object),
    "sure": np.array([True]),
}


# What is read


@pytest.mark.parametrize("nested", [False, True])
def test_data_in_json_is_flat_or_nested(nested: bool):
    request = parse_infer(json_request({"x": ROW}, nested=nested), LINEAR)
    assert same(request.tensors["x"], ROW)
    assert request.instances == 1


def test_data_as_bytes_follows_the_json():
    body, head = binary_request({"x": ROW})
    request = parse_infer(body, LINEAR, head)
    assert same(request.tensors["x"], ROW)
    assert not request.tensors["x"].flags.owndata  # a view: nothing was copied


def test_inputs_of_float32_take_bf16_which_is_its_upper_half():
    halves = (ROW.view(np.uint32) >> 16).astype("<u2").tobytes()
    described = {"name": "x", "shape": [1, 3], "datatype": "BF16", "parameters": {"binary_data_size": len(halves)}}
    head = json.dumps({"inputs": [described]}).encode()
    assert same(parse_infer(head + halves, LINEAR, len(head)).tensors["x"], ROW)
    with pytest.raises(InputInvalid, match='datatype is "BF16"'):
        parse_infer(head + halves, taking("int32", None, 3), len(head))


@pytest.mark.parametrize("dtype", [*FLOATS, *INTEGERS, "bool"])
def test_every_datatype_is_read_from_bytes(dtype: str):
    tensor = np.array([[0, 1, 1], [1, 0, 1]]).astype(dtype)
    body, head = binary_request({"x": tensor})
    assert same(parse_infer(body, taking(dtype, None, 3), head).tensors["x"], tensor)


@pytest.mark.parametrize("dtype", ["float32", "float64", *INTEGERS, "bool"])
def test_every_datatype_but_fp16_is_read_from_json(dtype: str):
    tensor = np.array([[0, 1, 1], [1, 0, 1]]).astype(dtype)
    assert same(parse_infer(json_request({"x": tensor}), taking(dtype, None, 3)).tensors["x"], tensor)


def test_strings_are_read_behind_their_lengths_and_from_json():
    body, head = binary_request({"x": WORDS})
    assert parse_infer(body, taking("string", None), head).tensors["x"].tolist() == WORDS.tolist()
    texts = json_request({"x": WORDS[:3]})
    assert parse_infer(texts, taking("string", None)).tensors["x"].tolist() == WORDS[:3].tolist()


def test_any_byte_but_zero_is_true():
    body, head = binary_request({"x": np.array([0, 1, 2, 255], np.uint8)})
    body = body.replace(b'"UINT8"', b'"BOOL" ')  # the length of the JSON stays
    assert parse_infer(body, taking("bool", None), head).tensors["x"].tolist() == [False, True, True, True]


def test_inputs_come_in_any_order_each_from_the_json_or_from_behind_it():
    word = {"name": "word", "shape": [2], "datatype": "BYTES", "parameters": {"binary_data_size": 11}}
    size = {"name": "size", "shape": [2, 2], "datatype": "FP32", "data": [1, 2, 3, 4]}
    head = json.dumps({"inputs": [word, size]}).encode()
    request = parse_infer(head + raw(TWO["word"]), TWO_INPUTS, len(head))
    assert list(request.tensors) == ["size", "word"]
    assert same(request.tensors["size"], TWO["size"])
    assert request.tensors["word"].tolist() == [b"a", b"bc"]
    assert request.instances == 2


def test_two_inputs_as_bytes_lie_in_the_order_of_the_request():
    for tensors in (TWO, dict(reversed(TWO.items()))):
        body, head = binary_request(tensors)
        request = parse_infer(body, TWO_INPUTS, head)
        assert same(request.tensors["size"], TWO["size"])
        assert request.tensors["word"].tolist() == [b"a", b"bc"]


def test_the_same_json_with_other_bytes_is_another_request():
    first, head = binary_request({"x": ROW})
    second, _ = binary_request({"x": ROW * 2})
    requests = [parse_infer(body, LINEAR, head) for body in (first, second, first)]
    assert [float(request.tensors["x"][0, 0]) for request in requests] == [1.0, 2.0, 1.0]


def test_a_tensor_remembered_with_its_json_cannot_be_changed_by_a_model():
    body = json_request({"x": ROW})
    request = parse_infer(body, LINEAR, len(body))
    assert not request.tensors["x"].flags.writeable


@pytest.mark.parametrize(
    ("signature", "tensor"),
    [
        (LINEAR, ROW),
        (taking("int16", None, None), np.array([[1, 2, 3, 4]], np.int16)),
        (taking("uint8", 4), np.array([1, 2, 3, 4], np.uint8)),
    ],
)
def test_a_body_without_json_is_the_one_instance_of_the_only_input(signature: Signature, tensor: Tensor):
    request = parse_infer(tensor.tobytes(), signature, 0)
    assert same(request.tensors["x"], tensor)
    answer = request.format({"y": np.zeros((1, 2), np.float32)}, contract_of(signature))
    assert answer.head < len(answer.data)


def test_a_body_without_json_may_be_one_string():
    assert parse_infer(raw(WORDS[:1]), taking("string", None), 0).tensors["x"].tolist() == [b"one"]


def test_nulls_and_unknown_members_are_nothing():
    request = parse_infer(json_request({"x": ROW}, id=None, parameters=None, outputs=None, more=[1]), LINEAR)
    assert same(request.tensors["x"], ROW)


# What is answered


def test_an_answer_in_json_has_flat_data_the_model_s_name_and_the_caller_s_id():
    request = parse_infer(json_request({"x": ROW}, id="7\u00e4"), LINEAR)
    answer = request.format({"y": np.array([[0.5, 1.5]], np.float32)}, contract_of(LINEAR))
    assert answer.head == TEXT
    assert json.loads(answer.data) == {
        "id": "7\u00e4",
        "model_name": "m",
        "model_version": "1",
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [0.5, 1.5]}],
    }


def test_outputs_are_answered_in_the_order_and_form_in_which_they_were_asked_for():
    outputs = [
        {"name": "word"},
        {"name": "half", "parameters": {"binary_data": True}},
        {"name": "y", "parameters": {"binary_data": False}},
    ]
    request = parse_infer(json_request({"x": ROW}, outputs=outputs), OUTPUTS)
    answer = request.format(ANSWER, contract_of(OUTPUTS))
    read = read_answer(answer.data, answer.head)
    assert list(read.outputs) == ["word", "half", "y"]
    assert read.outputs["word"].tolist() == [b"seven"]
    assert same(read.outputs["half"], ANSWER["half"])
    assert same(read.outputs["y"], ANSWER["y"])
    assert answer.data[answer.head :] == ANSWER["half"].tobytes()


def test_all_outputs_are_answered_as_bytes_where_the_request_says_so_and_the_output_does_not_object():
    whole = {"parameters": {"binary_data_output": True}}
    answer = parse_infer(json_request({"x": ROW}, **whole), OUTPUTS).format(ANSWER, contract_of(OUTPUTS))
    read = read_answer(answer.data, answer.head)
    assert same(read.outputs["y"], ANSWER["y"])
    assert same(read.outputs["sure"], ANSWER["sure"])
    assert read.outputs["word"].tolist() == [b"seven"]

    objecting = json_request({"x": ROW}, **whole, outputs=[{"name": "y", "parameters": {"binary_data": False}}])
    assert parse_infer(objecting, OUTPUTS).format(ANSWER, contract_of(OUTPUTS)).head == TEXT


def test_answers_of_other_shapes_are_described_by_their_own_shape():
    body, head = binary_request({"x": ROW}, parameters={"binary_data_output": True})
    request = parse_infer(body, LINEAR, head)
    for size in (2, 5, 0, 2):
        output = np.arange(size, dtype=np.float32).reshape(1, size)
        answer = request.format({"y": output}, contract_of(LINEAR))
        assert same(read_answer(answer.data, answer.head).outputs["y"], output)


def test_a_part_of_a_batch_is_answered_alone():
    batch = np.arange(8, dtype=np.float32).reshape(4, 2)
    body, head = binary_request({"x": ROW}, parameters={"binary_data_output": True})
    answer = parse_infer(body, LINEAR, head).format({"y": batch[1:2]}, contract_of(LINEAR))
    assert same(read_answer(answer.data, answer.head).outputs["y"], batch[1:2])
