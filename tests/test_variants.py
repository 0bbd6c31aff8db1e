"""Variants that a policy asks for: made in runners, proven, measured, kept, and served where they may be."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import numpy as np
import onnx
import pytest

from model_store import variant_policies
from model_store.database import transaction
from model_store.samples import Kind, keep
from model_store.signature import Signature, TensorSpec
from model_store.tables import Variant
from model_store.variant_policies import NAMES, VariantPolicy
from tests.models import ModelFile
from tests.onnx_models import classifier, line
from tests.shop import Ended, Shop
from workers.errors import PredictionFailed
from workers.preparation.onnx_variants import quantise
from workers.preparation.pipeline import prepare
from workers.runtimes.loading import load
from workers.runtimes.onnx import OnnxPredictor


def prepared(shop: Shop, path: Path, policy: VariantPolicy, **settings: object) -> tuple[str, Ended]:
    """The model's name, and what became of its first version under a policy of its own."""
    name = shop.upload(path)
    with transaction(shop.sessions) as session:
        variant_policies.set_policy(session, name, policy)
    prepare(shop.sessions, shop.artifacts, shop.settings.model_copy(update=settings), name, 1)
    return name, shop.look(name)


def stored(shop: Shop, name: str) -> dict[str, Variant]:
    with transaction(shop.sessions, write=False) as session:
        return {row.name: row for row in session.query(Variant).where(Variant.model == name)}


def figures(ended: Ended) -> dict[str, dict[str, object]]:
    return {row["name"]: row for row in ended.report["variants"]}


def give(shop: Shop, path: Path, name: str, kind: Kind, **arrays: np.ndarray) -> None:
    np.savez(path, **arrays)
    artifact = shop.artifacts.add_file(path)
    with transaction(shop.sessions) as session:
        keep(
            session, name, kind, digest=artifact.digest, size_bytes=artifact.size_bytes,
            instances=len(next(iter(arrays.values()))), uploaded_by="t",
        )  # fmt: skip


@pytest.mark.long
def test_all_variants_of_a_keras_model_are_made_measured_and_kept(shop: Shop, model_files: dict[str, ModelFile]):
    # given a policy that asks for everything and is content with little
    model = model_files["dense"]
    policy = VariantPolicy(NAMES, absolute=1e-5, relative=1e-4, top1_floor=0.3)
    # when the model is prepared
    name, ended = prepared(shop, model.path, policy)
    # then every variant was made, is within its rule, and has all figures
    assert ended.state == "AVAILABLE", ended.error_message
    steps = [step["name"] for step in ended.report["steps"]]
    assert steps[steps.index("parity") :][:4] == ["parity", "variants", "measure", "store"]
    found = figures(ended)
    assert {row: figure["reason"] for row, figure in found.items()} == dict.fromkeys(NAMES)
    for figure in found.values():
        assert figure["accepted"]
        assert {"1", "8", "32", str(ended.report["batching"]["max_batch"])} <= set(figure["latency_ms"])  # type: ignore[call-overload] # a row of JSON
        assert min(figure[part] or 0 for part in ("size_bytes", "load_seconds", "memory_bytes")) > 0  # type: ignore[type-var] # as above
    assert {row for row, figure in found.items() if figure["quantised"]} == {
        "onnx-fp16", "onnx-int8", "pruned", "litert-int8",
    }  # fmt: skip
    # and lies in the store with its figures, smaller where it should be
    rows = stored(shop, name)
    assert set(rows) == set(NAMES)
    assert all(json.loads(row.figures or "")["latency_ms"] for row in rows.values())
    assert rows["onnx-int8"].size_bytes < rows["onnx-fp16"].size_bytes < rows["onnx"].size_bytes
    assert rows["pruned"].size_bytes < rows["onnx"].size_bytes
    assert rows["litert-int8"].size_bytes < rows["litert"].size_bytes
    # and a float variant serves: quantised ones were not allowed to
    assert ended.served is not None
    assert ended.served.variant == "onnx"


def test_by_default_only_what_serves_is_kept(shop: Shop, tmp_path: Path):
    name = shop.upload(classifier(tmp_path / "plain.onnx", scale=1.5))
    prepare(shop.sessions, shop.artifacts, shop.settings, name, 1)
    assert set(stored(shop, name)) == {"onnx"}
    assert "variants" not in [step["name"] for step in shop.look(name).report["steps"]]


@pytest.mark.parametrize("variant", ["onnx-int8", "pruned"])
def test_a_named_variant_serves(shop: Shop, tmp_path: Path, variant: str):
    # given a policy that names it
    policy = VariantPolicy(("onnx", variant), serve=variant, top1_floor=0.9)
    # when a version is prepared
    _, ended = prepared(shop, classifier(tmp_path / f"{variant}.onnx"), policy)
    # then it is what workers load, and it answers nearly as the model does
    assert ended.served is not None, ended.error_message
    assert (ended.served.variant, ended.report["chosen"]) == (variant, variant)
    assert ended.report["reason"].startswith(f"{variant} serves, as the policy names it")
    predictor = load(ended.served, shop.artifacts, shop.settings)
    answer = predictor.run({"x": np.ones((3, 64), np.float32)})["y"]
    assert (answer.dtype, answer.shape) == (np.float32, (3, 8))
    assert np.abs(answer - 8.0).max() < 0.1


def test_a_quantised_variant_below_the_floor_is_refused_with_its_figures(shop: Shop, tmp_path: Path):
    # given a floor that eight bits do not reach
    policy = VariantPolicy(("onnx", "onnx-int8"), quantised=True, top1_floor=1.0)
    name, ended = prepared(shop, classifier(tmp_path / "floor.onnx", scale=2.0), policy)
    # then the version serves without it, and the report has its figures all the same
    refused = figures(ended)["onnx-int8"]
    assert ended.report["chosen"] == "onnx"
    assert "top-1 agreement is 0.9" in str(refused["reason"])
    assert refused["latency_ms"]
    assert "onnx-int8 was refused: its top-1 agreement" in ended.report["reason"]
    assert set(stored(shop, name)) == {"onnx"}


def test_a_version_is_refused_where_the_variant_that_is_to_serve_is(shop: Shop, tmp_path: Path):
    policy = VariantPolicy(("pruned",), serve="pruned", top1_floor=1.0)
    _, ended = prepared(shop, line(tmp_path / "named.onnx", weights=[1.0, 2.0], bias=0.5), policy)
    assert (ended.state, ended.error_code) == ("END", "variant_refused")
    assert "no weights are large enough" in (ended.error_message or "")


def test_what_an_upload_cannot_become_is_told_and_refuses_nothing(shop: Shop, tmp_path: Path):
    policy = VariantPolicy(("onnx", "savedmodel", "litert"))
    _, ended = prepared(shop, classifier(tmp_path / "flat.onnx", scale=3.0), policy)
    assert ended.state == "AVAILABLE"
    assert figures(ended)["litert"]["reason"] == "it is made of savedmodel, which there is not"
    assert figures(ended)["savedmodel"]["reason"] == "the upload brings none"


def test_uploaded_samples_calibrate_and_are_part_of_the_proof(shop: Shop, tmp_path: Path):
    # given calibration samples, and inputs of two kinds: fitting ones, and of another shape
    path = classifier(tmp_path / "calibrated.onnx", scale=0.5, softmax=True)
    name = shop.upload(path)
    random = np.random.default_rng(1)
    give(shop, tmp_path / "c.npz", name, Kind.CALIBRATION, x=random.random((20, 64), np.float32))
    give(shop, tmp_path / "i.npz", name, Kind.INPUTS, x=random.random((70, 64)))
    with transaction(shop.sessions) as session:
        variant_policies.set_policy(session, name, VariantPolicy(("onnx-int8",), top1_floor=0.8))
    # when it is prepared
    prepare(shop.sessions, shop.artifacts, shop.settings, name, 1)
    # then it was quantised with them and without, the nearer form was kept, and the inputs took part
    ended = shop.look(name)
    told = re.fullmatch(
        r"(static: calibrated with 20 uploaded instances|dynamic: its activations are quantised in each call); "
        r"it is off by (\S+), (static|dynamic) would be by (\S+)", str(figures(ended)["onnx-int8"]["detail"]),
    )  # fmt: skip
    assert told is not None
    assert not told[1].startswith(told[3])
    assert float(told[2]) <= float(told[4])
    assert ", 70 uploaded instances" in next(s["detail"] for s in ended.report["steps"] if s["name"] == "load")


def test_calibrated_probabilities_are_no_multiples_of_what_eight_bits_tell_apart(tmp_path: Path):
    # given a graph that ends with a softmax, and the ranges of its inputs
    source = classifier(tmp_path / "soft.onnx", scale=0.5, softmax=True)
    inputs = np.random.default_rng(2).random((50, 64), np.float32)
    # when it is quantised to them
    target = tmp_path / "static.onnx"
    assert quantise({}, {"source": str(source), "target": str(target)}, {"x": inputs}) == ({}, {})
    # then what the softmax answers is what callers get
    graph = onnx.load(target).graph
    assert "QuantizeLinear" in {node.op_type for node in graph.node}
    assert next(node.op_type for node in graph.node if "y" in node.output) == "Softmax"
    signature = Signature((TensorSpec("x", "float32", (None, 64)),), (TensorSpec("y", "float32", (None, 8)),))
    own, static = (OnnxPredictor(path, signature, 0).run({"x": inputs})["y"] for path in (source, target))
    assert len(np.unique(static)) > 256
    assert np.abs(own - static).max() < 0.02


def test_samples_of_another_shape_are_left_out_and_told_of(shop: Shop, tmp_path: Path):
    name = shop.upload(classifier(tmp_path / "unfit.onnx", scale=5.0))
    give(shop, tmp_path / "i.npz", name, Kind.INPUTS, x=np.zeros((4, 3), np.float32))
    prepare(shop.sessions, shop.artifacts, shop.settings, name, 1)
    ended = shop.look(name)
    assert ended.state == "AVAILABLE"
    told = next(step["detail"] for step in ended.report["steps"] if step["name"] == "load")
    assert told.endswith("without the uploaded instances: x has the shape (4, 3), not (None, 64)")


@pytest.mark.parametrize("damage", ["cut off", "flipped"])
def test_a_packed_graph_that_is_damaged_is_no_model(tmp_path: Path, damage: str):
    data = bytearray(gzip.compress(classifier(tmp_path / "whole.onnx").read_bytes(), mtime=0))
    data = data[:-9] if damage == "cut off" else data[:60] + bytes([data[60] ^ 255]) + data[61:]
    path = tmp_path / "packed.onnx"
    path.write_bytes(data)
    signature = Signature((TensorSpec("x", "float32", (None, 64)),), (TensorSpec("y", "float32", (None, 8)),))
    with pytest.raises(PredictionFailed, match="cannot be loaded"):
        OnnxPredictor(path, signature, 0)
