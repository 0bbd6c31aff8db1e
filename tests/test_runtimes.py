"""Predictors: ONNX Runtime in this process, TensorFlow in a runner, and loading either from the store."""

from __future__ import annotations

import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from model_store.artifacts import Artifacts
from model_store.errors import ArtifactCorrupt, ArtifactMissing
from model_store.registry import Served
from model_store.signature import Signature, Tensors, TensorSpec
from monitoring.metrics import MODEL_LOADS
from workers.errors import InputInvalid, PredictionFailed, PredictorTooLarge
from workers.runtimes.loading import blank, load
from workers.runtimes.onnx import SESSION_BYTES, OnnxPredictor
from workers.settings import WorkerSettings

FLOAT, STRING, INT64 = TensorProto.FLOAT, TensorProto.STRING, TensorProto.INT64
SMALL = 1024


def spec(name: str, dtype: str, *shape: int | None) -> TensorSpec:
    return TensorSpec(name, dtype, shape)


def onnx_model(
    path: Path,
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    weights: list[onnx.TensorProto] | None = None,
) -> Path:
    graph = helper.make_graph(nodes, "graph", inputs, outputs, weights or [])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.write_bytes(model.SerializeToString())
    return path


def value(name: str, kind: int, *shape: int | str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, list(shape))


def add_and_subtract(path: Path) -> Path:
    """plus = left + right, minus = left - right, for rows of three floats."""
    return onnx_model(
        path,
        [
            helper.make_node("Add", ["left", "right"], ["plus"]),
            helper.make_node("Sub", ["left", "right"], ["minus"]),
        ],
        [value("left", FLOAT, "N", 3), value("right", FLOAT, "N", 3)],
        [value("plus", FLOAT, "N", 3), value("minus", FLOAT, "N", 3)],
    )


def look_up(path: Path) -> Path:
    """The number at each of the given places of five."""
    table = numpy_helper.from_array(np.arange(5, dtype=np.float32) * 10, "table")
    node = helper.make_node("Gather", ["table", "place"], ["found"])
    return onnx_model(path, [node], [value("place", INT64, "N")], [value("found", FLOAT, "N")], [table])


LOOK_UP = Signature((spec("place", "int64", None),), (spec("found", "float32", None),))


def repeat_text(path: Path) -> Path:
    return onnx_model(
        path,
        [helper.make_node("Concat", ["text", "text"], ["twice"], axis=1)],
        [value("text", STRING, "N", 1)],
        [value("twice", STRING, "N", 2)],
    )


REPEAT_TEXT = Signature((spec("text", "string", None, 1),), (spec("twice", "string", None, 2),))


# ONNX


def test_an_onnx_predictor_answers_by_the_names_of_its_signature_whatever_the_order(tmp_path: Path):
    signature = Signature(
        (spec("right", "float32", None, 3), spec("left", "float32", None, 3)),
        (spec("minus", "float32", None, 3), spec("plus", "float32", None, 3)),
    )
    predictor = OnnxPredictor(add_and_subtract(tmp_path / "m"), signature, SMALL)
    left, right = np.full((2, 3), 5, np.float32), np.full((2, 3), 3, np.float32)

    outputs = predictor.run({"left": left, "right": right})

    assert list(outputs) == ["minus", "plus"]
    assert outputs["minus"].tolist() == [[2, 2, 2]] * 2
    assert outputs["plus"].tolist() == [[8, 8, 8]] * 2


def test_names_that_the_file_does_not_know_are_matched_by_position(tmp_path: Path):
    signature = Signature(
        (spec("a", "float32", None, 3), spec("b", "float32", None, 3)),
        (spec("sum", "float32", None, 3), spec("difference", "float32", None, 3)),
    )
    predictor = OnnxPredictor(add_and_subtract(tmp_path / "m"), signature, SMALL)
    outputs = predictor.run({"a": np.full((1, 3), 5, np.float32), "b": np.full((1, 3), 3, np.float32)})
    assert outputs["sum"].tolist() == [[8, 8, 8]]
    assert outputs["difference"].tolist() == [[2, 2, 2]]


def test_strings_pass_through_onnx_as_utf8_bytes(tmp_path: Path):
    predictor = OnnxPredictor(repeat_text(tmp_path / "m"), REPEAT_TEXT, SMALL)
    texts = np.array([["grün".encode()], [b""]], object)

    outputs = predictor.run({"text": texts})

    assert outputs["twice"].tolist() == [["grün".encode()] * 2, [b"", b""]]
    assert texts.tolist() == [["grün".encode()], [b""]]
    assert predictor.run({"text": np.empty((0, 1), object)})["twice"].shape == (0, 2)
    with pytest.raises(InputInvalid, match="input 'text' holds a string that is no UTF-8"):
        predictor.run({"text": np.array([[b"\xff"]], object)})


def test_an_answer_that_onnx_runtime_cannot_give_is_explained(tmp_path: Path):
    names = helper.make_tensor("names", STRING, [2], [b"plain", b"\xff"])
    node = helper.make_node("Gather", ["names", "place"], ["name"])
    path = onnx_model(tmp_path / "m", [node], [value("place", INT64, "N")], [value("name", STRING, "N")], [names])
    predictor = OnnxPredictor(path, Signature((spec("place", "int64", None),), (spec("name", "string", None),)), SMALL)

    assert predictor.run({"place": np.array([0])})["name"].tolist() == [b"plain"]
    with pytest.raises(PredictionFailed, match="answered with a string that is no UTF-8, which ONNX Runtime does not"):
        predictor.run({"place": np.array([0, 1])})


def test_a_models_own_error_says_what_happened_and_nothing_of_where(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    predictor = OnnxPredictor(look_up(tmp_path / "m"), LOOK_UP, SMALL)
    assert predictor.run({"place": np.array([1, 4])})["found"].tolist() == [10, 40]

    with pytest.raises(PredictionFailed) as failed:
        predictor.run({"place": np.array([99])})

    assert failed.value.message == (
        "the model failed: indices element out of data bounds, idx=99 must be within the inclusive range [-5,4]"
    )
    assert capfd.readouterr().err == ""


def test_a_wrong_dtype_is_the_models_error(tmp_path: Path):
    predictor = OnnxPredictor(look_up(tmp_path / "m"), LOOK_UP, SMALL)
    with pytest.raises(PredictionFailed, match="Unexpected input data type"):
        predictor.run({"place": np.array([1.0])})


def test_an_output_without_a_row_for_each_instance_is_an_error(tmp_path: Path):
    node = helper.make_node("ReduceSum", ["x"], ["y"], keepdims=1)
    path = onnx_model(tmp_path / "m", [node], [value("x", FLOAT, "N", 3)], [value("y", FLOAT, "M", 1)])
    signature = Signature((spec("x", "float32", None, 3),), (spec("y", "float32", None, 1),))
    predictor = OnnxPredictor(path, signature, SMALL)

    assert predictor.run({"x": np.ones((1, 3), np.float32)})["y"].tolist() == [[3]]
    with pytest.raises(PredictionFailed, match="one row for each instance"):
        predictor.run({"x": np.ones((2, 3), np.float32)})


def test_several_threads_may_run_one_onnx_predictor(tmp_path: Path):
    predictor = OnnxPredictor(look_up(tmp_path / "m"), LOOK_UP, SMALL)
    wrong: list[Tensors] = []

    def run_often(place: int) -> None:
        for _ in range(200):
            outputs = predictor.run({"place": np.array([place])})
            if outputs["found"].tolist() != [place * 10]:
                wrong.append(outputs)

    threads = [threading.Thread(target=run_often, args=(place,)) for place in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_file_that_is_no_model_or_has_another_signature_cannot_be_loaded(tmp_path: Path):
    (tmp_path / "junk").write_bytes(b"junk")
    with pytest.raises(PredictionFailed, match="cannot be loaded"):
        OnnxPredictor(tmp_path / "junk", LOOK_UP, SMALL)
    with pytest.raises(PredictionFailed, match="other inputs or outputs"):
        OnnxPredictor(add_and_subtract(tmp_path / "m"), LOOK_UP, SMALL)


def test_an_onnx_model_cannot_read_another_file_as_its_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "secret").write_bytes(np.arange(5, dtype=np.float32).tobytes())
    monkeypatch.chdir(tmp_path)
    table = TensorProto(name="table", data_type=FLOAT, dims=[5], data_location=TensorProto.EXTERNAL)
    for key, text in {"location": "secret", "offset": "0", "length": "20"}.items():
        entry = table.external_data.add()
        entry.key, entry.value = key, text
    node = helper.make_node("Gather", ["table", "place"], ["found"])
    path = onnx_model(tmp_path / "m", [node], [value("place", INT64, "N")], [value("found", FLOAT, "N")], [table])

    with pytest.raises(PredictionFailed, match="cannot be loaded"):
        OnnxPredictor(path, LOOK_UP, SMALL)


# Loading


@pytest.fixture
def artifacts(tmp_path: Path) -> Artifacts:
    return Artifacts(tmp_path / "store", 10**9)


@pytest.fixture
def worker_settings(tmp_path: Path) -> WorkerSettings:
    return WorkerSettings(scratch_dir=tmp_path / "scratch", hang_limit_seconds=10)


def served(signature: Signature, digest: str, runtime: str = "onnx") -> Served:
    return Served("m", 1, signature, runtime, runtime, digest, SMALL, 8, 2, None)


def loads(runtime: str) -> float:
    """How many loads were counted so far."""
    return sum(
        sample.value
        for metric in MODEL_LOADS.labels(runtime).collect()
        for sample in metric.samples
        if sample.name.endswith("_count")
    )


def test_a_served_version_is_loaded_warm_and_counted(
    artifacts: Artifacts, worker_settings: WorkerSettings, tmp_path: Path
):
    digest = artifacts.add_file(look_up(tmp_path / "m")).digest
    before = loads("onnx")

    predictor = load(served(LOOK_UP, digest), artifacts, worker_settings)

    assert predictor.run({"place": np.array([3])})["found"].tolist() == [30]
    assert (predictor.runtime, predictor.memory_bytes, predictor.signature) == ("onnx", SESSION_BYTES, LOOK_UP)
    assert loads("onnx") == before + 1


def test_a_model_that_fails_on_zeros_is_loaded_all_the_same(
    artifacts: Artifacts, worker_settings: WorkerSettings, tmp_path: Path
):
    divide = helper.make_node("Div", ["one", "x"], ["y"])
    one = numpy_helper.from_array(np.array(1, np.int64), "one")
    gather = [divide, helper.make_node("Gather", ["one_row", "y"], ["z"])]
    row = numpy_helper.from_array(np.array([7, 8], np.int64), "one_row")
    path = onnx_model(tmp_path / "m", gather, [value("x", INT64, "N")], [value("z", INT64, "N")], [one, row])
    signature = Signature((spec("x", "int64", None),), (spec("z", "int64", None),))
    digest = artifacts.add_file(path).digest

    predictor = load(served(signature, digest), artifacts, worker_settings)

    assert predictor.run({"x": np.array([1, 5])})["z"].tolist() == [8, 7]


def test_a_missing_or_damaged_artifact_is_not_loaded(
    artifacts: Artifacts, worker_settings: WorkerSettings, tmp_path: Path
):
    digest = artifacts.add_file(look_up(tmp_path / "m")).digest
    with pytest.raises(ArtifactMissing):
        load(served(LOOK_UP, "0" * 64), artifacts, worker_settings)
    path = artifacts.path(digest)
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-1] + b"\x00")
    with pytest.raises(ArtifactCorrupt):
        load(served(LOOK_UP, digest), artifacts, worker_settings)


def test_a_version_larger_than_the_budget_is_not_even_opened(artifacts: Artifacts, worker_settings: WorkerSettings):
    large = replace(served(LOOK_UP, "0" * 64), memory_bytes=worker_settings.predictor_budget_bytes + 1)
    with pytest.raises(PredictorTooLarge):
        load(large, artifacts, worker_settings)


def test_an_unknown_runtime_is_refused(artifacts: Artifacts, worker_settings: WorkerSettings):
    with pytest.raises(PredictionFailed, match="no runtime 'litert'"):
        load(served(LOOK_UP, "0" * 64, "litert"), artifacts, worker_settings)


def test_blank_inputs_take_the_batch_first_and_one_for_every_other_free_dimension():
    signature = Signature(
        (spec("image", "float32", None, None, 28, 3), spec("text", "string", None), spec("fixed", "int8", 2, 2)),
        (spec("y", "float32", None),),
    )
    tensors = blank(signature, 4)
    assert {name: tensor.shape for name, tensor in tensors.items()} == {
        "image": (4, 1, 28, 3),
        "text": (4,),
        "fixed": (2, 2),
    }
    assert tensors["text"].tolist() == [b""] * 4


def test_serving_imports_no_tensorflow_keras_or_h5py():
    script = (
        "import sys, workers.runtimes.loading, workers.predictor_cache, workers.runner.process;"
        "print(sorted({'tensorflow', 'keras', 'h5py', 'onnx', 'tf2onnx'} & set(sys.modules)))"
    )
    assert subprocess.check_output([sys.executable, "-c", script]) == b"[]\n"
