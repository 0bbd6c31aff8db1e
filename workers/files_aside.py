"""Predictions with files that a group leaves for later: to decode one may take as long as hundreds of inferences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from model_store.signature import Tensor
from workers.entries import Asked, Entry
from workers.hot_lanes import Version
from workers.protocols.contract import Contract
from workers.protocols.file_reading import FileReader, FilesAside, Given

# Requests with files that are read before their inference, where reading the ones before took no longer than this.
MOST_FILES = 16
FILES_SECONDS = 0.1


@dataclass(slots=True, eq=False)
class FilesLeft:
    """What is left of a group of `version`: predictions, one lane's after another's, and the entries that have them.

    Nobody waits any more at `given_up`, a moment of this process's clock.
    """

    version: Version
    asked: list[Asked]
    entries: Sequence[Entry]
    given_up: float
    size_bytes: int = field(init=False)
    _portion: int = 1

    def __post_init__(self) -> None:
        self.size_bytes = sum(len(one[2].data) for one in self.asked)

    @property
    def lanes(self) -> frozenset[bytes]:
        return frozenset(entry.lane_key for entry in self.entries)

    def others(self, entries: Sequence[Entry]) -> list[Entry]:
        """Those of a group's entries that nothing is left of."""
        waiting = {(entry.lane_key, entry.id) for entry in self.entries}
        return [entry for entry in entries if (entry.lane_key, entry.id) not in waiting]

    def take(self) -> list[Asked]:
        """The next ones to answer, which are not left any more."""
        taken, self.asked = self.asked[: self._portion], self.asked[self._portion :]
        return taken

    def took(self, seconds: float) -> None:
        """Small ones share inferences as numbers do; nobody waits for many large ones of others."""
        self._portion = min(2 * self._portion, MOST_FILES) if seconds < FILES_SECONDS else 1


def files_left(version: Version, aside: list[Asked], entries: Sequence[Entry], given_up: float) -> FilesLeft:
    """What was set aside of these entries' predictions."""
    waiting = {(reply_to, number) for reply_to, number, _, _ in aside}
    theirs = [
        entry
        for entry in entries
        if entry.bundle and any((entry.bundle.reply_to, number) in waiting for number, _ in entry.bundle.predictions)
    ]
    return FilesLeft(version, aside, theirs, given_up)


def without_files(contract: Contract, files: FileReader) -> Contract | None:
    """The same terms with another reader; None for a version's own contract, which takes no files anyway."""
    return None if contract.input_specification is None else replace(contract, files=files)


class DecodingSlow(Exception):
    """A request has files: to wait for a runner in the loop would hold up other versions."""


class SlowFiles:
    """Stands for a reader of files in the loop: what has any runs in a thread."""

    def read(self, _given: Given) -> Tensor:
        raise DecodingSlow


class FilesLater:
    """Stands for a reader of files until everything else is answered."""

    def read(self, _given: Given) -> Tensor:
        raise FilesAside("the files of this request are read later")


SLOW_FILES = SlowFiles()
ASIDE = FilesLater()
