"""Two answers to one request, compared: within a tolerance, by their largest output, and by how much they differ."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from model_store.shadows import AgreeBy, Shadow
from model_store.signature import Tensor, Tensors
from workers.protocols.answers import AnswerUnreadable, outputs_of
from workers.protocols.body import Body


@dataclass(frozen=True, slots=True)
class Difference:
    """What was found: `largest` is the largest absolute difference, None where there is no such number.

    `top1` of `instances` have their largest output at the same place; none do where outputs are no classes.
    """

    agreed: bool
    within: bool
    largest: float | None
    instances: int
    top1: int


@dataclass(slots=True)
class _Tally:
    """What was found of the outputs so far."""

    within: bool = True
    largest: float | None = 0.0
    instances: int = 0
    top1: int = 0

    def unlike(self) -> None:
        self.within, self.largest = False, None


def compare_answers(stable: Body, other: Body, shadow: Shadow) -> Difference:
    """The difference of the bodies of two 200 answers in the same dialect."""
    try:
        return compare(outputs_of(stable), outputs_of(other), shadow)
    except AnswerUnreadable:
        return Difference(agreed=False, within=False, largest=None, instances=0, top1=0)


def compare(stable: Tensors, other: Tensors, shadow: Shadow) -> Difference:
    """The same of outputs; other names or shapes are no agreement."""
    tally = _Tally()
    if stable.keys() != other.keys():
        tally.unlike()
    else:
        for name, tensor in stable.items():
            _compare(tally, tensor, other[name], shadow)
    by_class = shadow.agree_by is AgreeBy.TOP1 and tally.instances > 0
    agreed = tally.top1 == tally.instances if by_class else tally.within
    return Difference(agreed, tally.within, tally.largest, tally.instances, tally.top1)


def _compare(tally: _Tally, stable: Tensor, other: Tensor, shadow: Shadow) -> None:
    numbers = stable.dtype.kind in "biuf" and other.dtype.kind in "biuf"
    if stable.shape != other.shape or (not numbers and not _equal(stable, other)):
        tally.unlike()
        if stable.shape == other.shape or not numbers:
            return
        # So many instances were answered, and none of them alike.
        tally.instances += _classes(stable)
        return
    if not numbers:
        return
    first, second = stable.astype(np.float64), other.astype(np.float64)
    # What is too large for a number becomes infinite, and is judged as that.
    with np.errstate(invalid="ignore", over="ignore"):
        apart = np.abs(first - second)
        bound = np.where(np.isfinite(first), shadow.absolute + shadow.relative * np.abs(first), shadow.absolute)
    # Infinities of the same sign, and NaN in both, are the same answer.
    apart[(first == second) | (np.isnan(first) & np.isnan(second))] = 0.0
    if not np.isfinite(apart).all():
        tally.unlike()
    elif apart.size:
        tally.within = tally.within and bool((apart <= bound).all())
        if tally.largest is not None:
            tally.largest = max(tally.largest, float(apart.max()))
    if _classes(stable):
        tally.instances += _classes(stable)
        # The largest of what holds a NaN is that: an answer of nothing else would agree with every first class.
        sure = np.isnan(first).any(axis=-1) == np.isnan(second).any(axis=-1)
        tally.top1 += int((sure & (first.argmax(axis=-1) == second.argmax(axis=-1))).sum())


def _classes(tensor: Tensor) -> int:
    """How many instances' outputs are numbers for several classes: rows of more than one."""
    return tensor.size // tensor.shape[-1] if tensor.ndim > 1 and tensor.shape[-1] > 1 else 0


def _equal(first: Tensor, second: Tensor) -> bool:
    return bool(first.tolist() == second.tolist())
