"""The parameter budget, and what functions of ONNX grow to: both are counted before anything is allocated."""

from __future__ import annotations

from collections.abc import Sequence

import onnx
import pytest
from onnx import helper

from tests.keras_archives import Json, dense, layer, sequential
from workers.errors import UploadRefused
from workers.preparation import budget
from workers.preparation.onnx_functions import expanded_nodes

EMBEDDING = layer("Embedding", input_dim=1000, output_dim=64)


def test_a_layer_may_have_as_many_weights_as_the_file_holds_in_the_narrowest_type():
    budget.check(sequential(dense(100)), 50)
    budget.check(sequential(EMBEDDING), 32_000)


@pytest.mark.parametrize(
    ("hostile", "weight_bytes", "place"),
    [
        (dense(100), 49, "config.layers[1]"),
        (EMBEDDING, 31_999, "config.layers[1]"),
        (layer("TimeDistributed", layer=dense(100)), 49, "config.layers[1].config.layer"),
        (layer("RNN", cell=layer("LSTMCell", units=100)), 49, "config.layers[1].config.cell"),
        (layer("Conv2D", filters=100, kernel_size=[3, 3]), 49, "config.layers[1]"),
    ],
)
def test_a_layer_that_asks_for_more_is_refused_with_its_place(hostile: Json, weight_bytes: int, place: str):
    with pytest.raises(UploadRefused) as caught:
        budget.check(sequential(hostile), weight_bytes)
    assert caught.value.code == "weights_mismatch"
    assert caught.value.message.startswith(f"{place}: ")


def test_layers_that_share_their_weights_are_not_added_up():
    twice = [sequential(dense(100, name="shared")), sequential(dense(100, name="shared"))]
    budget.check(sequential(*twice), 50)


def function(name: str, *called: str) -> onnx.FunctionProto:
    nodes = [helper.make_node(each, ["a"], ["b"], domain="own") for each in called]
    return helper.make_function("own", name, ["a"], ["b"], nodes, [helper.make_opsetid("own", 1)])


def model(functions: Sequence[onnx.FunctionProto], *called: str) -> onnx.ModelProto:
    nodes = [helper.make_node(each, ["x"], ["y"], domain="own") for each in called]
    return helper.make_model(helper.make_graph(nodes, "g", [], []), functions=functions)


def test_nodes_are_counted_as_they_stand_after_every_call_is_replaced():
    functions = [function("f", "Neg", "Neg", "Neg"), function("g", "f", "f", "Neg")]
    assert expanded_nodes(model(functions, "g", "f", "Neg")) == 7 + 3 + 1


@pytest.mark.parametrize(
    "functions",
    [
        [function("f", "f")],
        [function("f", "g"), function("g", "f")],
        [function("f"), function("f")],
        [*(function(f"f{index}", f"f{index - 1}") for index in range(40)), function("f", "f39")],
    ],
)
def test_functions_without_an_end_are_refused(functions: list[onnx.FunctionProto]):
    with pytest.raises(UploadRefused) as caught:
        expanded_nodes(model(functions, "f"))
    assert caught.value.code == "onnx_functions"
