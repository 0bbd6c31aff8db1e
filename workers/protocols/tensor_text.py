"""Tensors to JSON text, as TensorFlow Serving writes them: bare NaN and infinities, bytes as base64."""

from __future__ import annotations

import base64
import math

import numpy as np
import orjson

from model_store.signature import Tensor
from workers.errors import PredictionFailed

# orjson writes what is not finite as null, and nothing else in an array of numbers can become one.
NULL = b"null"


def tensor_text(tensor: Tensor, *, as_base64: bool) -> bytes:
    """The nested lists of `tensor`; with `as_base64`, strings are written as `{"b64": …}`.

    Raises PredictionFailed for a dtype that JSON has no form for.
    """
    if tensor.dtype.kind in "OSU":
        return orjson.dumps(string_values(tensor.tolist(), as_base64=as_base64))
    try:
        text = orjson.dumps(tensor, option=orjson.OPT_SERIALIZE_NUMPY)
    except orjson.JSONEncodeError:
        text = unusual_text(tensor)
    return with_bare_tokens(text, tensor) if NULL in text else text


def unusual_text(tensor: Tensor) -> bytes:
    """What orjson does not take as it is: scalars, and views whose values do not lie side by side."""
    if tensor.ndim == 0:
        return unusual_text(tensor.reshape(1))[1:-1]
    try:
        return orjson.dumps(np.ascontiguousarray(tensor), option=orjson.OPT_SERIALIZE_NUMPY)
    except orjson.JSONEncodeError:
        raise PredictionFailed(f"an output of dtype {tensor.dtype} has no form in JSON") from None


def with_bare_tokens(text: bytes, tensor: Tensor) -> bytes:
    """The text with each null, in the order of the text, replaced by the value that it stands for."""
    hidden = iter(tensor[~np.isfinite(tensor)].tolist())
    first, *rest = text.split(NULL)
    return first + b"".join(bare_token(value) + piece for value, piece in zip(hidden, rest, strict=True))


def bare_token(value: float) -> bytes:
    if math.isnan(value):
        return b"NaN"
    return b"Infinity" if value > 0 else b"-Infinity"


def string_values(value: object, *, as_base64: bool) -> object:
    """Lists of bytes as lists of what JSON can hold; bytes that are no UTF-8 are base64 whatever the tensor's name."""
    if isinstance(value, list):
        return [string_values(inner, as_base64=as_base64) for inner in value]
    data = value.encode() if isinstance(value, str) else value
    if not isinstance(data, bytes):
        raise PredictionFailed("an output holds objects that are no strings")
    if not as_base64:
        try:
            return data.decode()
        except UnicodeDecodeError:
            pass
    return {"b64": base64.b64encode(data).decode()}
