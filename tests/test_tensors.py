"""Element types under all of their names."""

from __future__ import annotations

import pytest

from model_store import tensors


@pytest.mark.parametrize("element", tensors.ELEMENT_TYPES, ids=lambda element: element.name)
def test_every_element_type_has_a_name_of_its_own_in_each_tongue(element: tensors.ElementType):
    assert tensors.element_type(element.name) is element
    for tongue in ("tensorflow", "open_inference"):
        called = getattr(element, tongue)
        assert [other.name for other in tensors.ELEMENT_TYPES if getattr(other, tongue) == called] == [element.name]


def test_an_element_type_that_nobody_serves_is_refused():
    with pytest.raises(tensors.DtypeUnknown, match="known are bool"):
        tensors.element_type("complex64")
