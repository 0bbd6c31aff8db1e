"""The dialect of TensorFlow Serving: what it accepts, what it refuses and how, and what it answers."""

from __future__ import annotations

import json
import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from model_store.signature import Signature, Tensor, TensorSpec
from workers.errors import InputInvalid, PredictionFailed
from workers.protocols.number_text import NumberReader
from workers.protocols.tensorflow_serving import (
    PredictRequest,
    format_error,
    format_predict,
    parse_exactly,
    parse_predict,
    rows,
)

FLOATS = ("float16", "float32", "float64")
INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
NUMBERS = FLOATS + INTEGERS


def signature_of(*inputs: TensorSpec, outputs: tuple[TensorSpec, ...] = ()) -> Signature:
    return Signature(inputs, outputs or (TensorSpec("y", "float32", (None, 2)),))


def taking(dtype: str, *shape: int | None) -> Signature:
    return signature_of(TensorSpec("x", dtype, shape))


LINEAR = taking("float32", None, 3)
VECTOR = taking("float32", None)
TWO_INPUTS = signature_of(TensorSpec("size", "float32", (None, 2)), TensorSpec("word", "string", (None,)))


def parse(body: bytes | str, signature: Signature = LINEAR, max_instances: int = 8) -> PredictRequest:
    return parse_predict(body.encode() if isinstance(body, str) else body, signature, max_instances=max_instances)


def refusal(body: bytes | str, signature: Signature = LINEAR) -> str:
    with pytest.raises(InputInvalid) as caught:
        parse(body, signature)
    assert caught.value.status == 400
    assert len(caught.value.message) <= 300
    return caught.value.message


def same(left: Tensor, right: Tensor) -> bool:
    return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()


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
        ('{"instances": [{"x": [1, 2, 3]}, [1, 2, 3]]}', "Expecting object but got value/list at item 1"),
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


# Properties


def texts_of(number: float) -> st.SearchStrategy[str]:
    """Several spellings of one number."""
    whole = str(int(number)) if abs(number) < 1e15 else "0"
    return st.sampled_from([repr(number), f"{number:.17e}", f"{number:.3f}"]) | st.just(whole)


@st.composite
def grids(draw: st.DrawFn, shape: tuple[int, ...]) -> str:
    """Nested lists of numbers in the given shape, with white space where JSON allows it."""
    space = draw(st.sampled_from(["", " ", "\n\t"]))
    if not shape:
        return draw(st.floats(allow_nan=False, allow_infinity=False, width=32).flatmap(texts_of))
    inner = [draw(grids(shape[1:])) for _ in range(shape[0])]
    return "[" + space + f"{space},{space}".join(inner) + space + "]"


SHAPES = [(None,), (None, 1), (None, 2), (None, None), (None, 2, 2), (None, None, 3), (2, 2)]


@st.composite
def bodies(draw: st.DrawFn) -> tuple[bytes, tuple[int | None, ...]]:
    """Bodies that are right, nearly right, and wrong in one place or two, with an input shape that may fit them."""
    shape = draw(st.lists(st.integers(1, 3), min_size=1, max_size=3).map(tuple))
    key = draw(st.sampled_from(["instances"] * 3 + ["inputs"] * 3 + ["instanc1es", "inst ances"]))
    before = draw(
        st.sampled_from(["", "", '"signature_name": "serving_default", ', '"signature_name": "serving_1default",'])
    )
    after = draw(st.sampled_from(["", "", ', "signature_name": "serving_default"', ', "other": 1']))
    body = f'{{{before}"{key}": {draw(grids(shape))}{after}}}'
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(body)))
        length = draw(st.integers(0, 2))
        body = (
            body[:at] + draw(st.sampled_from(["", *'[]{},:"0.-eE ', "NaN", "null", "1,", "[]"])) + body[at + length :]
        )
    expected = draw(st.sampled_from([(None,) * len(shape), (None, *shape[1:]), *SHAPES]))
    return body.encode(), expected


@given(drawn=bodies(), dtype=st.sampled_from(["float32", "float64", "int64", "uint8"]))
@settings(max_examples=600, deadline=None)
def test_what_the_fast_way_accepts_the_exact_way_reads_alike(drawn: tuple[bytes, tuple[int | None, ...]], dtype: str):
    body, shape = drawn
    signature = taking(dtype, *shape)
    reader = NumberReader.of(signature.inputs)
    assert reader is not None
    found = reader.read(body)
    if found is not None:
        exact = parse_exactly(body, signature, 100)
        assert exact.row_form == (found[0] == "instances")
        assert same(exact.tensors["x"], found[1])


@given(data=st.data(), dtype=st.sampled_from(NUMBERS), shape=st_numpy.array_shapes(min_dims=1, max_dims=4, max_side=4))
@settings(max_examples=300, deadline=None)
def test_any_array_survives_the_way_in_and_out(data: st.DataObject, dtype: str, shape: tuple[int, ...]):
    array = data.draw(st_numpy.arrays(dtype, shape))
    spec = TensorSpec("x", dtype, (None, *shape[1:]))
    signature = Signature((spec,), (spec,))

    body = format_predict({"x": array}, signature, row_form=True).replace(b'"predictions"', b'"instances"')
    request = parse_predict(body, signature, max_instances=4)

    assert request.instances == shape[0]
    np.testing.assert_array_equal(request.tensors["x"], array)
    assert request.tensors["x"].dtype == dtype


@given(shape=st.lists(st.integers(1, 4), min_size=2, max_size=3), data=st.data())
@settings(max_examples=150, deadline=None)
def test_ragged_rows_are_never_accepted(shape: list[int], data: st.DataObject):
    rows_ = np.zeros(shape).tolist()
    row = data.draw(st.integers(0, shape[0] - 1))
    target = rows_[row]
    for size in shape[1:-1]:
        target = target[data.draw(st.integers(0, size - 1))]
    target.append(0.0)
    if shape[0] == 1 and len(shape) == 2:
        rows_.append([0.0] * shape[1])
    free = taking("float32", *[None] * len(shape)) if math.prod(shape[:-1]) > 1 else taking("float32", None, *shape[1:])
    assert "unexpected size" in refusal(json.dumps({"instances": rows_}), free)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None), max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3) | st.just("b64"), inner, max_size=3)
    ),
    max_leaves=12,
)
SIGNATURES = st.sampled_from(
    [
        LINEAR,
        VECTOR,
        TWO_INPUTS,
        taking("string", None),
        taking("int8", None, None),
        taking("bool", None),
        taking("float64"),
    ]
)


@given(
    body=st.one_of(
        st.binary(max_size=60),
        bodies().map(lambda drawn: drawn[0]),
        JSON_VALUES.map(lambda value: json.dumps(value).encode()),
        JSON_VALUES.map(lambda value: json.dumps({"instances": value}).encode()),
        JSON_VALUES.map(lambda value: json.dumps({"inputs": value}).encode()),
        st.lists(JSON_VALUES, max_size=3).map(lambda value: json.dumps({"instances": value}).encode()),
    ),
    signature=SIGNATURES,
)
@settings(max_examples=600, deadline=None)
def test_no_body_raises_anything_but_a_short_refusal(body: bytes, signature: Signature):
    try:
        names = list(parse(body, signature).tensors)
    except InputInvalid as error:
        refused = error.message
    else:
        refused = ""
        assert names == [spec.name for spec in signature.inputs]
    assert len(refused) <= 300
    assert orjson.loads(format_error(refused)) == {"error": refused}


def test_threads_do_not_disturb_each_other():
    def read(number: int) -> bool:
        body = json.dumps({"instances": [[number, 1, 2]] * 8})
        return parse(body).tensors["x"].tolist() == [[number, 1, 2]] * 8

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(read, range(400)))


def test_a_body_larger_than_what_is_kept_in_memory_is_read():
    signature = taking("float32", None, 400_000)
    assert parse(json.dumps({"instances": [[0.5] * 400_000]}), signature).tensors["x"].sum() == 200_000


# What is answered


def test_the_only_output_loses_its_name():
    signature = signature_of(LINEAR.inputs[0])
    outputs = {"y": np.array([[1, 0.2]], np.float32)}
    assert format_predict(outputs, signature, row_form=True) == b'{"predictions":[[1.0,0.2]]}'
    assert format_predict(outputs, signature, row_form=False) == b'{"outputs":[[1.0,0.2]]}'


def answering(*outputs: TensorSpec) -> Signature:
    return signature_of(LINEAR.inputs[0], outputs=outputs)


def test_several_outputs_are_objects_by_row_or_by_column():
    signature = answering(TensorSpec("a", "float32", (None,)), TensorSpec('b"', "int64", (None, 2)))
    outputs = {'b"': np.array([[1, 2], [3, 4]]), "a": np.array([0.5, np.inf], np.float32)}
    by_row = format_predict(outputs, signature, row_form=True)
    assert by_row == b'{"predictions":[{"a":0.5,"b\\"":[1,2]},{"a":Infinity,"b\\"":[3,4]}]}'
    by_column = format_predict(outputs, signature, row_form=False)
    assert by_column == b'{"outputs":{"a":[0.5,Infinity],"b\\"":[[1,2],[3,4]]}}'


def test_outputs_without_a_common_length_cannot_be_rows():
    signature = answering(TensorSpec("a", "float32", (None,)), TensorSpec("b", "float32", ()))
    outputs = {"a": np.array([0.5], np.float32), "b": np.array(1.5, np.float32)}
    with pytest.raises(PredictionFailed, match="ask with 'inputs'"):
        format_predict(outputs, signature, row_form=True)
    assert format_predict(outputs, signature, row_form=False) == b'{"outputs":{"a":[0.5],"b":1.5}}'


def test_what_is_not_finite_is_written_bare_in_its_place():
    outputs = {"y": np.array([[1, np.nan], [-np.inf, 2], [3, np.inf]], np.float32)[::-1]}
    text = format_predict(outputs, LINEAR, row_form=True)
    assert text == b'{"predictions":[[3.0,Infinity],[-Infinity,2.0],[1.0,NaN]]}'


@pytest.mark.parametrize(
    ("array", "text"),
    [
        (np.array([True, False]), b"[true,false]"),
        (np.array([255], np.uint8), b"[255]"),
        (np.array([2**64 - 1], np.uint64), b"[18446744073709551615]"),
        (np.array([0.5, np.nan], np.float16), b"[0.5,NaN]"),
        (np.array(0.25), b"0.25"),
        (np.array(np.nan), b"NaN"),
        (np.zeros((2, 0), np.float32), b"[[],[]]"),
        (np.arange(6, dtype=np.int64).reshape(2, 3).T, b"[[0,3],[1,4],[2,5]]"),
    ],
)
def test_every_dtype_and_layout_has_its_text(array: Tensor, text: bytes):
    assert format_predict({"y": array}, answering(TensorSpec("y", "any", (None,))), row_form=False)[11:-1] == text


def test_a_dtype_that_json_has_no_form_for_is_a_failed_prediction():
    with pytest.raises(PredictionFailed, match="complex64"):
        format_predict({"y": np.zeros((1, 2), np.complex64)}, LINEAR, row_form=True)


def test_strings_are_written_raw_and_bytes_as_base64():
    words = np.array([["null", b"\xff"], ["é".encode(), b""]], object)
    raw = format_predict({"y": words}, answering(TensorSpec("y", "string", (None, 2))), row_form=True)
    assert json.loads(raw) == {"predictions": [["null", {"b64": "/w=="}], ["é", ""]]}
    encoded = format_predict(
        {"y_bytes": words[:1]}, answering(TensorSpec("y_bytes", "string", (None, 2))), row_form=True
    )
    assert json.loads(encoded) == {"predictions": [[{"b64": "bnVsbA=="}, {"b64": "/w=="}]]}


def test_strings_beside_numbers_are_rows_too():
    signature = answering(TensorSpec("label", "string", (None,)), TensorSpec("score", "float32", (None,)))
    outputs = {"label": np.array([b"null", b"b"], object), "score": np.array([np.nan, 1], np.float32)}
    text = format_predict(outputs, signature, row_form=True)
    assert text == b'{"predictions":[{"label":"null","score":NaN},{"label":"b","score":1.0}]}'


def test_rows_of_a_batch_are_views():
    batch = {"y": np.arange(6, dtype=np.float32).reshape(3, 2)}
    part = rows(batch, 1, 3)
    assert np.shares_memory(part["y"], batch["y"])
    assert format_predict(part, LINEAR, row_form=True) == b'{"predictions":[[2.0,3.0],[4.0,5.0]]}'
