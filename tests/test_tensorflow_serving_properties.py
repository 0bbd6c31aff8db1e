"""What holds for every request in the dialect of TensorFlow Serving, whatever is sent."""

from __future__ import annotations

import json
import math

import numpy as np
import orjson
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from model_store.signature import Signature, TensorSpec
from tests.dialect_kit import LINEAR, NUMBERS, TWO_INPUTS, VECTOR, parse, refusal, same, taking
from workers.errors import InputInvalid
from workers.protocols.errors import error_text
from workers.protocols.number_text import NumberReader
from workers.protocols.tensorflow_serving import (
    format_predict,
    parse_exactly,
    parse_predict,
)


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
    assert orjson.loads(error_text(refused)) == {"error": refused}
