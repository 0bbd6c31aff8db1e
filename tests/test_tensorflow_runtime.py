"""A SavedModel in a runner: its answers, its errors, and what happens when the runner dies."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from model_store.artifacts import Artifacts
from model_store.errors import ArtifactMissing
from model_store.registry import Served
from model_store.signature import Signature, Tensors, TensorSpec
from workers.errors import PredictionFailed, RunnerFailed
from workers.runner.process import Runner
from workers.runner.savedmodel import match_names
from workers.runtimes.loading import load
from workers.runtimes.tensorflow import RunnerPredictor
from workers.settings import WorkerSettings

SMALL = 1024


def spec(name: str, dtype: str, *shape: int | None) -> TensorSpec:
    return TensorSpec(name, dtype, shape)


SHOUT = Signature(
    (spec("text", "string", None, 1), spec("a_weight", "float32", None)),
    (spec("shout", "string", None, 1), spec("score", "float32", None)),
)


@pytest.fixture(scope="module")
def shout_archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("savedmodel")
    with Runner(WorkerSettings(scratch_dir=folder), entry="tests.runner_commands") as runner:
        runner.call("make_savedmodel", {}, {}, timeout_seconds=120)
        return (runner.scratch / "made.tar").rename(folder / "made.tar")


@pytest.fixture(scope="module")
def shout(shout_archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunnerPredictor]:
    """One predictor for the tests below; each leaves it able to answer."""
    settings = WorkerSettings(scratch_dir=tmp_path_factory.mktemp("scratch"), hang_limit_seconds=3)
    predictor = RunnerPredictor(lambda: contextlib.nullcontext(shout_archive), SHOUT, SMALL, settings)
    yield predictor
    predictor.close()
    assert list(settings.scratch_dir.iterdir()) == []
    with pytest.raises(RunnerFailed):
        predictor.run(texts(b"a"))


def texts(*items: bytes, weight: float = 1.0) -> Tensors:
    return {"text": np.array([[item] for item in items], object), "a_weight": np.full(len(items), weight, np.float32)}


def runner_pids() -> list[int]:
    return [child.pid for child in psutil.Process().children() if "workers.runner" in child.cmdline()]


def kill(*pids: int) -> None:
    """Kill, and wait until each is dead: a process of TensorFlow's takes its time."""
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


def test_a_savedmodel_answers_strings_and_numbers_from_a_runner(shout: RunnerPredictor):
    outputs = shout.run(texts(b"hello", b"", "grün".encode(), weight=0.5))
    assert list(outputs) == ["shout", "score"]
    assert outputs["shout"].tolist() == [[b"HELLO"], [b""], ["GR\u00fcN".encode()]]
    assert outputs["score"].tolist() == [5.0, 0.0, 5.0]
    assert shout.runtime == "tensorflow"


def test_an_error_in_the_graph_is_the_models_error_and_the_runner_stays(shout: RunnerPredictor):
    before = runner_pids()
    with pytest.raises(PredictionFailed, match=r"the model failed: .*a weight is negative"):
        shout.run(texts(b"a", weight=-1))
    with pytest.raises(PredictionFailed):
        shout.run({"text": np.zeros((1, 1), np.float32), "a_weight": np.zeros(1, np.float32)})
    assert shout.run(texts(b"a"))["shout"].tolist() == [[b"A"]]
    assert runner_pids() == before


def test_a_hanging_or_killed_runner_is_replaced_and_then_waited_for(shout: RunnerPredictor):
    with pytest.raises(RunnerFailed) as failed:
        shout.run(texts(b"hang"))
    assert failed.value.code == "runner_timeout"
    assert runner_pids() == []

    assert shout.run(texts(b"a"))["shout"].tolist() == [[b"A"]]  # the first restart is at once

    kill(*runner_pids())
    assert shout.run(texts(b"b"))["shout"].tolist() == [[b"B"]]


def test_a_savedmodel_in_the_store_is_loaded_checked_and_after_failures_started_more_slowly(
    shout_archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    artifacts = Artifacts(tmp_path / "store", 10**9)
    worker_settings = WorkerSettings(scratch_dir=tmp_path / "scratch", hang_limit_seconds=10)
    monkeypatch.setattr("workers.runtimes.tensorflow.FIRST_PAUSE_SECONDS", 20.0)
    before = runner_pids()
    signature = Signature(SHOUT.inputs, (SHOUT.outputs[0], spec("score", "float64", None)))
    digest = artifacts.add_file(shout_archive).digest
    served = Served("m", 1, signature, "tensorflow", "savedmodel", digest, SMALL, 8, 2, None)
    predictor = load(served, artifacts, worker_settings)
    with pytest.raises(PredictionFailed, match="'score' is not float64"):
        predictor.run(texts(b"a"))

    artifacts.delete(digest)
    kill(*set(runner_pids()) - set(before))
    with pytest.raises(ArtifactMissing):
        predictor.run(texts(b"a"))
    artifacts.add_file(shout_archive)
    with pytest.raises(RunnerFailed, match="is being replaced"):
        predictor.run(texts(b"a"))

    predictor.close()
    assert list(worker_settings.scratch_dir.iterdir()) == []


def test_names_of_a_savedmodel_are_matched_but_never_guessed():
    assert match_names(["b", "a"], ["a", "b"]) == [("b", "b"), ("a", "a")]
    assert match_names(["x"], ["keras_tensor"]) == [("x", "keras_tensor")]
    assert match_names(["u", "v"], ["output_1", "output_0"]) == [("u", "output_0"), ("v", "output_1")]
    for wanted, known in ([["x", "y"], ["a", "b"]], [["x"], ["a", "b"]], [["x", "y"], ["output_0"]]):
        with pytest.raises(PredictionFailed, match="other inputs or outputs"):
            match_names(wanted, known)
