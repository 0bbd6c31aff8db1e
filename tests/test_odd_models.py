"""Models of unusual shape: served where that can be done, and else refused with what to change."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from model_store.signature import Tensors
from tests.hostile.bait import hdf5_bytes
from tests.keras_archives import layer, sequential, write_archive
from tests.shop import Ended, Shop
from workers.runtimes.loading import load

Shape = Sequence[str | int]


def graph(
    path: Path,
    nodes: list[onnx.NodeProto],
    inputs: dict[str, Shape],
    outputs: dict[str, Shape],
    *more: onnx.TensorProto,
) -> Path:
    """A file of these nodes between float32 tensors."""
    given, answered = (
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in part.items()]
        for part in (inputs, outputs)
    )
    made = helper.make_graph(nodes, "odd", given, answered, list(more))
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


def answers(shop: Shop, ended: Ended, *calls: Tensors) -> list[Tensors]:
    assert ended.served is not None, ended.error_message
    predictor = load(ended.served, shop.artifacts, shop.settings)
    found = [predictor.run(tensors) for tensors in calls]
    predictor.close()
    return found


def test_a_model_with_forty_inputs_is_served(shop: Shop, tmp_path: Path):
    names = [f"x{number}" for number in range(40)]
    inputs: dict[str, Shape] = {name: ["batch", 2] for name in names}
    path = graph(tmp_path / "forty.onnx", [helper.make_node("Sum", names, ["y"])], inputs, {"y": ["batch", 2]})

    ended = shop.prepare(path)

    tensors: Tensors = {name: np.full((3, 2), place, np.float32) for place, name in enumerate(names)}
    [found] = answers(shop, ended, tensors)
    assert found["y"].tolist() == [[780.0, 780.0]] * 3


def test_a_model_of_free_shapes_is_served_at_any_size(shop: Shop, tmp_path: Path):
    pool = helper.make_node("GlobalAveragePool", ["image"], ["mean"])
    shape = ["batch", 3, "height", "width"]
    path = graph(tmp_path / "free.onnx", [pool], {"image": shape}, {"mean": ["batch", 3, 1, 1]})

    ended = shop.prepare(path)

    small, large = np.ones((1, 3, 5, 7), np.float32), np.full((2, 3, 300, 9), 2.0, np.float32)
    found = answers(shop, ended, {"image": small}, {"image": large})
    assert [(one["mean"].shape, float(one["mean"].max())) for one in found] == [
        ((1, 3, 1, 1), 1.0),
        ((2, 3, 1, 1), 2.0),
    ]
    assert ended.served is not None
    assert ended.served.signature.inputs[0].shape == (None, 3, None, None)


def test_a_model_of_one_fixed_shape_is_served_one_request_at_a_time(shop: Shop, tmp_path: Path):
    path = graph(tmp_path / "fixed.onnx", [helper.make_node("Neg", ["x"], ["y"])], {"x": [1, 4]}, {"y": [1, 4]})

    ended = shop.prepare(path)

    [found] = answers(shop, ended, {"x": np.array([[1, 2, 3, 4]], np.float32)})
    assert found["y"].tolist() == [[-1, -2, -3, -4]]
    assert ended.served is not None
    assert (ended.served.signature.batched, ended.served.max_batch) == (False, 1)


def test_nan_at_the_same_places_is_agreement_and_the_report_says_so(shop: Shop, tmp_path: Path):
    path = graph(
        tmp_path / "log.onnx", [helper.make_node("Log", ["x"], ["y"])], {"x": ["batch", 8]}, {"y": ["batch", 8]}
    )

    ended = shop.prepare(path)

    [found] = answers(shop, ended, {"x": np.array([[-1, 1] * 4], np.float32)})
    assert np.isnan(found["y"][0, 0])
    assert found["y"][0, 1] == 0.0
    [variant] = ended.report["variants"]
    assert variant["accepted"]
    assert variant["detail"] == (
        "for some inputs the model answers NaN or infinity, and this variant does so at the same places"
    )


@pytest.mark.long  # Keras is imported
def test_a_model_whose_inputs_are_not_known_is_refused_with_what_to_change(shop: Shop, tmp_path: Path):
    unbuilt = sequential(layer("Flatten"))
    del unbuilt["config"]["layers"][0], unbuilt["config"]["build_input_shape"], unbuilt["build_config"]
    weights = hdf5_bytes(lambda file: file.create_group("layers"))

    ended = shop.prepare(write_archive(tmp_path / "unbuilt.keras", unbuilt, weights=weights))

    assert ended.error_code == "signature"
    assert "keras.Input" in (ended.error_message or "")


@pytest.mark.parametrize("shape", [["batch", "rows", "columns"], ["batch", 0]])
def test_an_output_without_a_row_for_each_instance_is_refused(shop: Shop, tmp_path: Path, shape: Shape):
    nodes = [helper.make_node("ReduceSum", ["x"], ["y"], keepdims=0)]
    path = graph(tmp_path / f"{len(shape)}.onnx", nodes, {"x": ["batch", 2]}, {"y": shape})
    assert shop.prepare(path).error_code == "signature"
