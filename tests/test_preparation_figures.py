"""Samples, comparisons and measurements of a preparation, without any model."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_store.signature import Signature, TensorSpec
from workers.errors import PredictionFailed, RunnerFailed, UploadRefused
from workers.preparation import measure, parity
from workers.preparation.report import Report, VariantFigures
from workers.preparation.samples import Range, Samples, repeated

SIGNATURE = Signature(
    (
        TensorSpec("image", "uint8", (None, 4, 4)),
        TensorSpec("token", "int32", (None, None)),
        TensorSpec("city", "string", (None, 1)),
        TensorSpec("weight", "float32", (None,)),
        TensorSpec("flag", "bool", (None, 2)),
        TensorSpec("fixed", "int8", (3, 2)),
    ),
    (TensorSpec("y", "float32", (None, 2)),),
)
RANGES = [Range(), Range(below=7), Range(choices=("rome", "bonn")), Range(), Range(), Range(choices=(5, 9))]


def samples(seed: int = 1) -> Samples:
    return Samples(SIGNATURE, RANGES, 11, np.random.default_rng(seed))


def test_samples_have_the_signatures_shapes_and_dtypes_and_stay_in_range():
    drawn = samples().draw(5)
    assert {name: (str(tensor.dtype), tensor.shape) for name, tensor in drawn.items()} == {
        "image": ("uint8", (5, 4, 4)),
        "token": ("int32", (5, 11)),
        "city": ("object", (5, 1)),
        "weight": ("float32", (5,)),
        "flag": ("bool", (5, 2)),
        "fixed": ("int8", (3, 2)),
    }
    assert drawn["token"].min() >= 0
    assert drawn["token"].max() < 7
    assert set(drawn["city"].reshape(-1)) <= {b"rome", b"bonn"}
    assert set(drawn["fixed"].reshape(-1)) <= {5, 9}
    assert np.all((drawn["weight"] >= 0) & (drawn["weight"] < 1))


def test_the_same_seed_draws_the_same_samples():
    first, second = samples(3).draw(4, normal=True), samples(3).draw(4, normal=True)
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_texts_are_made_of_the_vocabulary_and_of_words_that_are_not_in_it():
    signature = Signature((TensorSpec("t", "string", (None,)),), ())
    drawn = Samples(signature, [Range(words=("known",) * 50)], 1, np.random.default_rng(2)).draw(40)["t"]
    words = {word for text in drawn for word in text.decode().split()}
    assert "known" in words
    assert len(words) > 1


def test_instances_are_repeated_to_fill_a_batch():
    assert repeated({"x": np.array([[1], [2]])}, 5)["x"].tolist() == [[1], [2], [1], [2], [1]]


def compare(expected: object, found: object) -> parity.Difference:
    pair = ({"y": np.asarray(expected)}, {"y": np.asarray(found)})
    return parity.compare([pair], parity.SINGLE)


def test_a_variant_within_the_tolerance_is_accepted_with_its_figures():
    difference = compare(np.array([[1.0, 100.0]]), np.array([[1.0, 100.009]]))
    assert difference.reason is None
    assert difference.max_abs == pytest.approx(0.009)
    assert difference.max_rel == pytest.approx(9e-5)
    assert difference.top1_agreement == 1.0


def test_a_variant_outside_the_tolerance_is_refused_with_its_figures():
    difference = compare(np.array([[1.0, 2.0], [3.0, 1.0]]), np.array([[2.5, 2.0], [3.0, 1.0]]))
    assert difference.reason == "y differs by up to 1.5 (relative 1.5)"
    assert difference.top1_agreement == 0.5


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (np.zeros((2, 1), np.float32), "y: float32 (2, 1) instead of float32 (1, 2)"),
        (np.zeros((1, 2), np.float64), "y: float64 (1, 2) instead of float32 (1, 2)"),
    ],
)
def test_another_shape_or_dtype_is_refused(found: np.ndarray, reason: str):
    difference = compare(np.zeros((1, 2), np.float32), found)
    assert difference.reason == reason
    assert math.isinf(difference.max_abs)


def test_integers_and_texts_must_be_equal():
    assert compare(np.array([1, 2]), np.array([1, 3])).reason is not None
    assert compare(np.array([b"a"], object), np.array([b"b"], object)).reason is not None
    assert compare(np.array([b"a"], object), np.array([b"a"], object)).reason is None


def test_the_same_infinities_and_gaps_are_no_difference():
    same = [math.inf, -math.inf, math.nan, 1.0]
    assert compare(same, same) == parity.Difference(0.0, 0.0, None, None)
    assert compare([1.0, math.nan], [1.0, 2.0]).reason is not None


@given(values=st.lists(st.floats(-1e6, 1e6, width=32), min_size=1), shift=st.floats(0, 1e-3))
def test_acceptance_is_the_promised_inequality(values: list[float], shift: float):
    expected = np.array(values)
    found = expected + shift
    within = bool(np.all(np.abs(found - expected) <= 1e-5 + 1e-4 * np.abs(expected)))
    assert (compare(expected, found).reason is None) == within


def test_outputs_that_do_not_fit_the_signature_are_named():
    signature = Signature((TensorSpec("x", "float32", (None, 2)),), (TensorSpec("y", "float32", (None, 2)),))
    inputs = {"x": np.zeros((3, 2), np.float32)}
    assert parity.misfit(signature, inputs, {"y": np.zeros((3, 2), np.float32)}) is None
    assert "missing" in (parity.misfit(signature, inputs, {}) or "")
    assert "(3, 5)" in (parity.misfit(signature, inputs, {"y": np.zeros((3, 5), np.float32)}) or "")
    assert "1 rows" in (parity.misfit(signature, inputs, {"y": np.zeros((1, 2), np.float32)}) or "")


def test_measuring_ascends_to_the_largest_batch():
    assert measure.ascend(lambda size: size / 1000, 64, 10.0).seconds == {1: 0.001, 8: 0.008, 32: 0.032, 64: 0.064}
    assert list(measure.ascend(lambda _: 0.1, 8, 10.0).seconds) == [1, 8]
    assert list(measure.ascend(lambda _: 0.1, 3, 10.0).seconds) == [1, 3]
    assert list(measure.ascend(lambda _: 0.1, 1, 10.0).seconds) == [1]


def test_measuring_stops_before_a_batch_that_would_take_too_long():
    tried = []

    def seconds_at(size: int) -> float:
        tried.append(size)
        return size * 1.0

    assert measure.ascend(seconds_at, 64, 10.0).max_batch == 8
    assert tried == [1, 8]


@pytest.mark.parametrize("error", [RunnerFailed("died", code="runner_memory"), PredictionFailed("no")])
def test_a_batch_that_fails_ends_the_ascent_and_the_first_one_the_preparation(error: Exception):
    def fails_from(smallest: int) -> measure.Measured:
        def seconds_at(size: int) -> float:
            if size >= smallest:
                raise error
            return 0.001

        return measure.ascend(seconds_at, 64, 10.0)

    assert fails_from(32).max_batch == 8
    with pytest.raises(type(error)):
        fails_from(1)


def test_a_batch_is_no_larger_than_its_bytes_allow():
    image = {"x": np.zeros((1, 1024, 1024, 4), np.float32)}
    assert measure.largest_batch(64, 1, image, {"y": np.zeros((1, 10))}) == 8
    assert measure.largest_batch(64, 1, {"x": np.zeros((1, 3))}, {"y": np.zeros((1, 10))}) == 64


def test_a_report_is_plain_json_and_tells_the_step_that_refused():
    announced: list[str] = []
    report = Report(announced.append)
    with report.step("receive") as step:
        step.detail = "10 bytes"
    with pytest.raises(UploadRefused), report.step("inspect"):
        raise UploadRefused("config: bad", code="class_not_allowed")
    report.variants = [VariantFigures("onnx", "onnx", max_abs_difference=math.inf, latency_ms={1: 0.123456})]

    document = json.loads(json.dumps(report.to_json(), allow_nan=False))

    assert announced == ["receive", "inspect"]
    assert [(step["name"], step["outcome"], step["detail"]) for step in document["steps"]] == [
        ("receive", "ok", "10 bytes"),
        ("inspect", "refused", "config: bad"),
    ]
    assert document["variants"][0]["latency_ms"] == {"1": 0.1235}
    assert document["variants"][0]["max_abs_difference"] is None
