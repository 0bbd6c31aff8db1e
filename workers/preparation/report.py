"""The preparation report: what each step found, the variants with their figures, and why one of them serves."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from model_store.errors import SluiceError
from model_store.further_signatures import FurtherSignature
from model_store.signature import Signature
from model_store.variant_policies import DEFAULT, VariantPolicy
from monitoring.metrics import PREPARATION_SECONDS
from workers.environment import libraries
from workers.preparation.measure import Measured
from workers.runner.lockdown import Lockdown


@dataclass(slots=True)
class Step:
    """One step; `outcome` is ok, refused or failed, `detail` a sentence for the administrator."""

    name: str
    outcome: str = "ok"
    seconds: float = 0.0
    detail: str = ""


@dataclass(slots=True)
class VariantFigures:
    """What was measured of one variant; figures that were not taken are None."""

    name: str
    runtime: str
    size_bytes: int | None = None
    load_seconds: float | None = None
    memory_bytes: int | None = None
    latency_ms: dict[int, float] = field(default_factory=dict)  # by instances in a batch
    max_abs_difference: float | None = None
    max_rel_difference: float | None = None
    top1_agreement: float | None = None
    accepted: bool = False
    reason: str | None = None  # why it was refused
    quantised: bool = False  # it answers otherwise than the model, by design: it serves only where that is allowed
    detail: str | None = None  # what is worth knowing beside the figures

    def to_json(self) -> dict[str, Any]:
        """Plain values without NaN."""
        row = {
            key: _figure(value) if isinstance(value, float) else value
            for key, value in dataclasses.asdict(self).items()
        }
        row["latency_ms"] = {str(batch): _figure(value) for batch, value in sorted(self.latency_ms.items())}
        return row


@dataclass(frozen=True, slots=True)
class SignatureFigures:
    """What became of one: its `found` form, or the reason why it is not served; one that is an `alias` has neither."""

    name: str
    found: FurtherSignature | None = None
    milliseconds: float | None = None  # of one instance
    reason: str | None = None
    alias: bool = False  # of the default: the same function once more

    def to_json(self) -> dict[str, Any]:
        """Plain values without NaN."""
        found = self.found
        return {
            "name": self.name,
            "served": self.reason is None,
            "same_as_default": self.alias,
            "signature": None if found is None else json.loads(found.signature.to_json()),
            "max_batch": None if found is None else found.max_batch,
            "ms": None if self.milliseconds is None else _figure(self.milliseconds),
            "reason": self.reason,
        }


def told(measured: Measured) -> str:
    """What a measurement led to, in a sentence."""
    batch = measured.max_batch
    largest = f"at most {batch} instance{'s' * (batch > 1)} in a batch, {batch / measured.batch_seconds:,.0f} a second"
    sizes = ", ".join(str(size) for size in measured.batching.pad_to)
    return f"{largest}; padded to {sizes}" if sizes else f"{largest}; unpadded"


@dataclass(slots=True)
class Report:
    """Grows as the preparation goes; `announce` is told each step's name when it begins."""

    announce: Callable[[str], None]
    steps: list[Step] = field(default_factory=list)
    variants: list[VariantFigures] = field(default_factory=list)
    signature: Signature | None = None
    signatures: list[SignatureFigures] = field(default_factory=list)  # beside that one
    chosen: str | None = None
    reason: str | None = None
    measured: Measured | None = None  # of the variant that serves
    policy: VariantPolicy = DEFAULT
    lockdown: Lockdown | None = None  # of the runner that read the upload

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[Step]:
        """Times the block and notes how it ended; the block fills in the detail."""
        self.announce(name)
        entry = Step(name)
        self.steps.append(entry)
        begin = time.monotonic()
        try:
            yield entry
        except SluiceError as error:
            entry.outcome, entry.detail = "refused", error.message
            raise
        except BaseException:  # noted and raised again
            entry.outcome = "failed"
            raise
        finally:
            entry.seconds = round(time.monotonic() - begin, 3)
            PREPARATION_SECONDS.labels(name).observe(entry.seconds)

    def to_json(self) -> dict[str, Any]:
        """Plain values without NaN, as they are kept in SQL."""
        return {
            "steps": [dataclasses.asdict(step) for step in self.steps],
            "signature": None if self.signature is None else json.loads(self.signature.to_json()),
            "signatures": [figures.to_json() for figures in self.signatures],
            "variants": [variant.to_json() for variant in self.variants],
            "chosen": self.chosen,
            "reason": self.reason,
            "policy": self.policy.to_json(),
            "batching": None if self.measured is None else _batching(self.measured),
            "lockdown": None if self.lockdown is None else self.lockdown.to_json(),
            "versions": libraries(),
            "failed_repeat": None,
        }

    def failure(self, finding: SluiceError) -> dict[str, Any]:
        """What a repeated preparation that failed adds, as `failed_repeat`, to the report of the one that serves."""
        whole = self.to_json()
        return {
            "code": finding.code,
            "message": finding.message,
            **{part: whole[part] for part in ("steps", "variants", "policy")},
        }


def _batching(measured: Measured) -> dict[str, Any]:
    """How batches are run: the whole curve, the size chosen from it, and padding. Serving reads it (batching.py)."""
    return {
        "max_batch": measured.max_batch,
        "curve": [
            {"instances": size, "ms": _figure(seconds * 1000), "instances_per_second": _figure(size / seconds)}
            for size, seconds in measured.seconds.items()
        ],
        "pad_to": list(measured.batching.pad_to),
        "padding": [
            {
                "instances": probe.instances,
                "padded_to": probe.size,
                "ms": _figure(probe.exact_seconds * 1000),
                "padded_ms": _figure(probe.padded_seconds * 1000),
            }
            for probe in measured.padding
        ],
    }


def _figure(value: float) -> float | None:
    """Four significant digits; JSON has no infinity."""
    return float(f"{value:.4g}") if math.isfinite(value) else None
