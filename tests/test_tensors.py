"""Element types under their three names."""

from __future__ import annotations

import numpy as np
import pytest

from model_store import tensors
from model_store.signature import TensorSpec


@pytest.mark.parametrize("element", tensors.ELEMENT_TYPES, ids=lambda element: element.name)
def test_every_element_type_has_one_name_in_each_tongue(element: tensors.ElementType):
    assert tensors.element_type(element.name) is element
    assert tensors.from_tensorflow(element.tensorflow) is element
    assert tensors.from_open_inference(element.open_inference) is element
    assert tensors.from_numpy(TensorSpec("x", element.name, ()).numpy_dtype()) is element


def test_an_element_type_that_nobody_serves_is_refused():
    with pytest.raises(tensors.DtypeUnknown, match="complex64"):
        tensors.from_numpy(np.dtype(np.complex64))
    with pytest.raises(tensors.DtypeUnknown, match="known are BOOL"):
        tensors.from_open_inference("BF16")
