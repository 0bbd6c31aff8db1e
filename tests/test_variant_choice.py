"""Rules of variants, without any model: what is accepted, and which of the accepted serves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_store.signature import Signature, Tensors
from model_store.variant_policies import NAMES, QUANTISED, SERVING, VariantPolicy, VariantPolicyInvalid
from workers.errors import UploadRefused
from workers.preparation import choice, parity
from workers.preparation.acceptance import Acceptance
from workers.preparation.candidates import Candidate, LiteRtCandidate, OnnxCandidate, SavedModelCandidate
from workers.preparation.report import VariantFigures
from workers.preparation.workshop import better

KINDS: dict[str, type[Candidate]] = {"savedmodel": SavedModelCandidate, "litert": LiteRtCandidate}
QUICK = VariantPolicy(("onnx", "onnx-int8", "onnx-fp16"), quantised=True)


class Bench:
    """Makes candidates with figures, as they are after measuring; none of them has a runner."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "variant"
        self._file.write_bytes(b"1")

    def made(self, name: str, milliseconds: float, *, accepted: bool = True) -> Candidate:
        kind = KINDS.get(name.removesuffix("-int8"), OnnxCandidate)
        candidate = kind(None, self._file, Signature((), ()), None, name=name)  # type: ignore[arg-type] # never called
        figures = candidate.figures
        figures.accepted, figures.quantised = accepted, name in {*QUANTISED, "onnx-fp16"}
        figures.latency_ms, figures.max_abs_difference = {1: 0.1, 64: milliseconds}, 0.0
        figures.reason = None if accepted else "too far off"
        return candidate


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def challenger(policy: VariantPolicy, preferred: Candidate, *others: Candidate) -> str | None:
    found = choice.challenger(policy, preferred, others, 64)
    return None if found is None else found.name


def test_the_fastest_that_may_serve_challenges(bench: Bench):
    onnx, slow, fast = bench.made("onnx", 1.0), bench.made("onnx-fp16", 0.8), bench.made("onnx-int8", 0.3)
    assert challenger(QUICK, onnx, slow, fast) == "onnx-int8"
    assert challenger(QUICK, onnx, slow, bench.made("onnx-int8", 0.3, accepted=False)) == "onnx-fp16"


def test_quantised_variants_challenge_only_where_they_are_allowed(bench: Bench):
    onnx, fast = bench.made("onnx", 1.0), bench.made("onnx-int8", 0.3)
    assert challenger(VariantPolicy(), onnx, fast) is None


def test_less_than_a_tenth_of_the_time_is_no_reason_to_be_less_exact(bench: Bench):
    onnx = bench.made("onnx", 1.0)
    assert challenger(QUICK, onnx, bench.made("onnx-int8", 0.91)) is None
    assert challenger(QUICK, onnx, bench.made("onnx-int8", 0.89)) == "onnx-int8"


def test_what_runs_elsewhere_never_challenges(bench: Bench):
    onnx = bench.made("onnx", 1.0)
    assert challenger(QUICK, onnx, bench.made("savedmodel", 0.1), bench.made("litert", 0.1)) is None
    assert challenger(QUICK, bench.made("savedmodel", 1.0), bench.made("onnx-int8", 0.1)) is None


def test_the_named_variant_leads_and_is_demanded(bench: Bench):
    onnx, int8 = bench.made("onnx", 1.0), bench.made("onnx-int8", 2.0)
    named = VariantPolicy(("onnx", "onnx-int8"), serve="onnx-int8")
    assert choice.ordered(named, [onnx], [int8], [onnx.figures, int8.figures]) == ([int8], [onnx])
    bad = bench.made("onnx-int8", 0.1, accepted=False)
    with pytest.raises(UploadRefused, match="onnx-int8 is to serve and cannot: too far off"):
        choice.ordered(named, [onnx], [bad], [onnx.figures, bad.figures])


def test_refused_variants_are_measured_beside_those_that_serve(bench: Bench):
    onnx, bad = bench.made("onnx", 1.0), bench.made("pruned", 1.0, accepted=False)
    never_ran = bench.made("onnx-int8", 1.0, accepted=False)
    never_ran.figures.max_abs_difference = None
    assert choice.ordered(QUICK, [onnx], [bad, never_ran], []) == ([onnx], [bad])


def test_the_reason_says_what_was_compared_and_why_a_faster_one_does_not_serve(bench: Bench):
    onnx, int8, litert = bench.made("onnx", 1.0), bench.made("onnx-int8", 0.5), bench.made("litert", 0.25)
    rows = [onnx.figures, int8.figures, litert.figures]
    assert choice.reason(VariantPolicy(), onnx.figures, rows, 64) == (
        "onnx serves; 64 instances take 1 ms, with onnx-int8 0.5 ms, which is quantised and not allowed to serve; "
        "64 instances take 1 ms, with litert 0.25 ms, which is exported only; compared at 64 instances, since requests "
        "that wait are put together to batches of that size"
    )
    only = choice.reason(VariantPolicy(), onnx.figures, [onnx.figures, bench.made("savedmodel", 2.0).figures], 64)
    assert only == "onnx serves; 64 instances take 1 ms, with savedmodel 2 ms"


def pair(expected: object, found: object) -> list[tuple[Tensors, Tensors]]:
    return [({"y": np.asarray(expected, np.float32)}, {"y": np.asarray(found, np.float32)})]


@given(rows=st.integers(1, 400), wrong=st.integers(0, 400), floor=st.floats(0.01, 1.0))
def test_a_quantised_variant_is_accepted_from_the_floor_on(rows: int, wrong: int, floor: float):
    own, other = np.tile([0.0, 1.0], (rows, 1)), np.tile([0.0, 1.0], (rows, 1))
    other[: min(wrong, rows)] = [1.0, 0.0]
    found = parity.agree(pair(own, other), floor)
    assert found.top1_agreement == (rows - min(wrong, rows)) / rows
    assert (found.reason is None) == (found.top1_agreement >= floor)


def test_without_classes_a_quantised_variant_stays_within_a_part_of_the_largest_value():
    assert parity.agree(pair([[100.0], [1.0]], [[101.9], [2.9]]), 0.99).reason is None
    assert "more than 2" in (parity.agree(pair([[100.0], [1.0]], [[102.1], [1.0]]), 0.99).reason or "")


def test_a_quantised_variant_that_answers_nan_is_refused():
    assert parity.agree(pair([[1.0, 2.0]], [[np.nan, 2.0]]), 0.5).reason is not None


def test_sixteen_bits_count_as_float_within_the_tolerance_and_as_quantised_beyond():
    acceptance = Acceptance(VariantPolicy(), half=False)
    for found, verdict in ((1.00001, (True, False)), (1.005, (True, True)), (1.02, (False, True))):
        judged = acceptance.judge("onnx-fp16", pair([[1.0]], [[found]]))
        assert (judged.difference.reason is None, judged.quantised) == verdict
    assert acceptance.judge("onnx", pair([[1.0]], [[1.005]])).difference.reason is not None
    assert Acceptance(VariantPolicy(), half=True).judge("onnx", pair([[1.0]], [[1.005]])).difference.reason is None


def test_the_policys_tolerance_is_that_of_float_variants():
    wide = Acceptance(VariantPolicy(absolute=0.5, relative=0.0), half=False)
    assert wide.judge("savedmodel", pair([[1.0]], [[1.4]])).difference.reason is None


@pytest.mark.parametrize("name", NAMES)
def test_what_serves_may_be_named_and_nothing_else(name: str):
    policy = VariantPolicy((name,), serve=name)
    if name in SERVING:
        policy.check()
    else:
        with pytest.raises(VariantPolicyInvalid, match="does not serve"):
            policy.check()
    assert VariantPolicy.from_json(policy.to_json()) == policy


@pytest.mark.parametrize(
    ("static", "dynamic", "slowness", "kept", "told"),
    [
        ((0.25, True), (0.125, True), 1.0, "dynamic", "it is off by 0.125, static would be by 0.25"),
        ((0.125, True), (0.25, True), 1.0, "static", "it is off by 0.125, dynamic would be by 0.25"),
        ((0.25, True), (0.25, True), 1.0, "static", "it is off by 0.25, dynamic would be by 0.25"),
        ((0.25, True), (0.1, True), 9.0, "static", "it is off by 0.25, dynamic would be by 0.1, in 9.0 times the time"),
        ((0.125, False), (0.25, True), 1.0, "dynamic", "it is off by 0.25, static would be by 0.125 (too far off)"),
    ],
    ids=["dynamic is nearer", "static is nearer", "as near", "nearer but far slower", "static is refused"],
)  # fmt: skip
def test_of_two_forms_the_better_is_kept_and_told_with_both_figures(
    bench: Bench, static: tuple[float, bool], dynamic: tuple[float, bool], slowness: float, kept: str, told: str
):
    forms = []
    for name, (difference, accepted) in (("static", static), ("dynamic", dynamic)):
        form = bench.made("onnx-int8", 1.0, accepted=accepted)
        form.figures.max_abs_difference, form.figures.detail = difference, name
        form.close = lambda: None  # type: ignore[method-assign] # it has no runner
        forms.append(form)
    assert better(forms[0], forms[1], slowness).figures.detail == f"{kept}; {told}"


def test_a_form_that_could_not_be_made_is_told_of_beside_the_other(bench: Bench):
    dynamic = bench.made("onnx-int8", 1.0)
    dynamic.figures.detail = "dynamic"
    assert better(VariantFigures("onnx-int8", "onnx", reason="the conversion failed"), dynamic, 1.0) is dynamic
    assert dynamic.figures.detail == (
        "dynamic; it is off by 0, static would be by nothing that was measured (the conversion failed)"
    )
