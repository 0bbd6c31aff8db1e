"""TensorFlow's tensors in messages: every type both ways, and what fewer values than elements mean."""

from __future__ import annotations

import json

import numpy as np
import pytest

from gateway.errors import RequestTooLarge
from gateway.grpc_services.example_messages import body_of
from gateway.grpc_services.messages import Fields, enum_number, message
from gateway.grpc_services.predict_messages import size_of
from gateway.grpc_services.rewriting import INLINE_BYTES
from gateway.grpc_services.tensor_protos import VALUES, RawTensor, TensorProto, Values, raw_of, tensor_of
from model_store.signature import Tensor
from tests.open_inference_kit import DTYPES, from_bytes, raw
from workers.errors import InputInvalid

MOST = 1024
NUMBERS = [values for values in VALUES if values.dtype]
FLOAT = enum_number("tensorflow.DataType", "DT_FLOAT")
INT8 = enum_number("tensorflow.DataType", "DT_INT8")
STRING = enum_number("tensorflow.DataType", "DT_STRING")


def sample(values: Values) -> Tensor:
    """Two rows of two with the extremes of their type."""
    if values.datatype == "BYTES":
        return np.array([[b"", b"\xff\x00"], ["é".encode(), b"a" * 300]], object)
    dtype = np.dtype(DTYPES[values.datatype])
    if dtype.kind == "f":
        return np.array([[0.1, np.nan], [-np.inf, np.finfo(dtype).max]], dtype)
    if dtype.kind == "b":
        return np.array([[True, False], [False, True]])
    return np.array([[np.iinfo(dtype).min, np.iinfo(dtype).max], [0, 1]], dtype)


def proto(kind: int, shape: tuple[int, ...], **values: object) -> Fields:
    made: Fields = TensorProto(dtype=kind, **values)
    for size in shape:
        made.tensor_shape.dim.add(size=size)
    return made


def read(tensor: Fields) -> Tensor:
    found = raw_of(tensor, "inputs['x']", MOST)
    return from_bytes(found.data, {"datatype": found.datatype, "shape": list(found.shape)})


def refusal(tensor: Fields) -> str:
    with pytest.raises(InputInvalid) as caught:
        raw_of(tensor, "inputs['x']", MOST)
    assert caught.value.message.startswith("inputs['x']: ")
    return caught.value.message


@pytest.mark.parametrize("values", VALUES, ids=lambda values: values.datatype)
def test_a_tensor_of_every_type_comes_back_bit_by_bit_from_the_field_of_its_type(values: Values):
    tensor = sample(values)
    made = tensor_of(RawTensor(values.datatype, tensor.shape, raw(tensor)))
    assert (made.dtype, len(getattr(made, values.field)), made.tensor_content) == (values.type_number, 4, b"")
    assert raw_of(made, "x", MOST) == RawTensor(values.datatype, tensor.shape, raw(tensor))


@pytest.mark.parametrize("values", NUMBERS, ids=lambda values: values.datatype)
def test_tensor_content_is_taken_as_it_is(values: Values):
    tensor = sample(values)
    made = proto(values.type_number, tensor.shape, tensor_content=raw(tensor))
    assert raw_of(made, "x", MOST) == RawTensor(values.datatype, tensor.shape, raw(tensor))


@pytest.mark.parametrize(
    ("tensor", "expected"),
    [
        pytest.param(proto(FLOAT, (2, 2), float_val=[1.5]), [[1.5, 1.5], [1.5, 1.5]], id="one for all"),
        pytest.param(proto(FLOAT, (4,), float_val=[1, 2]), [1, 2, 2, 2], id="the last for the rest"),
        pytest.param(proto(INT8, (2,)), [0, 0], id="no value is zero"),
        pytest.param(proto(FLOAT, (), float_val=[3]), 3, id="a scalar"),
        pytest.param(proto(STRING, (3,), string_val=[b"a", b"b"]), [b"a", b"b", b"b"], id="strings"),
        pytest.param(proto(STRING, (2,)), [b"", b""], id="no string is empty"),
    ],
)
def test_fewer_values_than_elements_are_filled_as_tensorflow_does(tensor: Fields, expected: object):
    assert read(tensor).tolist() == expected


@pytest.mark.parametrize(
    ("tensor", "text"),
    [
        pytest.param(proto(FLOAT, (2,), float_val=[1] * 3), "float_val has 3 values, but the shape takes 2", id="more"),
        pytest.param(proto(FLOAT, (2,), tensor_content=b"1234567"), "has 7 bytes, but the shape takes 8", id="bytes"),
        pytest.param(proto(STRING, (1,), tensor_content=b"\0"), "strings are taken from string_val", id="packed text"),
        pytest.param(proto(INT8, (1,), int_val=[128]), "int_val has a value that INT8 has no room for", id="range"),
        pytest.param(proto(FLOAT, (-1,), float_val=[1]), "a dimension of the tensor is negative", id="negative"),
        pytest.param(proto(FLOAT, (2**40,)), "a dimension of the tensor is negative or too large", id="large"),
        pytest.param(proto(FLOAT, (1,) * 255), "more than 254 dimensions", id="dimensions"),
        pytest.param(proto(14, (1,)), "tensors of the type DT_BFLOAT16 are not taken", id="type"),
        pytest.param(proto(99, (1,)), "tensors of the type 99 are not taken", id="unknown type"),
        pytest.param(TensorProto(dtype=FLOAT, tensor_shape={"unknown_rank": True}), "of unknown rank", id="rank"),
    ],
)  # fmt: skip
def test_what_is_no_tensor_is_refused_with_its_place(tensor: Fields, text: str):
    assert text in refusal(tensor)


@pytest.mark.parametrize(
    "tensor",
    [
        pytest.param(proto(FLOAT, (2**30, 2**30, 2**30), float_val=[1]), id="numbers"),
        pytest.param(proto(FLOAT, (257,), float_val=[1]), id="just too many numbers"),
        pytest.param(proto(STRING, (2**30,)), id="empty strings"),
        pytest.param(proto(STRING, (200,), string_val=[b"a" * 100]), id="one string many times"),
    ],
)
def test_a_small_message_does_not_become_a_large_tensor(tensor: Fields):
    with pytest.raises(RequestTooLarge, match="larger than 1024 bytes"):
        raw_of(tensor, "x", MOST)


@pytest.mark.parametrize("kind", [FLOAT, STRING], ids=["numbers", "strings"])
def test_a_small_message_that_means_a_large_tensor_is_not_rewritten_between_other_calls(kind: int):
    request: Fields = message("tensorflow.serving.PredictRequest")()
    request.inputs["x"].CopyFrom(proto(kind, (8,)))
    assert size_of(request) < INLINE_BYTES
    request.inputs["x"].CopyFrom(proto(kind, (INLINE_BYTES // 4,)))
    assert request.ByteSize() < 32
    assert size_of(request) > INLINE_BYTES
    request.inputs["x"].CopyFrom(proto(kind, (2**30,) * 254))
    assert size_of(request) > INLINE_BYTES
    request.inputs["x"].CopyFrom(proto(kind, (-1,)))
    assert size_of(request) < INLINE_BYTES


def test_a_small_message_does_not_become_a_long_list_of_examples():
    made: Fields = message("tensorflow.serving.Input")(example_list={"examples": [{}] * 200})
    assert json.loads(body_of(made, "", 2000)) == {"examples": [{}] * 200}
    with pytest.raises(RequestTooLarge, match="larger than 1024 bytes"):
        body_of(made, "", 1024)
    shared = {"features": {"feature": {"x": {"float_list": {"value": [1.0] * 200}}}}}
    made = message("tensorflow.serving.Input")(example_list_with_context={"examples": [{}], "context": shared})
    assert json.loads(body_of(made, "", 2000))["context"] == {"x": [1.0] * 200}
    with pytest.raises(RequestTooLarge, match="larger than 1024 bytes"):
        body_of(made, "", 1024)
