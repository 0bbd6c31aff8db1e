"""Requests of both dialects for one version share an inference; and what carries them between gateway and worker."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest

from model_store.signature import Signature, Tensors, TensorSpec
from tests.onnx_models import line
from tests.open_inference_kit import binary_request, json_request, read_answer
from workers.batches import Loaded, predict_all
from workers.errors import InputInvalid
from workers.lanes import Answer, Bundle, pack_answers, pack_bundle, unpack_answers, unpack_bundle
from workers.protocols.body import TEXT, Body, Dialect
from workers.protocols.contract import Contract
from workers.runtimes.onnx import OnnxPredictor

SIGNATURE = Signature((TensorSpec("x", "float32", (None, 2)),), (TensorSpec("y", "float32", (None, 1)),))
ROWS = np.array([[1.0, 2.0], [3.0, -4.5], [0.1, 1e-3]], np.float32)


@pytest.fixture
def loaded(tmp_path: Path) -> Loaded:
    predictor = OnnxPredictor(line(tmp_path / "line.onnx", weights=[2.0, 3.0], bias=1.0), SIGNATURE, 0)
    return Loaded(Contract("line", 1, SIGNATURE, 100), predictor, 16, 1, 0.0001)


class Watched:
    """Runs a predictor and notes the tensors of its batches."""

    def __init__(self, loaded: Loaded) -> None:
        self._loaded = loaded
        self.batches: list[Tensors] = []

    def __call__(self, tensors: Tensors) -> Tensors:
        self.batches.append(tensors)
        return self._loaded.run(tensors)


def as_rows(rows: np.ndarray) -> Body:
    return Body(json.dumps({"instances": rows.tolist()}).encode())


def as_text(rows: np.ndarray) -> Body:
    return Body(json_request({"x": rows}), Dialect.OPEN_INFERENCE)


def as_bytes(rows: np.ndarray) -> Body:
    data, head = binary_request({"x": rows}, parameters={"binary_data_output": True})
    return Body(data, Dialect.OPEN_INFERENCE, head)


def test_requests_of_both_dialects_share_an_inference_and_each_gets_its_own_answer(loaded: Loaded):
    run = Watched(loaded)
    broken = Body(b"{}", Dialect.OPEN_INFERENCE)
    outcomes = predict_all(loaded, [as_rows(ROWS), as_bytes(ROWS), broken, as_text(ROWS[1:])], run)
    [batch] = run.batches
    assert batch["x"].tobytes() == np.concatenate([ROWS, ROWS, ROWS[1:]]).tobytes()
    by_rows, by_bytes, refused, by_text = outcomes
    assert isinstance(refused, InputInvalid)
    assert isinstance(by_rows, Body)
    assert isinstance(by_bytes, Body)
    assert isinstance(by_text, Body)
    expected = np.array(json.loads(by_rows.data)["predictions"], np.float32)
    np.testing.assert_allclose(expected[:, 0], 2 * ROWS[:, 0] + 3 * ROWS[:, 1] + 1, rtol=1e-6)
    assert read_answer(by_bytes.data, by_bytes.head).outputs["y"].tobytes() == expected.tobytes()
    assert read_answer(by_text.data).outputs["y"].tobytes() == expected[1:].tobytes()


def test_a_runtime_gets_tensors_that_begin_where_their_elements_may(loaded: Loaded):
    run = Watched(loaded)
    for width in range(1, 9):
        data, head = binary_request({"x": ROWS}, id="i" * width)
        [outcome] = predict_all(loaded, [Body(data, Dialect.OPEN_INFERENCE, head)], run)
        assert isinstance(outcome, Body)
    assert all(batch["x"].flags.aligned for batch in run.batches)


def test_a_bundle_carries_bodies_with_their_dialects_and_heads():
    predictions = ((1, as_rows(ROWS)), (2, as_bytes(ROWS)), (2**63, Body(b"", Dialect.OPEN_INFERENCE, 0)))
    assert unpack_bundle(b"".join(pack_bundle(b"reply", 20_000, predictions))) == Bundle(b"reply", 20_000, predictions)


def test_a_bundle_of_another_release_is_refused():
    former = struct.pack("<BHI", 1, 5, 20_000) + b"reply" + struct.pack("<QI", 7, 2) + b"{}"
    with pytest.raises(ValueError, match="the entry is a bundle of format 1, not 3"):
        unpack_bundle(former)


def test_a_bundle_that_is_cut_off_is_refused():
    whole, empty = (b"".join(pack_bundle(b"reply", 20_000, bodies)) for bodies in ([(1, Body(b"x" * 20))], []))
    for size in range(len(whole)):
        if size != len(empty):
            with pytest.raises(ValueError, match="the entry"):
                unpack_bundle(whole[:size])


def test_a_dialect_that_is_not_known_is_refused():
    with pytest.raises(ValueError, match="is not a bundle"):
        unpack_bundle(b"".join(pack_bundle(b"reply", 20_000, [(1, Body(b"{}", 9))])))


def test_answers_carry_the_length_of_their_json():
    answers = [Answer(1, 200, b"{}"), Answer(2, 200, b'{"a":1}\0\0', 7), Answer(3, 400, b'{"error":""}', TEXT)]
    assert unpack_answers(pack_answers(answers)) == answers
