"""What the demo's training leaves behind for whoever goes on with it, without TensorFlow."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

RESULT = "trained.json"
EXAMPLE = "digit.json"


@dataclass(frozen=True, slots=True)
class Trained:
    """The accuracy on held-out digits, the recovered line y = wᵀx + b, and the digit of the example request."""

    accuracy: float
    weights: list[float]
    bias: float
    weights_error: float
    bias_error: float
    digit: int

    def write(self, folder: Path) -> None:
        """The last thing that training does: where this file is, the others are complete."""
        temporary = folder / f".{RESULT}"
        temporary.write_text(json.dumps(asdict(self)))
        temporary.replace(folder / RESULT)

    @classmethod
    def read(cls, folder: Path) -> Trained | None:
        """What an earlier training found out, None where there was none."""
        if not (folder / RESULT).exists():
            return None
        return cls(**json.loads((folder / RESULT).read_text()))
