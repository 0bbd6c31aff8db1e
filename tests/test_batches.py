"""Batches of one version: sizes, padding, and where they run; with ONNX Runtime."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from model_store.batching import Batching
from model_store.signature import Signature, Tensors, TensorSpec
from tests.onnx_models import line
from workers.batches import Loaded, predict_all
from workers.protocols.body import Body
from workers.protocols.contract import Contract
from workers.runtimes.onnx import OnnxPredictor

SIGNATURE = Signature((TensorSpec("x", "float32", (None, 2)),), (TensorSpec("y", "float32", (None, 1)),))


@pytest.fixture
def predictor(tmp_path: Path) -> OnnxPredictor:
    return OnnxPredictor(line(tmp_path / "line.onnx", weights=[2.0, 3.0], bias=1.0), SIGNATURE, 0)


def loaded(
    predictor: OnnxPredictor, max_batch: int, batch_seconds: float = 0.0001, batching: Batching | None = None
) -> Loaded:
    return Loaded(Contract("line", 1, SIGNATURE, 100), predictor, max_batch, 1, batch_seconds, batching)


class Watched:
    """Runs a predictor and notes the sizes of its batches."""

    def __init__(self, predictor: OnnxPredictor) -> None:
        self._predictor = predictor
        self.sizes: list[int] = []

    def __call__(self, tensors: Tensors) -> Tensors:
        self.sizes.append(len(tensors["x"]))
        return self._predictor.run(tensors)


def ask(version: Loaded, run: Watched, sizes: list[int]) -> list[object]:
    """The answers to one request of each size, with different numbers in all of them."""
    numbers = iter(np.arange(2 * sum(sizes), dtype=float).reshape(-1, 2).tolist())
    bodies = [json.dumps({"instances": [next(numbers) for _ in range(size)]}).encode() for size in sizes]
    outcomes = predict_all(version, [Body(body) for body in bodies], run)
    return [json.loads(outcome.data)["predictions"] for outcome in outcomes if isinstance(outcome, Body)]


def test_padded_batches_give_every_request_the_answers_that_unpadded_ones_give(predictor: OnnxPredictor):
    exact, padded = Watched(predictor), Watched(predictor)
    batching = Batching(((1, 0.001), (16, 0.002)), pad_to=(8, 16))
    asked = [1, 3, 2, 5, 16, 1]

    expected = ask(loaded(predictor, 16), exact, asked)
    answers = ask(loaded(predictor, 16, batching=batching), padded, asked)

    assert answers == expected
    assert [len(rows) for rows in expected if isinstance(rows, list)] == asked
    assert (exact.sizes, padded.sizes) == ([16, 12], [16, 16])


@pytest.mark.parametrize("instances", range(1, 18))
def test_padding_changes_no_answer_at_any_size(predictor: OnnxPredictor, instances: int):
    batching = Batching(((1, 0.001), (16, 0.002)), pad_to=(4, 8, 16))
    plain, padded = Watched(predictor), Watched(predictor)
    assert ask(loaded(predictor, 16, batching=batching), padded, [instances]) == ask(
        loaded(predictor, 16), plain, [instances]
    )


def test_what_runs_in_the_loop_is_decided_by_all_that_it_would_run(predictor: OnnxPredictor):
    short = loaded(predictor, 8, 0.0005)
    assert short.inline(1)
    assert short.inline(24)
    assert not short.inline(25)  # a fourth batch
    assert not loaded(predictor, 8, 0.003).inline(1)


def test_a_small_turn_of_a_slow_version_runs_in_the_loop_where_it_was_measured_to_be_short(predictor: OnnxPredictor):
    batching = Batching(((1, 0.0001), (64, 0.0064)))
    version = loaded(predictor, 64, 0.0064, batching)
    assert version.inline(10)
    assert not version.inline(30)
    assert not version.inline(64)


def test_answers_go_out_a_batch_at_a_time_unless_batches_are_very_short(predictor: OnnxPredictor):
    assert loaded(predictor, 1, 0.004).portion == 1
    assert loaded(predictor, 32, 0.010).portion == 32
    assert loaded(predictor, 1, 0.00001).portion == 200


def test_requests_are_read_ahead_where_batches_gain_little(predictor: OnnxPredictor):
    flat, steep = Batching(((1, 0.0035), (2, 0.0069))), Batching(((1, 0.001), (64, 0.002)))
    assert loaded(predictor, 1, 0.0035, Batching(((1, 0.0035),))).reads_ahead
    assert loaded(predictor, 2, 0.0069, flat).reads_ahead
    assert not loaded(predictor, 64, 0.002, steep).reads_ahead
    assert not loaded(predictor, 1, 0.0035).reads_ahead  # nothing is known
