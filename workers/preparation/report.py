"""The preparation report: what each step found, the variants with their figures, and why one of them serves."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from model_store.errors import SluiceError
from model_store.signature import Signature
from monitoring.metrics import PREPARATION_SECONDS

# Distributions whose versions decide what a model computes; TensorFlow comes under two names.
_DISTRIBUTIONS = ("keras", "tensorflow", "tensorflow-cpu", "tf2onnx", "onnx", "onnxruntime", "numpy")


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


@dataclass(slots=True)
class Report:
    """Grows as the preparation goes; `announce` is told each step's name when it begins."""

    announce: Callable[[str], None]
    steps: list[Step] = field(default_factory=list)
    variants: list[VariantFigures] = field(default_factory=list)
    signature: Signature | None = None
    chosen: str | None = None
    reason: str | None = None

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
            "variants": [_row(variant) for variant in self.variants],
            "chosen": self.chosen,
            "reason": self.reason,
            "versions": versions(),
        }


def versions() -> dict[str, str]:
    """Versions of the installed libraries that take part."""
    found = {}
    for name in _DISTRIBUTIONS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name.removesuffix("-cpu")] = importlib.metadata.version(name)
    return found


def _row(variant: VariantFigures) -> dict[str, Any]:
    row = {
        key: _figure(value) if isinstance(value, float) else value for key, value in dataclasses.asdict(variant).items()
    }
    row["latency_ms"] = {str(batch): _figure(value) for batch, value in variant.latency_ms.items()}
    return row


def _figure(value: float) -> float | None:
    """Four significant digits; JSON has no infinity."""
    return float(f"{value:.4g}") if math.isfinite(value) else None
