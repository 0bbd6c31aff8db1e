"""What holds for every request of the Open Inference Protocol, whatever is sent, and for both dialects together."""

from __future__ import annotations

import json

import numpy as np
import orjson
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from model_store.signature import Signature, Tensor, TensorSpec
from tests.dialect_kit import LINEAR, NUMBERS, TWO_INPUTS, VECTOR, same, taking
from tests.open_inference_kit import binary_request, contract_of, json_request, parse_infer, raw, read_answer
from workers.errors import InputInvalid
from workers.protocols import open_inference, tensorflow_serving
from workers.protocols.body import TEXT, Body, Dialect, restored, stored
from workers.protocols.errors import error_text

DTYPES = (*NUMBERS, "bool", "string")


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    """Arrays of any dtype and of one to three dimensions, none of them empty."""
    shape = draw(st_numpy.array_shapes(min_dims=1, max_dims=3, max_side=4))
    dtype = draw(st.sampled_from(DTYPES))
    if dtype != "string":
        return draw(st_numpy.arrays(dtype, shape))
    elements = draw(st.lists(st.binary(max_size=6), min_size=int(np.prod(shape)), max_size=int(np.prod(shape))))
    found = np.empty(len(elements), object)
    found[:] = elements
    return found.reshape(shape)


def through(tensor: Tensor) -> Signature:
    dtype = "string" if tensor.dtype == object else str(tensor.dtype)
    spec = TensorSpec("x", dtype, (None, *tensor.shape[1:]))
    return Signature((spec,), (spec,))


def alike(left: Tensor, right: Tensor) -> bool:
    return left.tolist() == right.tolist() if left.dtype == object else same(left, right)


@given(tensor=tensors())
@settings(max_examples=300, deadline=None)
def test_any_tensor_survives_the_way_in_and_out_as_bytes(tensor: Tensor):
    signature = through(tensor)
    body, head = binary_request({"x": tensor}, parameters={"binary_data_output": True})
    request = parse_infer(body, signature, head)
    assert request.instances == tensor.shape[0]
    assert alike(request.tensors["x"], tensor)
    answer = request.format({"x": tensor}, contract_of(signature))
    assert alike(read_answer(answer.data, answer.head).outputs["x"], tensor)


@given(tensor=tensors().filter(lambda tensor: tensor.dtype not in (np.float16, object)), nested=st.booleans())
@settings(max_examples=300, deadline=None)
def test_any_tensor_of_numbers_survives_the_way_in_and_out_as_json(tensor: Tensor, nested: bool):
    signature = through(tensor)
    request = parse_infer(json_request({"x": tensor}, nested=nested), signature)
    np.testing.assert_array_equal(request.tensors["x"], tensor)
    assert request.tensors["x"].dtype == tensor.dtype
    answer = request.format({"x": tensor}, contract_of(signature))
    np.testing.assert_array_equal(read_answer(answer.data).outputs["x"], tensor)


@given(tensor=tensors().filter(lambda tensor: tensor.dtype in (np.float32, np.int64)))
@settings(max_examples=200, deadline=None)
def test_both_dialects_read_one_tensor_from_their_spellings_of_it(tensor: Tensor):
    signature = through(tensor)
    rows = Body(json.dumps({"instances": tensor.tolist()}).encode())
    binary, head = binary_request({"x": tensor})
    by_rows = tensorflow_serving.parse(rows, contract_of(signature))
    by_bytes = parse_infer(binary, signature, head)
    by_text = parse_infer(json_request({"x": tensor}), signature)
    assert by_rows.instances == by_bytes.instances == by_text.instances
    np.testing.assert_array_equal(by_rows.tensors["x"], by_bytes.tensors["x"])
    np.testing.assert_array_equal(by_text.tensors["x"], by_bytes.tensors["x"])


@st.composite
def texts(draw: st.DrawFn) -> bytes:
    """Requests in JSON that are right, nearly right, and wrong in one place or two."""
    shape = draw(st.lists(st.integers(1, 3), min_size=1, max_size=3))
    values = draw(st_numpy.arrays("int8", tuple(shape)))
    data = json.dumps((values if draw(st.booleans()) else values.reshape(-1)).tolist())
    members = [
        '"name": "x"',
        f'"shape": {draw(st.sampled_from([shape, shape, [*shape, 1], [1]]))}',
        f'"datatype": "{draw(st.sampled_from(["FP32", "FP32", "INT64", "BYTES"]))}"',
        f'"data": {data}',
        *draw(st.lists(st.sampled_from(['"data": [1]', '"parameters": {"data": [1]}', '"more": "data"']), max_size=1)),
    ]
    after = draw(st.sampled_from(["", ', "id": "data"', ', "outputs": [{"name": "y"}]', ', "data": [1]']))
    text = f'{{"inputs": [{{{", ".join(draw(st.permutations(members)))}}}]{after}}}'
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(text)))
        new = draw(st.sampled_from(["", *'[]{},:"0.-eE \\', "NaN", "null", "1,", "[]", "\\u0061"]))
        text = text[:at] + new + text[at + draw(st.integers(0, 2)) :]
    return text.encode()


@given(
    text=texts(),
    shape=st.sampled_from([(None,), (None, 2), (None, None), (None, None, None), (2, 2)]),
    dtype=st.sampled_from(["float32", "int64", "uint8"]),
)
@settings(max_examples=600, deadline=None)
def test_what_the_fast_way_accepts_the_exact_way_reads_alike(text: bytes, shape: tuple[int | None, ...], dtype: str):
    contract = contract_of(taking(dtype, *shape), max_instances=100)
    try:
        found = open_inference.parse_text(text, contract)
    except InputInvalid:
        return
    exact = open_inference.parse_exactly(text, contract)
    assert same(exact.tensors["x"], found.tensors["x"])
    assert (exact.instances, exact.opening) == (found.instances, found.opening)
    assert exact.form is found.form


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None), max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def odd_requests(draw: st.DrawFn) -> tuple[bytes, int]:
    """A binary request with a member replaced, bytes added or taken away, and perhaps a wrong length of its JSON."""
    described: dict[str, object] = {
        "name": "x",
        "shape": [1, 3],
        "datatype": "FP32",
        "parameters": {"binary_data_size": 12},
    }
    document: dict[str, object] = {"inputs": [described], "id": "a", "outputs": [{"name": "y"}]}
    target = draw(st.sampled_from([document, described]))
    target[draw(st.sampled_from(sorted(target)))] = draw(JSON_VALUES)
    head = json.dumps(document).encode()
    body = head + bytes(draw(st.integers(0, 16)))
    return body, draw(st.sampled_from([len(head), len(head), TEXT, 0]) | st.integers(0, len(body) + 2))


def assert_read_or_refused(body: bytes, head: int, signature: Signature) -> None:
    try:
        request = parse_infer(body, signature, head)
    except InputInvalid as error:
        refused = error.message
    else:
        assert list(request.tensors) == [spec.name for spec in signature.inputs]
        return
    assert len(refused) <= 300
    assert orjson.loads(error_text(refused)) == {"error": refused}


@given(odd=odd_requests(), signature=st.sampled_from([LINEAR, VECTOR, TWO_INPUTS, taking("string", None, None)]))
@settings(max_examples=400, deadline=None)
def test_odd_requests_are_read_or_refused_in_short_words(odd: tuple[bytes, int], signature: Signature):
    assert_read_or_refused(*odd, signature)


@given(data=st.binary(max_size=40), head=st.integers(0, 40))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_read_or_refused(data: bytes, head: int):
    for signature in (LINEAR, taking("string", None), taking("int8", None, None)):
        assert_read_or_refused(data, head, signature)


@given(text=st.binary(max_size=20).map(lambda data: b"{" + data), data=st.binary(max_size=20), head=st.integers(0, 20))
def test_a_body_comes_back_from_where_it_was_stored(text: bytes, data: bytes, head: int):
    for body in (Body(text), Body(data, Dialect.OPEN_INFERENCE, head)):
        assert restored(stored(body), body.dialect) == body


def test_a_string_s_bytes_are_those_of_triton_s_clients():
    assert raw(np.array([b"ab", b""], object)) == b"\x02\0\0\0ab\0\0\0\0"
