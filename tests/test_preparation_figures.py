"""Samples, comparisons and measurements of a preparation, without any model."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_store.batching import Batching
from model_store.signature import Signature, Tensors, TensorSpec
from model_store.variant_policies import VariantPolicy
from workers.errors import PredictionFailed, RunnerFailed, UploadRefused
from workers.preparation import measure, parity, trial
from workers.preparation.candidates import Candidate
from workers.preparation.measure import Measured
from workers.preparation.proof import Reference
from workers.preparation.ranking import Ranking
from workers.preparation.report import Report, VariantFigures, told
from workers.preparation.samples import Range, Samples, repeated
from workers.settings import WorkerSettings

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


SINGLE = Signature((TensorSpec("x", "float32", (None, 1)),), (TensorSpec("y", "float32", (None, 1)),))


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


@pytest.mark.parametrize(
    ("inputs", "shape"),
    [
        ((None, 1), (None, 5)),
        ((None, None), (None, None)),  # its free dimensions may be those of the output
    ],
)
def test_an_output_is_described_with_the_rank_that_it_really_has(
    inputs: tuple[int | None, ...], shape: tuple[int | None, ...]
):
    declared = Signature((TensorSpec("x", "string", inputs),), (TensorSpec("y", "float32", (None, 1, 5)),))
    found = parity.observed(declared, {"y": np.zeros((1, 5), np.float32)})
    assert found.outputs == (TensorSpec("y", "float32", shape),)


def asks(per_instance: float, fixed: float = 0.0) -> tuple[list[int], Callable[[int], float]]:
    """A model that takes `fixed` seconds and then the same for each instance, and the batches that were tried."""
    tried: list[int] = []

    def seconds_at(size: int) -> float:
        tried.append(size)
        return fixed + size * per_instance

    return tried, seconds_at


def test_measuring_doubles_the_batch_up_to_the_limit_while_throughput_grows():
    _, seconds_at = asks(per_instance=1e-6, fixed=1e-4)
    assert list(measure.ascend(seconds_at, 64)) == [1, 2, 4, 8, 16, 32, 64]
    assert list(measure.ascend(seconds_at, 48)) == [1, 2, 4, 8, 16, 32, 48]
    assert list(measure.ascend(seconds_at, 1)) == [1]


def test_measuring_ends_after_two_sizes_that_gained_nothing():
    tried, seconds_at = asks(per_instance=1e-4)
    assert list(measure.ascend(seconds_at, 64)) == tried == [1, 2, 4]


def test_measuring_stops_before_a_batch_that_would_take_too_long():
    tried, seconds_at = asks(per_instance=0.02, fixed=0.02)
    assert list(measure.ascend(seconds_at, 64)) == tried == [1, 2]


def test_the_time_that_a_call_only_waits_does_not_count_as_its_own():
    assert trial.wall_seconds(lambda: time.sleep(0.05)) >= 0.05
    # Other threads of this process may take their time meanwhile, but not each time.
    assert min(trial.undisturbed_seconds(lambda: time.sleep(0.05)) for _ in range(20)) < 0.05
    assert min(trial.median_seconds(lambda: time.sleep(0.02), trial.undisturbed_seconds) for _ in range(5)) < 0.02


def test_a_size_that_was_disturbed_is_measured_again():
    taken = {1: [0.01], 2: [0.3, 0.008], 4: [0.012], 8: [0.2, 0.1]}
    assert measure.ascend(lambda size: taken[size].pop(0), 64) == {1: 0.01, 2: 0.008, 4: 0.012, 8: 0.1}
    assert not any(taken.values())


@pytest.mark.parametrize("error", [RunnerFailed("died", code="runner_memory"), PredictionFailed("no")])
def test_a_batch_that_fails_ends_the_ascent_and_the_first_one_the_preparation(error: Exception):
    def fails_from(smallest: int) -> dict[int, float]:
        def seconds_at(size: int) -> float:
            if size >= smallest:
                raise error
            return 0.001

        return measure.ascend(seconds_at, 64)

    assert list(fails_from(32)) == [1, 2, 4, 8, 16]
    with pytest.raises(type(error)):
        fails_from(1)


@pytest.mark.parametrize(
    ("milliseconds", "best"),
    [
        ({1: 1.0, 2: 1.0, 4: 1.0}, 4),  # the more, the better
        ({1: 3.5, 2: 7.4, 4: 15.8}, 1),  # a model that fills the caches with one image
        ({1: 1.0, 32: 32 / 100, 64: 64 / 103, 128: 128 / 104}, 32),  # 4 % are not worth four times the wait
        ({1: 10.0, 8: 40.0, 32: 120.0}, 8),  # faster, but everybody else would wait for it
        ({1: 400.0, 2: 500.0}, 1),  # nothing is quick enough: the least
        ({1: 0.007}, 1),
    ],
)
def test_the_smallest_batch_that_is_close_to_the_best_is_chosen(milliseconds: dict[int, float], best: int):
    assert measure.best_batch({size: value / 1000 for size, value in milliseconds.items()}) == best


class Timed(Candidate):
    """A variant that takes so many seconds for an instance, and fails above `most` of them; no runner runs it."""

    runtime = "onnx"

    def __init__(self, folder: Path, name: str, each: float, most: int) -> None:
        super().__init__(None, folder, SINGLE, WorkerSettings(), name=name)  # type: ignore[arg-type] # never called
        self.figures.accepted = True
        self._each, self._most = each, most
        self.asked: list[int] = []

    def load(self) -> float:
        return 0.0

    def run(self, tensors: Tensors) -> Tensors:
        return tensors

    def seconds(self, tensors: Tensors) -> float:
        size = len(tensors["x"])
        self.asked.append(size)
        if size > self._most:
            raise PredictionFailed("too many")
        self._resident = 1000 * size
        return size * self._each

    @property
    def memory_bytes(self) -> int:
        return self._resident


def ranked(leading: list[Timed], limit: int = 128, *, row_wise: bool = True) -> Measured:
    pair = ({"x": np.zeros((1, 1), np.float32)}, {"y": np.zeros((1, 1), np.float32)})
    known = Reference([pair], row_wise, SINGLE, parity.SINGLE, samples())
    ranking = Ranking(lambda: None, known, VariantPolicy(), WorkerSettings(max_batch=limit), 10**9)  # type: ignore[arg-type, return-value] # starts none
    return ranking.chosen(leading, [])[1]


def test_every_variant_has_figures_at_the_sizes_that_are_compared(tmp_path: Path):
    # given a model whose ascent ends at 4, since larger batches gain nothing, and nothing asked for beside
    onnx, savedmodel = Timed(tmp_path, "onnx", 1e-4, 999), Timed(tmp_path, "savedmodel", 2e-4, 999)
    # when its variants are ranked
    measured = ranked([onnx, savedmodel])
    # then both tell what 8 and 32 instances take, and what serves was chosen and weighed before that
    assert {size: round(taken, 6) for size, taken in onnx.figures.latency_ms.items()} == {
        1: 0.1, 2: 0.2, 4: 0.4, 8: 0.8, 32: 3.2,
    }  # fmt: skip
    assert list(savedmodel.figures.latency_ms) == [1, 8, 32]
    assert (list(measured.seconds), measured.max_batch) == ([1, 2, 4], 1)
    assert onnx.figures.memory_bytes == 4000
    # and no size twice
    assert sorted(onnx.asked) == sorted({*onnx.asked})


def test_no_figures_are_taken_where_batches_may_not_be_so_large_or_fail(tmp_path: Path):
    small, fragile = Timed(tmp_path, "onnx", 1e-4, 999), Timed(tmp_path, "savedmodel", 1e-4, 8)
    ranked([small], limit=16)
    assert list(small.figures.latency_ms) == [1, 2, 4, 8]
    ranked([fragile])
    assert list(fragile.figures.latency_ms) == [1, 2, 4, 8]
    assert fragile.figures.accepted
    slow, mixing = Timed(tmp_path, "onnx", 2.0, 999), Timed(tmp_path, "onnx", 1e-4, 999)
    ranked([slow])
    assert list(slow.figures.latency_ms) == [1, 8], "32 would take longer than an inference may"
    ranked([mixing], row_wise=False)
    assert list(mixing.figures.latency_ms) == [1]


@given(curve=st.dictionaries(st.integers(1, 4096), st.floats(1e-6, 0.09, allow_nan=False), min_size=1, max_size=12))
def test_no_measured_batch_is_much_better_than_the_chosen_one_and_none_smaller_is_as_good(curve: dict[int, float]):
    chosen = measure.best_batch(curve)
    rates = {size: size / seconds for size, seconds in curve.items()}
    assert rates[chosen] >= measure.CLOSE * max(rates.values())
    assert all(rates[size] < measure.CLOSE * max(rates.values()) for size in rates if size < chosen)


def test_padding_is_chosen_where_it_was_faster_twice_by_a_tenth():
    curve = {1: 0.001, 2: 0.001, 4: 0.001, 8: 0.001, 16: 0.001, 32: 0.001}
    odd = {3: [0.002, 0.002], 5: [0.00105], 9: [0.002, 0.00105], 17: [0.003, 0.0015]}
    padding = measure.compare_padding(lambda size: odd[size].pop(0) if size in odd else curve[size], curve)

    measured = measure.Measured(curve, padding)

    assert [(probe.instances, probe.size, probe.pays) for probe in padding] == [
        (3, 4, True), (5, 8, False), (9, 16, False), (17, 32, True),
    ]  # fmt: skip
    assert measured.batching.pad_to == (4, 32)
    assert odd == {3: [], 5: [], 9: [], 17: []}


def test_padding_is_not_tried_beyond_the_chosen_batch_nor_where_it_takes_long():
    tried, seconds_at = asks(per_instance=1e-3)
    assert measure.compare_padding(seconds_at, {1: 0.001, 2: 0.002, 4: 0.004}) == ()
    assert measure.compare_padding(seconds_at, {1: 0.1, 2: 0.1, 4: 0.1}) == ()
    assert tried == []


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


def test_a_report_holds_the_whole_curve_and_serving_reads_its_part_of_it():
    padding = (measure.Padding(5, 8, 0.002, 0.001),)
    measured = measure.Measured({1: 0.001, 8: 0.001, 16: 0.002, 32: 0.004}, padding)
    report = Report(lambda _: None, measured=measured)

    document = json.loads(json.dumps(report.to_json(), allow_nan=False))

    assert document["batching"] == {
        "max_batch": 8,
        "curve": [
            {"instances": 1, "ms": 1.0, "instances_per_second": 1000.0},
            {"instances": 8, "ms": 1.0, "instances_per_second": 8000.0},
            {"instances": 16, "ms": 2.0, "instances_per_second": 8000.0},
            {"instances": 32, "ms": 4.0, "instances_per_second": 8000.0},
        ],
        "pad_to": [8],
        "padding": [{"instances": 5, "padded_to": 8, "ms": 2.0, "padded_ms": 1.0}],
    }
    assert Batching.from_report(document) == measured.batching == Batching(((1, 0.001), (8, 0.001)), (8,))
    assert told(measured) == "at most 8 instances in a batch, 8,000 a second; padded to 8"


def test_reports_from_before_batches_were_measured_say_nothing_about_them():
    assert Batching.from_report(None) is None
    assert Batching.from_report({"steps": []}) is None
    assert Batching.from_report(Report(lambda _: None).to_json()) is None


def test_what_a_batch_takes_is_read_off_the_curve():
    batching = Batching(((1, 0.001), (4, 0.004), (8, 0.005)))
    taken = [batching.seconds(instances) for instances in (1, 2, 4, 6, 8, 16)]
    assert taken == pytest.approx([0.001, 0.002, 0.004, 0.0045, 0.005, 0.010])
    assert Batching(((1, 0.001),)).seconds(3) == pytest.approx(0.003)


def test_a_batch_is_filled_up_only_to_a_size_that_it_more_than_half_fills():
    batching = Batching(((1, 0.001),), pad_to=(4, 16))
    assert [batching.padded(instances) for instances in (1, 2, 3, 4, 5, 8, 9, 16, 17)] == [1, 2, 4, 4, 5, 8, 16, 16, 17]
