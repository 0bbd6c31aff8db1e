"""A signature's own name: kept with it, no part of what it takes and gives, and one more that callers may use."""

from __future__ import annotations

import pytest

from gateway.model_status import metadata_of
from model_store.signature import Signature, TensorSpec

X = (TensorSpec("x", "float32", (None, 3)),)
SCORES = (TensorSpec("y", "float32", (None, 3)),)
VALUE = (TensorSpec("y", "float32", (None,)),)


def test_a_name_is_kept_and_makes_no_other_signature():
    named, unnamed = Signature(X, SCORES, "names"), Signature(X, SCORES)
    assert Signature.from_json(named.to_json()).name == "names"
    # What was written before there were names, and what a preparation is asked to keep.
    assert "names" not in unnamed.to_json()
    assert Signature.from_json(unnamed.to_json()).name == "serving_default"
    assert (named, hash(named)) == (unnamed, hash(unnamed))


@pytest.mark.parametrize(
    ("signature", "methods"),
    [
        pytest.param(Signature(X, SCORES), {"serving_default": "predict", "classification": "classify"}, id="scores"),
        pytest.param(Signature(X, VALUE), {"serving_default": "predict", "regression": "regress"}, id="a value"),
        pytest.param(Signature(X, X + VALUE), {"serving_default": "predict"}, id="neither"),
        pytest.param(
            Signature(X, SCORES, "names"),
            {"serving_default": "predict", "names": "predict", "classification": "classify"},
            id="its own name",
        ),
        pytest.param(
            Signature(X, SCORES, "classification"),
            {"serving_default": "predict", "classification": "predict"},
            id="a name that a method has too",
        ),
    ],
)
def test_the_metadata_have_a_definition_for_each_name_with_its_method(signature: Signature, methods: dict[str, str]):
    found = metadata_of("m", 1, signature).metadata.signature_def.signature_def
    assert {name: one.method_name.removeprefix("tensorflow/serving/") for name, one in found.items()} == methods
    assert len({one.model_dump_json(exclude={"method_name"}) for one in found.values()}) == 1
