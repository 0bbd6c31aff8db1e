"""A system's own metrics, read over HTTP as Prometheus would."""

from __future__ import annotations

from dataclasses import dataclass

import httpx

from benchmarks.failures import BenchmarkFailed


@dataclass(frozen=True, slots=True)
class Batches:
    """How many inferences there were so far, and how many instances they ran in all."""

    inferences: float
    instances: float

    def mean_since(self, earlier: Batches) -> float:
        """Instances in one inference, on average; 0 where there was none."""
        inferences = self.inferences - earlier.inferences
        return (self.instances - earlier.instances) / inferences if inferences else 0.0


def batches(address: str, token: str, model: str) -> Batches:
    """Of all versions of a model; the token needs the scope `metrics:read`. Raises BenchmarkFailed."""
    headers = {"Authorization": f"Bearer {token}"}
    answer = httpx.get(f"{address}/metrics", headers=headers, timeout=10, trust_env=False)
    if answer.status_code != 200:
        raise BenchmarkFailed(f"/metrics answered {answer.status_code}")
    return Batches(*(_sum(answer.text, f"sluice_batch_instances_{part}", model) for part in ("count", "sum")))


def _sum(text: str, name: str, model: str) -> float:
    lines = (line for line in text.splitlines() if line.startswith(f"{name}{{") and f'model="{model}"' in line)
    return sum(float(line.rpartition(" ")[2]) for line in lines)
