"""What a version was prepared with: libraries, processor and tolerance; written down once, compared at every load."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

# What decides what a runtime computes. A SavedModel is executed by TensorFlow alone; Keras is in it as it was traced.
DECIDING: Mapping[str, tuple[str, ...]] = {"onnx": ("onnxruntime",), "tensorflow": ("tensorflow",)}


@dataclass(frozen=True, slots=True)
class Environment:
    """Versions of `libraries` by distribution, and the processor: its architecture and those of its features that
    choose among a runtime's kernels. |Δ| <= `absolute` + `relative` * |y| is what float variants were accepted with,
    and quantised ones with the same class in this share of rows, `top1_floor`."""

    libraries: Mapping[str, str]
    python: str
    machine: str
    features: tuple[str, ...]
    absolute: float = 1e-5
    relative: float = 1e-4
    top1_floor: float = 0.99

    def differences(self, here: Environment, runtime: str) -> tuple[str, ...]:
        """What is different `here` and may change what this runtime computes, each as a short text."""
        found = [
            f"{name} {here.libraries.get(name, 'missing')} instead of {self.libraries.get(name, 'unknown')}"
            for name in DECIDING.get(runtime, (runtime,))
            if here.libraries.get(name) != self.libraries.get(name)
        ]
        if here.machine != self.machine:
            found.append(f"{here.machine} instead of {self.machine}")
        if missing := sorted(set(self.features) - set(here.features)):
            found.append(f"a processor without {' '.join(missing)}")
        if further := sorted(set(here.features) - set(self.features)):
            found.append(f"a processor with {' '.join(further)}")
        return tuple(found)

    def golden_floor(self, instances: int) -> float:
        """`top1_floor` for a few golden samples: one of them may differ where a share of all may."""
        return min(self.top1_floor, 1 - 1 / instances)

    def to_json(self) -> str:
        """As the version's row keeps it."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Environment:
        """What a row says; a newer release may have written more."""
        row = json.loads(text)
        return cls(
            {str(name): str(version) for name, version in dict(row["libraries"]).items()},
            str(row["python"]),
            str(row["machine"]),
            tuple(str(feature) for feature in row["features"]),
            float(row["absolute"]),
            float(row["relative"]),
            float(row["top1_floor"]),
        )
