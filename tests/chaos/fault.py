"""What a fault is: `prepare` makes ready, `begin` breaks something, `end` mends it; all of them run beside the load."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from tests.chaos.installation import Installation


@dataclass(slots=True)
class Fault(ABC):
    """One way in which something breaks."""

    case: ClassVar[str]
    # Whether `begin` returns when it is over.
    over: ClassVar[bool] = False
    seconds: float = 0.0

    @property
    def name(self) -> str:
        """What the report calls it."""
        words = (self.__doc__ or type(self).__name__).splitlines()[0].rstrip(".")
        return f"{words}, {self.seconds:g} s" if self.seconds else words

    def fits(self, on: Installation) -> bool:  # noqa: ARG002 - of those that override it
        return True

    def prepare(self, on: Installation) -> None:  # noqa: B027 - most faults need nothing
        """Make what it needs, before anything is broken."""

    @abstractmethod
    def begin(self, on: Installation, chance: random.Random) -> None: ...

    def end(self, on: Installation) -> None:  # noqa: B027 - many faults end by themselves
        """Mend it."""
