"""Preparing versions from the uploaded file to one that serves, with the real parts: runners, Keras, ONNX Runtime."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from model_store import golden
from model_store.database import transaction
from model_store.registry import digests_in_use
from model_store.signature import Signature, TensorSpec
from model_store.tables import Version
from tests.hostile.bait import hdf5_bytes
from tests.keras_archives import dense, layer, sequential, write_archive
from tests.models import ModelFile
from tests.onnx_models import line
from tests.shop import Ended, Shop
from workers.environment import here
from workers.preparation import measure
from workers.preparation.pipeline import prepare
from workers.runtimes.loading import load

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize(
    ("name", "runtime"),
    [
        ("dense", "onnx"),
        ("dense_h5", "onnx"),
        ("conv", "onnx"),
        ("lstm", "onnx"),
        ("two_input", "onnx"),
        ("text", "tensorflow"),
    ],
)
def test_a_keras_model_is_prepared_and_its_variant_answers_as_keras_does(
    shop: Shop, model_files: dict[str, ModelFile], name: str, runtime: str
):
    model = model_files[name]

    ended = shop.prepare(model.path)

    assert (ended.state, ended.error_code) == ("AVAILABLE", None), ended.error_message
    assert ended.served is not None
    assert ended.served.runtime == runtime
    assert [spec.name for spec in ended.served.signature.inputs] == list(model.inputs)
    predictor = load(ended.served, shop.artifacts, shop.settings)
    outputs = predictor.run(model.inputs)
    predictor.close()
    assert list(outputs) == list(model.outputs)
    for key, expected in model.outputs.items():
        assert np.all(np.abs(outputs[key] - expected) <= 1e-5 + 1e-4 * np.abs(expected))
    check_report(ended)


def check_report(ended: Ended) -> None:
    report = ended.report
    steps = [step["name"] for step in report["steps"]]
    assert steps == ["receive", "inspect", "rebuild", "load", "convert", "parity", "measure", "store", "warm"]
    assert {step["outcome"] for step in report["steps"]} == {"ok"}
    variants = {variant["name"]: variant for variant in report["variants"]}
    assert ended.served is not None
    chosen = variants[report["chosen"]]
    assert chosen["accepted"]
    check_batches(ended, chosen)
    compared = {"1", "8", "32", str(ended.served.max_batch)}
    assert all(compared <= set(variant["latency_ms"]) for variant in variants.values() if variant["accepted"])
    assert chosen["memory_bytes"] == ended.served.memory_bytes > 0
    assert chosen["max_abs_difference"] <= 1e-5
    assert chosen["top1_agreement"] in (1.0, None)
    assert {"keras", "tensorflow", "onnx", "onnxruntime", "numpy"} <= set(report["versions"])
    if ended.served.runtime == "tensorflow":
        assert ended.served.max_parallelism == 1
        assert not variants["onnx"]["accepted"]
        assert "StringSplit" in variants["onnx"]["reason"]
        assert variants["onnx"]["reason"] in report["reason"]
    else:
        assert variants["savedmodel"]["accepted"]


def check_batches(ended: Ended, chosen: dict[str, Any]) -> None:
    """The sizes double up to where it was not worth it any more, and what was chosen is one of them."""
    served, found = ended.served, ended.report["batching"]
    assert served is not None
    sizes = [point["instances"] for point in found["curve"]]
    assert list(chosen["latency_ms"]) == [str(size) for size in sorted({*sizes, 8, 32})]
    assert sizes == [2**power for power in range(len(sizes))]
    assert len(sizes) > 2
    assert served.max_batch == found["max_batch"] in sizes
    assert all(point["instances_per_second"] > 0 for point in found["curve"])
    assert served.batching is not None
    assert [size for size, _ in served.batching.curve] == [size for size in sizes if size <= served.max_batch]
    assert served.batch_seconds == pytest.approx(served.batching.seconds(served.max_batch), rel=0.01)
    assert set(served.batching.pad_to) <= {probe["padded_to"] for probe in found["padding"]}
    detail = next(step["detail"] for step in ended.report["steps"] if step["name"] == "measure")
    assert detail.startswith(f"at most {served.max_batch} instance")


def test_an_onnx_graph_is_rebuilt_and_served(shop: Shop, tmp_path: Path):
    path = line(tmp_path / "line.onnx", weights=[2.0, 3.0], bias=1.0)
    graph = onnx.load(path)
    graph.graph.doc_string = "/home/somebody/train.py"
    onnx.save(graph, path)

    ended = shop.prepare(path)

    assert ended.state == "AVAILABLE", ended.error_message
    assert ended.served is not None
    assert ended.served.signature == Signature(
        (TensorSpec("x", "float32", (None, 2)),), (TensorSpec("y", "float32", (None, 1)),)
    )
    assert b"somebody" not in shop.artifacts.path(ended.served.digest).read_bytes()
    predictor = load(ended.served, shop.artifacts, shop.settings)
    assert predictor.run({"x": np.array([[1, 1], [0, 2]], np.float32)})["y"].tolist() == [[6.0], [7.0]]
    assert ended.served.golden_digest is not None
    inputs, outputs = golden.unpack(shop.artifacts.path(ended.served.golden_digest).read_bytes())
    assert np.allclose(outputs["y"], inputs["x"] @ np.array([[2], [3]]) + 1)
    assert len(inputs["x"]) == 11
    assert ended.served.environment == here()
    with transaction(shop.sessions) as session:
        assert ended.served.golden_digest in digests_in_use(session)


def graph_of(path: Path, node: onnx.NodeProto, weights: list[onnx.TensorProto], **opsets: int) -> Path:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 2]) for name in ("x", "y")]
    graph = helper.make_graph([node], "g", values[:1], values[1:], weights)
    versions = [helper.make_opsetid(domain, version) for domain, version in {"": 17, **opsets}.items()]
    path.write_bytes(helper.make_model(graph, opset_imports=versions, ir_version=8).SerializeToString())
    return path


def external_weights() -> onnx.TensorProto:
    tensor = helper.make_tensor("w", TensorProto.FLOAT, [2], [1.0, 2.0])
    tensor.ClearField("float_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/hostname")
    return tensor


def test_an_onnx_graph_that_leads_out_of_its_file_is_refused(shop: Shop, tmp_path: Path):
    foreign = graph_of(tmp_path / "a.onnx", helper.make_node("Trie", ["x"], ["y"], domain="com.x"), [], **{"com.x": 1})
    unknown = graph_of(tmp_path / "b.onnx", helper.make_node("Erfc", ["x"], ["y"]), [])
    outside = graph_of(tmp_path / "c.onnx", helper.make_node("Add", ["x", "w"], ["y"]), [external_weights()])
    invalid = graph_of(tmp_path / "d.onnx", helper.make_node("Add", ["x", "nothing"], ["y"]), [])
    (tmp_path / "e.onnx").write_bytes(b"\x89PNG" * 50)

    found = [shop.prepare(path).error_code for path in (foreign, unknown, outside, invalid, tmp_path / "e.onnx")]

    assert found == ["onnx_domain", "onnx_operator", "onnx_external_data", "onnx_structure", "onnx_structure"]


@pytest.mark.parametrize("shape", [["batch", 2**34], ["batch", 0], ["batch", -5], ["batch", *"abcdefghij"]])
def test_inputs_of_absurd_shapes_are_refused_before_any_is_made(shop: Shop, tmp_path: Path, shape: list[str | int]):
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "g", values[:1], values[1:])
    opset = [helper.make_opsetid("", 17)]
    path = tmp_path / "absurd.onnx"
    path.write_bytes(helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString())
    assert shop.prepare(path).error_code == "signature"


def test_a_model_whose_answers_depend_on_other_callers_is_never_batched(shop: Shop, tmp_path: Path):
    path = graph_of(tmp_path / "x.onnx", helper.make_node("Softmax", ["x"], ["y"], axis=0), [])
    ended = shop.prepare(path)
    assert ended.served is not None
    assert ended.served.max_batch == 1


@pytest.mark.parametrize(
    ("budget_bytes", "least", "below"), [(4 * 1024**3, 8, 32), (1024**3, 2, 16)], ids=["runner's", "worker's"]
)
def test_batches_that_do_not_fit_into_memory_are_not_formed(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, budget_bytes: int, least: int, below: int
):
    # Such a model is slow before it is large: let it be tried all the same.
    monkeypatch.setattr(measure, "BATCH_SECONDS", 10.0)
    monkeypatch.setattr(measure, "IDLE_SIZES", 10)
    repeats = helper.make_tensor("repeats", TensorProto.INT64, [2], [1, 12_000_000])  # 96 MB for each instance
    nodes = [
        helper.make_node("Tile", ["x", "repeats"], ["wide"]),
        helper.make_node("ReduceMax", ["wide"], ["y"], axes=[1]),
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", n]) for name, n in (("x", 2), ("y", 1))]
    graph = helper.make_graph(nodes, f"below-{below}", values[:1], values[1:], [repeats])
    path = tmp_path / "wide.onnx"
    opset = [helper.make_opsetid("", 17)]
    path.write_bytes(helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString())

    ended = shop.prepare(path, runner_memory_bytes=3 * 1024**3, predictor_budget_bytes=budget_bytes)

    assert ended.served is not None, ended.error_message
    measured = [point["instances"] for point in ended.report["batching"]["curve"]]
    assert least <= max(measured) < below  # a runner has 3 GiB, and a worker what its budget says
    assert ended.served.max_batch in measured
    assert least * 96_000_000 < ended.served.memory_bytes < budget_bytes


def test_a_model_that_draws_lots_is_refused(shop: Shop, tmp_path: Path):
    path = graph_of(tmp_path / "x.onnx", helper.make_node("RandomNormalLike", ["x"], ["y"]), [])
    assert shop.prepare(path).error_code == "not_repeatable"


def test_a_model_that_answers_nan_is_refused(shop: Shop, tmp_path: Path):
    weights = [helper.make_tensor("w", TensorProto.FLOAT, [2], [float("nan"), 1.0])]
    ended = shop.prepare(graph_of(tmp_path / "x.onnx", helper.make_node("Add", ["x", "w"], ["y"]), weights))
    assert ended.error_code == "non_finite_output"


def hostile_layer(name: str) -> dict[str, Any]:
    return layer(name, function={"class_name": "__lambda__", "config": {"code": "4wEAAAA="}})


def test_a_hostile_archive_is_refused_with_the_place_before_keras_sees_it(shop: Shop, tmp_path: Path):
    path = write_archive(tmp_path / "x.keras", sequential(dense(), hostile_layer("Lambda")))

    ended = shop.prepare(path)

    assert (ended.state, ended.error_code) == ("END", "class_not_allowed")
    assert "config.layers[2]" in (ended.error_message or "")
    assert [step["outcome"] for step in ended.report["steps"]] == ["ok", "refused"]


def legacy_file(path: Path, *layers: dict[str, Any]) -> Path:
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = json.dumps(sequential(*layers)).encode()
        file.create_group("model_weights").attrs["layer_names"] = np.array([])
    return path


def test_a_hostile_legacy_file_is_refused_before_keras_sees_it(shop: Shop, tmp_path: Path):
    assert shop.prepare(legacy_file(tmp_path / "a.h5", hostile_layer("Lambda"))).error_code == "class_not_allowed"
    linked = legacy_file(tmp_path / "b.h5", dense())
    with h5py.File(linked, "a") as file:
        file["model_weights/dense"] = h5py.ExternalLink("/etc/hostname", "/")
    assert shop.prepare(linked).error_code == "h5_link"
    (tmp_path / "c.h5").write_bytes(b"PK\x03\x04" * 40)
    assert shop.prepare(tmp_path / "c.h5").error_code == "h5_structure"


def test_hostile_weights_in_an_archive_are_refused(shop: Shop, model_files: dict[str, ModelFile], tmp_path: Path):
    with zipfile.ZipFile(model_files["dense"].path) as archive:
        config = archive.read("config.json")
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file.create_dataset("layers/dense/vars/0", (10**12,), "f4", chunks=(1024,), compression="gzip")
    path = write_archive(tmp_path / "x.keras", config, weights=(tmp_path / "w.h5").read_bytes())
    assert shop.prepare(path).error_code == "h5_bomb"


def test_a_model_that_needs_more_memory_than_a_runner_may_have_ends_with_a_clear_message(shop: Shop, tmp_path: Path):
    weights = hdf5_bytes(lambda file: file.create_dataset("layers/a/vars/1", data=np.zeros(1_000_000, np.int8)))
    wide = [dense(1_000_000, name="a"), dense(2000, name="b")]  # 8 GB: more than a runner can even reserve
    path = write_archive(tmp_path / "x.keras", sequential(*wide), weights=weights)

    ended = shop.prepare(path)

    assert (ended.state, ended.error_code) == ("END", "runner_memory")
    assert "more memory" in (ended.error_message or "")


def test_a_model_whose_load_takes_too_long_ends_with_a_clear_message(
    shop: Shop, model_files: dict[str, ModelFile], tmp_path: Path
):
    path = shutil.copyfile(model_files["dense_h5"].path, tmp_path / "slow.h5")

    ended = shop.prepare(path, preparation_seconds=1.0)

    assert (ended.state, ended.error_code) == ("END", "runner_timeout")
    assert "too long" in (ended.error_message or "")


def test_a_damaged_upload_is_refused(shop: Shop, tmp_path: Path):
    path = line(tmp_path / "line.onnx", weights=[4.0], bias=1.0)
    name = shop.upload(path)
    with transaction(shop.sessions) as session:
        stored = shop.artifacts.path(session.get_one(Version, (name, 1)).digest)
    stored.chmod(0o600)
    stored.write_bytes(b"other bytes")
    prepare(shop.sessions, shop.artifacts, shop.settings, name, 1)
    assert shop.look(name).error_code == "artifact_corrupt"


def test_preparing_imports_no_native_runtime_into_the_worker():
    code = """
import sys, workers.preparation.pipeline
print(sorted({"keras", "tensorflow", "onnx", "onnxruntime", "h5py"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
