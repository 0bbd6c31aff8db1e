"""Variant policies: which variants of a model's versions are made, and which one serves; read by preparations."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import ForeignKey, Text
from sqlalchemy.orm import Mapped, Session, mapped_column

from model_store.database import Base
from model_store.errors import SluiceError

FASTEST = "fastest_within_tolerance"
ONNX, SAVEDMODEL, FP16, INT8, PRUNED = "onnx", "savedmodel", "onnx-fp16", "onnx-int8", "pruned"
LITERT, LITERT_INT8 = "litert", "litert-int8"
# What a worker can serve. A flatbuffer would be read by LiteRT's native code in the worker's own process, and nothing
# checks one before: LiteRT's are measured and exported.
SERVING = (ONNX, SAVEDMODEL, FP16, INT8, PRUNED)
EXPORTED = (LITERT, LITERT_INT8)
NAMES = (*SERVING, *EXPORTED)
# Their answers are others than the model's own, by design.
QUANTISED = (INT8, PRUNED, LITERT_INT8)


class VariantPolicyInvalid(SluiceError):
    """A policy that no preparation could carry out."""

    status = 422
    code = "variant_policy_invalid"


class VariantPolicyRow(Base):
    """A model's policy as JSON; a model without one has `DEFAULT`."""

    __tablename__ = "variant_policies"

    model: Mapped[str] = mapped_column(ForeignKey("models.name", ondelete="CASCADE"), primary_key=True)
    policy: Mapped[str] = mapped_column(Text)


@dataclass(frozen=True, slots=True)
class VariantPolicy:
    """Which `variants` are made and kept, and which one is to `serve`: a name, or the fastest within tolerance.

    Float variants are accepted where |Δ| <= `absolute` + `relative` * |y|, quantised ones where their answer has its
    largest value at the same place as the model's in at least `top1_floor` of all rows; these serve by being the
    fastest only where `quantised` allows it. An ONNX graph and, of uploads that have one, a SavedModel are tried
    whatever is asked for; they are kept where they serve or are asked for.
    """

    variants: tuple[str, ...] = (ONNX,)
    serve: str = FASTEST
    absolute: float = 1e-5
    relative: float = 1e-4
    quantised: bool = False
    top1_floor: float = 0.99

    def check(self) -> None:
        """Raises VariantPolicyInvalid."""
        if unknown := sorted(set(self.variants) - set(NAMES)):
            raise VariantPolicyInvalid(f"there is no variant {unknown[0]!r}: one is {', '.join(NAMES)}")
        if self.serve in EXPORTED:
            raise VariantPolicyInvalid(
                f"{self.serve} is measured and exported, but does not serve; name one of {', '.join(SERVING)}"
            )
        if self.serve != FASTEST and self.serve not in {*self.variants, ONNX, SAVEDMODEL} & set(SERVING):
            raise VariantPolicyInvalid(f"{self.serve!r} cannot serve: it is none of the variants that are made")
        if not all(math.isfinite(bound) and bound >= 0 for bound in (self.absolute, self.relative)):
            raise VariantPolicyInvalid("a tolerance is a number from 0 on")
        if not 0 < self.top1_floor <= 1:
            raise VariantPolicyInvalid("top1_floor is more than 0 and at most 1")

    def may_serve(self, name: str) -> bool:
        """Whether a quantised variant may be chosen: it is named, or all are allowed."""
        return self.quantised or self.serve == name

    def to_json(self) -> dict[str, Any]:
        """As interfaces and reports show it."""
        return asdict(self) | {"variants": list(self.variants)}

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> VariantPolicy:
        return cls(**(row | {"variants": tuple(row["variants"])}))


DEFAULT = VariantPolicy()


def policy_of(session: Session, model: str) -> VariantPolicy:
    """The model's policy, or `DEFAULT`."""
    row = session.get(VariantPolicyRow, model)
    return DEFAULT if row is None else VariantPolicy.from_json(json.loads(row.policy))


def set_policy(session: Session, model: str, policy: VariantPolicy) -> None:
    """Replaces the policy of a model, which there has to be; it holds for preparations that begin from now on.

    Raises VariantPolicyInvalid.
    """
    policy.check()
    session.merge(VariantPolicyRow(model=model, policy=json.dumps(policy.to_json())))
    session.flush()


def delete_policy(session: Session, model: str) -> None:
    """Leaves the model with `DEFAULT`."""
    if (row := session.get(VariantPolicyRow, model)) is not None:
        session.delete(row)
        session.flush()
