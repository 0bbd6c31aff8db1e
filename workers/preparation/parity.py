"""The proof: a variant's outputs beside the model's own on the same inputs."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from model_store.signature import STRING, Signature, Tensor, Tensors, TensorSpec


@dataclass(frozen=True, slots=True)
class Tolerance:
    """Accepts |Δ| <= absolute + relative * |y|."""

    absolute: float
    relative: float


SINGLE = Tolerance(1e-5, 1e-4)
# Where a model computes in 16 bits, two correct runtimes differ by several units of 2^-11.
HALF = Tolerance(1e-3, 1e-2)
# What a quantised variant may be off by where there are no classes: this part of the largest value that was seen.
OF_RANGE = 0.02


@dataclass(frozen=True, slots=True)
class Difference:
    """How far two sets of outputs lie apart; `top1_agreement` is None where no output has classes to choose from."""

    max_abs: float
    max_rel: float
    top1_agreement: float | None
    reason: str | None  # why the variant is refused; None where it is accepted


def compare(pairs: Iterable[tuple[Tensors, Tensors]], tolerance: Tolerance | None) -> Difference:
    """The largest differences over all pairs of the model's own outputs and the variant's.

    Without a tolerance, numbers may be anything that is as finite as the model's own.
    """
    max_abs = max_rel = 0.0
    agreed = rows = 0
    reason: str | None = None
    for own, others in pairs:
        for name, expected in own.items():
            found = others.get(name)
            if found is None or found.shape != expected.shape or found.dtype != expected.dtype:
                return Difference(
                    math.inf, math.inf, None, f"{name}: {_described(found)} instead of {_described(expected)}"
                )
            apart = _apart(expected, found)
            max_abs, max_rel = max(max_abs, apart[0]), max(max_rel, apart[1])
            if not _close(expected, found, tolerance):
                reason = f"{name} differs by up to {max_abs:.3g} (relative {max_rel:.3g})"
            same, total = _top1(expected, found)
            agreed, rows = agreed + same, rows + total
    return Difference(max_abs, max_rel, agreed / rows if rows else None, reason)


def agree(pairs: Iterable[tuple[Tensors, Tensors]], floor: float) -> Difference:
    """As `compare`, for variants that differ by design: their largest values are at the same places, at least `floor`
    of them, or, where no output has classes to choose from, no value is further away than a part of the largest."""
    pairs = list(pairs)
    found = compare(pairs, None)
    if found.reason is not None:
        return found
    if found.top1_agreement is not None:
        reason = None
        if found.top1_agreement < floor:
            reason = f"its top-1 agreement is {found.top1_agreement:.4f}, less than {floor:g}"
        return replace(found, reason=reason)
    bound = OF_RANGE * max((_largest(output) for own, _ in pairs for output in own.values()), default=0.0)
    if found.max_abs > bound:
        return replace(found, reason=f"differs by up to {found.max_abs:.3g}, more than {bound:.3g}")
    return found


def all_finite(outputs: Tensors) -> bool:
    """Whether no output holds NaN or an infinity."""
    return all(bool(np.isfinite(output).all()) for output in outputs.values() if output.dtype.kind == "f")


def misfit(signature: Signature, inputs: Tensors, outputs: Tensors) -> str | None:
    """Where outputs do not fit their signature or have not one row for each instance, in a sentence."""
    batch = inputs[signature.inputs[0].name].shape[0]
    for spec in signature.outputs:
        output = outputs.get(spec.name)
        if output is None or output.dtype != spec.numpy_dtype() or output.ndim != len(spec.shape):
            return f"output {spec.name} is {_described(output)}, not {spec.dtype} of rank {len(spec.shape)}"
        if any(size not in (None, actual) for size, actual in zip(spec.shape, output.shape, strict=True)):
            return f"output {spec.name} has the shape {output.shape}, not {spec.shape}"
        if signature.batched and output.shape[0] != batch:
            return f"output {spec.name} has {output.shape[0]} rows for {batch} instances"
    return None


def observed(signature: Signature, outputs: Tensors) -> Signature:
    """The signature with the dtypes and ranks that outputs really have.

    Keras declares an inverted lookup's texts as integers, and a text's counts with a dimension that they lack.
    """
    specs = tuple(
        _as_observed(spec, outputs[spec.name], signature) if spec.name in outputs else spec
        for spec in signature.outputs
    )
    return replace(signature, outputs=specs)


def _as_observed(spec: TensorSpec, output: Tensor, signature: Signature) -> TensorSpec:
    spec = replace(spec, dtype=STRING if output.dtype == object else output.dtype.name)
    if output.ndim == len(spec.shape) or not output.ndim:
        return spec
    free = any(size is None for given in signature.inputs for size in given.shape[1:])
    sizes: tuple[int | None, ...] = (None,) * (output.ndim - 1) if free else output.shape[1:]
    return replace(spec, shape=(spec.shape[0], *sizes))


def _close(expected: Tensor, found: Tensor, tolerance: Tolerance | None) -> bool:
    if expected.dtype.kind not in "fc":
        return bool(np.array_equal(expected, found))
    if tolerance is None:
        return bool(np.array_equal(np.isfinite(expected), np.isfinite(found)))
    return bool(np.allclose(found, expected, rtol=tolerance.relative, atol=tolerance.absolute, equal_nan=True))


def _apart(expected: Tensor, found: Tensor) -> tuple[float, float]:
    if expected.dtype.kind not in "iufc" or not expected.size:
        return 0.0, 0.0
    wide = np.result_type(expected.dtype, np.float64)
    left, right = expected.astype(wide), found.astype(wide)
    # Both NaN, or the same infinity, is no difference.
    same = (left == right) | (np.isnan(left) & np.isnan(right))
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        delta = np.where(same, 0.0, np.abs(left - right))
        relative = np.where(delta == 0.0, 0.0, delta / np.maximum(np.abs(left), np.finfo(np.float64).tiny))
    # A relative difference from a value within the absolute tolerance of zero says nothing.
    relative = np.where(np.abs(left) < SINGLE.absolute, 0.0, relative)
    return float(np.nan_to_num(delta, nan=np.inf).max()), float(np.nan_to_num(relative, nan=np.inf).max())


def _top1(expected: Tensor, found: Tensor) -> tuple[int, int]:
    """How many rows have their largest value at the same place, of how many."""
    if expected.dtype.kind != "f" or expected.ndim < 2 or expected.shape[-1] < 2:
        return 0, 0
    same = expected.argmax(-1) == found.argmax(-1)
    return int(same.sum()), int(same.size)


def _largest(tensor: Tensor) -> float:
    values = np.abs(tensor[np.isfinite(tensor)]) if tensor.dtype.kind == "f" else np.zeros(0)
    return float(values.max()) if values.size else 0.0


def _described(tensor: Tensor | None) -> str:
    return "missing" if tensor is None else f"{tensor.dtype} {tensor.shape}"
