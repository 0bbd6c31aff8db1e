"""Damage to a model's file in the store: its own jobs fail with the reason, and once it is mended they run."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from tests.chaos.callers import ended, signed_in, submit
from tests.chaos.fault import Fault
from tests.chaos.installation import Installation
from tests.queue_kit import doubling_model, serve_model

JOBS = 5
END_SECONDS = 40.0
MENDED_SECONDS = 21.0


def flipped(path: Path) -> None:
    """One bit of it is another."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def truncated(path: Path) -> None:
    """Its last byte is missing."""
    path.write_bytes(path.read_bytes()[:-1])


def deleted(path: Path) -> None:
    """It is gone."""
    path.unlink()


def linked(path: Path) -> None:
    """It is elsewhere, and a link leads there."""
    path.symlink_to(path.rename(path.with_suffix(".elsewhere")))


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "flipped": (flipped, "artifact_corrupt"),
    "truncated": (truncated, "artifact_corrupt"),
    "deleted": (deleted, "artifact_missing"),
    "linked": (linked, "artifact_corrupt"),
}


@dataclass(slots=True)
class ModelDamaged(Fault):
    """A model's file in the store."""

    case: ClassVar[str] = "C15"
    damage: str = "flipped"
    model: str = field(default="", init=False)
    path: Path = field(default=Path(), init=False)
    content: bytes = field(default=b"", init=False)

    @property
    def name(self) -> str:
        return f"A model's file is {self.damage} before it is loaded; afterwards it is put back"

    def prepare(self, on: Installation) -> None:
        """Make a model of its own bytes, which nobody has loaded."""
        made = on.published
        on.published += 1
        self.model = f"damaged-{made}"
        # It doubles too, and yet its bytes are no other model's: its weight is a little larger, within the tolerance.
        source = doubling_model(on.folder / f"{self.model}.onnx", factor=2 + (made + 1) * 2**-22)
        serve_model(on.sessions, on.cluster.artifacts, source, self.model)
        self.path = on.cluster.artifacts.path(on.cluster.artifacts.add_file(source).digest)
        self.content = self.path.read_bytes()
        source.unlink()

    def begin(self, on: Installation, chance: random.Random) -> None:
        hurt, code = DAMAGES[self.damage]
        self.path.chmod(0o600)
        hurt(self.path)
        with contextlib.closing(signed_in(on, f"unlucky-{chance.randrange(10**9)}", self.model, "double")) as caller:
            failing = [submit(caller, self.model, float(number), 0.0) for number in range(JOBS)]
            others = [submit(caller, "double", float(number), 0.0) for number in range(JOBS)]
            for job in failing:
                found = ended(caller, job, END_SECONDS)
                assert (found["state"], found["error"]["code"]) == ("failed", code), found
            assert all(ended(caller, job, END_SECONDS)["state"] == "succeeded" for job in others), "others do not serve"
            self._mend()
            until = time.monotonic() + MENDED_SECONDS
            while (found := ended(caller, submit(caller, self.model, 3.0, 0.0), END_SECONDS))["state"] != "succeeded":
                # A process that could not load it tries again after a second.
                assert time.monotonic() < until, f"after it was mended: {found}"
                time.sleep(0.5)

    def end(self, on: Installation) -> None:  # noqa: ARG002 - as it was begun
        self._mend()

    def _mend(self) -> None:
        """Put the file back from a copy, as an operator does."""
        if self.content:
            self.path.unlink(missing_ok=True)
            self.path.with_suffix(".elsewhere").unlink(missing_ok=True)
            self.path.write_bytes(self.content)
            self.content = b""
