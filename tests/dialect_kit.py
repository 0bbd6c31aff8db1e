"""Signatures, and short ways to parse and to be refused, for the tests of the dialects."""

from __future__ import annotations

import pytest

from model_store.signature import Signature, Tensor, TensorSpec
from workers.errors import InputInvalid
from workers.protocols.tensorflow_serving import PredictRequest, parse_predict

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
