"""The dialect of TensorFlow Serving: which requests it accepts, and which it refuses and how."""

from __future__ import annotations

import json
import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from model_store.signature import TensorSpec
from tests.dialect_kit import LINEAR, TWO_INPUTS, VECTOR, parse, refusal, signature_of, taking
from workers.protocols.tensorflow_serving import (
    parse_predict,
)

# What is accepted


@pytest.mark.parametrize(
    ("body", "values", "row_form"),
    [
        ('{"instances": [1.0, 2.0, 5.0]}', [1, 2, 5], True),
        ('{"signature_name": "serving_default", "instances": [1.0, 2.0, 5.0]}', [1, 2, 5], True),
        ('{"instances": [1.0, 2.0, 5.0], "signature_name": "serving_default"}', [1, 2, 5], True),
        ('{"signature_name": "", "instances": [1]}', [1], True),
        ('{"signature_name": "serving_default", "inputs": [3.0, 4.0]}', [3, 4], False),
        ('{"inputs": {"x": [3.0, 4.0]}}', [3, 4], False),
        ('{"instances": [{"x": 3.0}, {"x": 4}]}', [3, 4], True),
        ('{"inst\\u0061nces": [1e2, -0.5E+1]}', [100, -5], True),
        (' \t\r\n{ "instances" : [ 1 , 2 ] } ', [1, 2], True),
        ('{"instances": [1], "parameters": {"binary": [true, null, "]["]}}', [1], True),
    ],
)
def test_every_spelling_of_a_request_gives_its_tensor(body: str, values: list[float], row_form: bool):
    request = parse(body, VECTOR)
    assert request.tensors["x"].tolist() == values
    assert request.tensors["x"].dtype == np.float32
    assert (request.instances, request.row_form) == (len(values), row_form)


def test_a_memoryview_is_read_like_bytes():
    body = b'..{"instances": [[1, 2, 3]]}..'
    request = parse_predict(memoryview(body)[2:-2], LINEAR, max_instances=1)
    assert request.tensors["x"].tolist() == [[1, 2, 3]]


def test_not_a_number_and_infinities_are_bare_tokens():
    values = parse('{"instances": [NaN, Infinity, -Infinity, 1e400, -1e39, 1e-50]}', VECTOR).tensors["x"]
    assert np.isnan(values[0])
    assert values[1:].tolist() == [math.inf, -math.inf, math.inf, -math.inf, 0.0]


def test_an_integer_too_large_for_a_float_is_infinity_or_the_nearest_one():
    large = "1" + 400 * "0"
    values = parse(f'{{"instances": [{large}, -{large}, 123456789012345678901234567890]}}', taking("float64", None))
    assert values.tensors["x"].tolist() == [math.inf, -math.inf, 123456789012345678901234567890.0]


def test_rows_of_several_inputs_are_objects():
    request = parse(
        '{"instances": [{"size": [1, 2], "word": "a"}, {"word": {"b64": "/w=="}, "size": [3, 4]}]}', TWO_INPUTS
    )
    assert request.tensors["size"].tolist() == [[1, 2], [3, 4]]
    assert request.tensors["word"].tolist() == [b"a", b"\xff"]
    assert (request.instances, request.row_form) == (2, True)


def test_columns_of_several_inputs_are_an_object():
    request = parse('{"inputs": {"size": [[1, 2]], "word": ["é"]}}', TWO_INPUTS)
    assert request.tensors["size"].tolist() == [[1, 2]]
    assert request.tensors["word"].tolist() == ["é".encode()]
    assert (request.instances, request.row_form) == (1, False)


def test_strings_are_utf_8_or_base64_at_any_depth():
    texts = taking("string", None, 2)
    request = parse('{"instances": [["a", {"b64": "aGVsbG8="}], ["", "\\u0000"]]}', texts)
    assert request.tensors["x"].tolist() == [[b"a", b"hello"], [b"", b"\x00"]]


def test_a_row_that_is_base64_alone_is_a_value_not_an_object_of_inputs():
    request = parse('{"instances": [{"b64": "aGVsbG8="}]}', taking("string", None))
    assert request.tensors["x"].tolist() == [b"hello"]


def test_booleans_are_true_and_false():
    request = parse('{"instances": [[true, false]]}', taking("bool", None, 2))
    assert request.tensors["x"].dtype == np.bool_
    assert request.tensors["x"].tolist() == [[True, False]]


def test_a_signature_without_a_free_dimension_is_one_instance():
    assert parse('{"inputs": 2.5}', taking("float32")).tensors["x"].shape == ()
    fixed = parse('{"instances": [[1, 2], [3, 4]]}', taking("int32", 2, 2), max_instances=1)
    assert (fixed.instances, fixed.tensors["x"].shape) == (1, (2, 2))


def test_a_free_inner_dimension_takes_the_length_that_the_request_has():
    assert parse('{"instances": [[1, 2], [3, 4]]}', taking("float32", None, None)).tensors["x"].shape == (2, 2)


# What is refused


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("", "JSON Parse error: The document is empty"),
        (" \n", "JSON Parse error: The document is empty"),
        ('{"instances": [[1, 2, 3]}', "at offset: 24"),
        ('{"é": x', "at offset: 7"),
        ('{"instances": [[1, 2, 3]]} x', "Extra data. at offset: 27"),
        ('{"instances": [[01, 2, 3]]}', "JSON Parse error"),
        ('{"instances": [[1 2, 3, 4]]}', "JSON Parse error"),
        ('{"instances": [[, , ]]}', "JSON Parse error"),
        ("[[1, 2, 3]]", "Is not object"),
        ('{"instances": [[1, 2, 3]], "inputs": [[1, 2, 3]]}', "expecting only one of 'inputs' or 'instances'"),
        ("{}", "Missing 'inputs' or 'instances' key"),
        ('{"instances": {"x": 1}}', "Expecting 'instances' value to be an list/array"),
        ('{"instances": []}', "No values in 'instances' array"),
        ('{"inputs": []}', "empty list at inputs; input 'x' takes float of shape [-1,3]"),
        ('{"signature_name": 1, "instances": [[1, 2, 3]]}', "'signature_name' key must be a string value."),
        ('{"signature_name": null, "instances": [[1, 2, 3]]}', "'signature_name' key must be a string value."),
        (
            '{"signature_name": "other", "instances": [[1, 2, 3]]}',
            'Serving signature name: "other" not found in signature def',
        ),
        ('{"instances": [[1, 2, 3]], "instances": [[1, 2, 3]]}', 'the key "instances" is given twice'),
        ('{"instances": [{"x": [1, 2, 3], "x": [1, 2, 3]}]}', 'the key "x" is given twice'),
        ('{"instances": [1, 2, 3]}', "a list but got Number 1 at instances[0]; input 'x' takes float of shape [-1,3]"),
        ('{"instances": [[[1, 2, 3]]]}', "size: 1 at level: 1 expected size: 3 at instances[0]"),
        ('{"instances": [[1, 2, [3]]]}', "unexpected level: 2 expected < 2 at instances[0][2]"),
        (
            '{"instances": [[1, 2, 3], [1, 2]]}',
            "Encountered list at unexpected size: 2 at level: 1 expected size: 3 at instances[1]; "
            "input 'x' takes float of shape [-1,3]",
        ),
        (
            '{"instances": [[1, 2, "3"]]}',
            'JSON Value: "3" Type: String is not of expected type: float at instances[0][2]',
        ),
        (
            '{"instances": [[1, null, 3]]}',
            "JSON Value: null Type: Null is not of expected type: float at instances[0][1]",
        ),
        ('{"instances": [[1, true, 3]]}', "JSON Value: true Type: True is not of expected type: float"),
        ('{"instances": [[1, 2, {"b64": "AA=="}]]}', "Type: Object is not of expected type: float"),
        ('{"instances": [[1, 2, 3], {"x": [1, 2, 3]}]}', "Expecting value/list but got object at item 1"),
        ('{"instances": [{"x": [1, 2, 3]}, [1, 2, 3]]}', "Expecting object but got list at item 1"),
        ('{"instances": [{"y": [1, 2, 3]}]}', "process element: 0 of 'instances' list. keys must be equal to: x"),
        ('{"instances": [{"x": [1, 2, 3]}, {"x": [1, 2]}]}', "at instances[1].x"),
        ('{"inputs": {"y": [[1, 2, 3]]}}', "Missing named input: x in 'inputs' object"),
        ('{"inputs": {"x": [[1, 2, 3], [1]]}}', "at inputs.x[1]"),
        (json.dumps({"instances": [[1, 2, 3]] * 9}), "9 instances in one request, but this version takes at most 8"),
        (json.dumps({"inputs": [[1, 2, 3]] * 9}), "9 instances in one request, but this version takes at most 8"),
        ('{"instances": [{"x": [1, 2, NaN, 4]}]}', "size: 4"),
        (b"\xff\xfe{}", "Invalid UTF-8 at offset: 0"),
        ('{"instances": [[1, 2, 3]]}'.encode("utf-16-le"), "JSON Parse error"),
        ('{"instances": [[1, 2, 3]]}'.encode("utf-8-sig"), "JSON Parse error"),
        (b'{"instances": [[1, 2, 3]], "\xed\xa0\x80": 1}', "Invalid UTF-8 at offset: 28"),
        ('{"instances": [[1, 2, ' + "9" * 5000 + "]]}", "too many digits"),
        ("[" * 100_000, "nested deeper than 64 levels"),
        ('{"a": ' * 100_000, "nested deeper than 64 levels"),
        ('{"instances": ' + "[" * 500 + "1" + "]" * 500 + "}", "nested deeper than 64 levels"),
    ],
)
def test_what_is_wrong_is_refused_with_its_place_and_what_was_expected(body: bytes | str, text: str):
    assert text in refusal(body)


@pytest.mark.parametrize("token", ["NaN", "Infinity", "1.0", "1e0", "1.5", '"1"', "true", "null"])
def test_only_integers_are_integers(token: str):
    message = refusal(f'{{"instances": [[1, {token}]]}}', taking("int64", None, 2))
    assert "is not of expected type: int64 at instances[0][1]" in message


@pytest.mark.parametrize(
    ("dtype", "value"),
    [("int8", 128), ("int32", -(2**31) - 1), ("int64", 2**63), ("uint8", -1), ("uint64", 2**64), ("uint64", -1)],
)
def test_an_integer_out_of_range_is_refused(dtype: str, value: int):
    message = refusal(f'{{"instances": [0, {value}]}}', taking(dtype, None))
    assert f"JSON Value: {value} is out of the range of {dtype} at instances[1]" in message


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ('"\\ud800"', "half of a surrogate pair at instances[0]"),
        ('{"b64": "?"}', "Unable to base64 decode at instances[0]"),
        ('{"b64": "é"}', "Unable to base64 decode at instances[0]"),
        ("1", "JSON Value: 1 Type: Number is not of expected type: string at instances[0]"),
        ('["a"]', "Encountered list at unexpected level: 1 expected < 1 at instances[0]"),
    ],
)
def test_what_is_no_string_is_refused(value: str, text: str):
    assert text in refusal(f'{{"instances": [{value}]}}', taking("string", None))


def test_an_object_that_is_not_base64_is_no_string():
    message = refusal('{"instances": ["a", {"b64": 1}]}', taking("string", None))
    assert "got object at item 1" in message
    message = refusal('{"instances": [["a", {"b64": 1}]]}', taking("string", None, 2))
    assert "not formatted correctly for base64 data at instances[0][1]" in message


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (
            '{"instances": [[1, 2]]}',
            "instances is a plain list, but expecting list of objects as multiple input tensors",
        ),
        ('{"inputs": [[1, 2]]}', "inputs is a plain value/list, but expecting an object as multiple input tensors"),
        ('{"instances": [{"size": [1, 2]}]}', "keys must be equal to: size,word"),
        ('{"instances": [{"size": [1, 2], "word": "a", "more": 1}]}', "keys must be equal to: size,word"),
        ('{"inputs": {"size": [[1, 2]]}}', "Missing named input: word"),
        ('{"inputs": {"size": [[1, 2]], "word": ["a", "b"]}}', "size has 1, word has 2"),
    ],
)
def test_several_inputs_are_all_needed_with_one_length(body: str, text: str):
    assert text in refusal(body, TWO_INPUTS)


@pytest.mark.parametrize("value", ['"' + "a" * 100_000 + '"', "1" * 4000, '"' + "\\ud800" * 1000 + '"'])
def test_a_refusal_echoes_at_most_32_characters_of_what_was_sent(value: str):
    message = refusal(f'{{"instances": [{{"x": [1, 2, {value}]}}]}}', taking("bool", None, 3))
    assert "at instances[0].x[0]" in message
    message = refusal(f'{{"instances": [[{value}]]}}', taking("bool", None, 1))
    shown = message.removeprefix("JSON Value: ").split(" Type:")[0]
    assert len(shown) <= 32
    message.encode()


def test_a_refusal_stays_short_when_names_and_shapes_are_long():
    wide = signature_of(TensorSpec("n" * 500, "float32", (None, *range(1, 60))))
    assert len(refusal('{"instances": [1]}', wide)) == 300


def test_threads_do_not_disturb_each_other():
    def read(number: int) -> bool:
        body = json.dumps({"instances": [[number, 1, 2]] * 8})
        return parse(body).tensors["x"].tolist() == [[number, 1, 2]] * 8

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(read, range(400)))


def test_a_body_larger_than_what_is_kept_in_memory_is_read():
    signature = taking("float32", None, 400_000)
    assert parse(json.dumps({"instances": [[0.5] * 400_000]}), signature).tensors["x"].sum() == 200_000
