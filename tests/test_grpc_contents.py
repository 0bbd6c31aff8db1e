"""Typed contents and raw bytes say the same, for every datatype that has both."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from gateway.grpc_services.inference_messages import body_of
from gateway.grpc_services.messages import message
from gateway.grpc_services.tensor_contents import BYTES, CONTENTS, fill, raw_of
from model_store.signature import Tensor
from tests.open_inference_kit import DTYPES, raw
from workers.errors import InputInvalid

# Lengths of one and of two bytes on the wire.
SHAPES = arrays.array_shapes(max_dims=2, max_side=20)
NUMBERS = sorted(set(CONTENTS) - {BYTES})


def returned(datatype: str, tensor: Tensor) -> bytes:
    """A tensor's bytes after they were written as typed contents, sent and read."""
    made = message("inference.ModelInferRequest")()
    one = made.inputs.add(name="x", datatype=datatype, shape=tensor.shape)
    fill(one.contents, datatype, tensor.shape, memoryview(raw(tensor)))
    sent = message("inference.ModelInferRequest").FromString(made.SerializeToString())
    assert len(getattr(sent.inputs[0].contents, CONTENTS[datatype].field)) == tensor.size
    return raw_of(sent.inputs[0], "inputs[0]")


@pytest.mark.parametrize("datatype", NUMBERS)
@settings(max_examples=20)
@given(data=st.data())
def test_numbers_are_the_same_bit_by_bit(datatype: str, data: st.DataObject):
    tensor = data.draw(arrays.arrays(np.dtype(DTYPES[datatype]), SHAPES))
    assert returned(datatype, tensor) == raw(tensor)


def test_a_shape_of_too_many_dimensions_is_not_multiplied():
    tensor = message("inference.ModelInferRequest.InferInputTensor")(datatype="FP32", shape=[2**62] * 65)
    tensor.contents.fp32_contents.append(1.0)
    with pytest.raises(InputInvalid, match=r"inputs\[0\]\.shape has more than 64 dimensions"):
        raw_of(tensor, "inputs[0]")


@pytest.mark.parametrize("field", ["inputs", "outputs", "parameters"])
def test_a_request_of_very_many_parts_is_not_rewritten(field: str):
    request = message("inference.ModelInferRequest")()
    for place in range(10_001):
        if field == "parameters":
            request.parameters[str(place)].bool_param = True
        else:
            getattr(request, field).add()
    with pytest.raises(InputInvalid, match=f"more than 10000 {field}"):
        body_of(request, 2**20)


@settings(max_examples=20)
@given(tensor=arrays.arrays(object, SHAPES, elements=st.binary(max_size=9)))
def test_strings_are_the_same_byte_by_byte(tensor: Tensor):
    assert returned(BYTES, tensor) == raw(tensor)
