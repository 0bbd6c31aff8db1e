"""What a variant must answer to be accepted: its rule, by its name and by what the model's policy asks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from model_store.signature import Tensors
from model_store.variant_policies import FP16, QUANTISED, VariantPolicy
from workers.preparation import parity
from workers.preparation.parity import Difference, Tolerance

Pairs = Sequence[tuple[Tensors, Tensors]]


@dataclass(frozen=True, slots=True)
class Verdict:
    """The differences, with the reason where they are too large; `quantised` says that they are so by design."""

    difference: Difference
    quantised: bool


@dataclass(frozen=True, slots=True)
class Acceptance:
    """The rules of one preparation; `half` says that the model itself computes in 16 bits."""

    policy: VariantPolicy
    half: bool

    @property
    def tolerance(self) -> Tolerance:
        """For float variants."""
        own = Tolerance(self.policy.absolute, self.policy.relative)
        return _wider(own, parity.HALF) if self.half else own

    def judge(self, name: str, pairs: Pairs) -> Verdict:
        """Compares pairs of the model's own outputs and the variant's."""
        if name in QUANTISED:
            return Verdict(parity.agree(pairs, self.policy.top1_floor), quantised=True)
        found = parity.compare(pairs, self.tolerance)
        if name != FP16 or found.reason is None:
            return Verdict(found, quantised=False)
        # 11 bits of precision cannot keep a tolerance of 1e-4: it is as close as such a variant can be, or refused.
        return Verdict(parity.compare(pairs, _wider(self.tolerance, parity.HALF)), quantised=True)


def _wider(one: Tolerance, other: Tolerance) -> Tolerance:
    return Tolerance(max(one.absolute, other.absolute), max(one.relative, other.relative))
