"""Values of MLflow's scoring protocol to tensors: as strict about shapes as every dialect, with its own widenings.

Integers are taken for floats, as everywhere; null for a float is NaN, as pandas writes a missing value; a float without
a fraction is taken for an integer, since pandas makes floats of integers beside missing ones. A float with a fraction
is never made an integer (MLflow does so for tensors, silently), nor one that may stand for another integer than was
meant, nor a number a text.
"""

from __future__ import annotations

import math

import numpy as np

from model_store.signature import STRING, Tensor, TensorSpec
from workers.errors import InputInvalid
from workers.protocols.json_tensors import Place, tensor_of

# Up to here a float64 is every integer; beyond, it is that of its neighbours as well.
EXACT = 2.0**53


def tensor_in(value: object, spec: TensorSpec, place: Place) -> Tensor:
    """As `tensor_of`, which reads what needs no widening; raises InputInvalid."""
    try:
        return tensor_of(value, spec, place)
    except InputInvalid:
        kind = "s" if spec.dtype == STRING else np.dtype(spec.dtype).kind
        return tensor_of(_widened(value, kind), spec, place)


def _widened(value: object, kind: str) -> object:
    if isinstance(value, list):
        return [_widened(inner, kind) for inner in value]
    if kind == "f" and value is None:
        return math.nan
    if kind in "iu" and isinstance(value, float) and value.is_integer() and abs(value) < EXACT:
        return int(value)
    return value
