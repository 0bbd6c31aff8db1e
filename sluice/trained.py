"""What the demo's trainings leave behind for whoever goes on with them, without TensorFlow."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar, Self

EXAMPLE = "digit.json"
# Files that can be sent as they are: an image, a text and a recording.
DIGIT, SENTENCE, TONE = "digit.png", "sentence.txt", "tone.wav"


class Outcome:
    """What a training found out, in a file that is the last thing it writes: where it is, the others are complete."""

    __slots__ = ()
    FILE: ClassVar[str]

    def write(self, folder: Path) -> None:
        """Write it at once, or not at all."""
        temporary = folder / f".{self.FILE}"
        temporary.write_text(json.dumps(asdict(self)))  # type: ignore[call-overload]  # of its dataclasses
        temporary.replace(folder / self.FILE)

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """What an earlier training found out, None where there was none."""
        path = folder / cls.FILE
        return cls(**json.loads(path.read_text())) if path.exists() else None


@dataclass(frozen=True, slots=True)
class Trained(Outcome):
    """The accuracy on held-out digits, the recovered line y = wᵀx + b, and the digit of the example request."""

    accuracy: float
    weights: list[float]
    bias: float
    weights_error: float
    bias_error: float
    digit: int

    FILE: ClassVar[str] = "trained.json"


@dataclass(frozen=True, slots=True)
class TrainedFiles(Outcome):
    """The accuracies on held-out sentences and tones, and what the examples of both are in truth."""

    topics_accuracy: float
    tones_accuracy: float
    topic: str
    wave: str

    FILE: ClassVar[str] = "trained_files.json"
