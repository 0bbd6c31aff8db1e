"""What a case of the corpus is, and what its file may try to reach: a mark that must never appear, a silent port."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np

from tests.hostile.zips import Entry, pack
from tests.keras_archives import METADATA

AVAILABLE = "AVAILABLE"


@dataclass(frozen=True, slots=True)
class Bait:
    """Where a case writes its file, the file that its payload would create, and the port that it would call."""

    folder: Path
    mark: Path
    port: int

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}/bait"


Write = Callable[[Bait], bytes]


@dataclass(frozen=True, slots=True)
class Case:
    """One file: how it is made, and the code and place with which it must be refused.

    `place` is a part of the message. `known` names the published fault whose shape it has. `slow` cases take more
    than a moment, `settings` lower the limits that they meet.
    """

    id: str
    what: str
    code: str
    place: str
    write: Write
    format: str = "keras"
    known: str = ""
    slow: bool = False
    settings: Mapping[str, object] = field(default_factory=dict)

    @property
    def slug(self) -> str:
        words = "".join(letter if letter.isalnum() else " " for letter in self.what.lower()).split()
        return "-".join([self.id, *words])[:80]

    def file(self, bait: Bait) -> Path:
        path = bait.folder / f"{self.slug}.{self.format}"
        path.write_bytes(self.write(bait))
        return path


@functools.cache
def good_weights() -> bytes:
    """Weights for a Dense layer of three units on four numbers, as Keras writes them."""

    def fill(file: h5py.File) -> None:
        file["layers/dense/vars/0"] = np.arange(12, dtype=np.float32).reshape(4, 3)
        file["layers/dense/vars/1"] = np.zeros(3, np.float32)

    return hdf5_bytes(fill)


def hdf5_bytes(fill: Callable[[h5py.File], None]) -> bytes:
    """A file of HDF5, in its newest format, with what `fill` writes."""
    held = io.BytesIO()
    with h5py.File(held, "w", libver="latest") as file:
        fill(file)
    return held.getvalue()


def entries(config: bytes, weights: bytes | None = None) -> list[Entry]:
    """The three members of an archive of Keras."""
    found = good_weights() if weights is None else weights
    return [Entry("metadata.json", METADATA), Entry("config.json", config), Entry("model.weights.h5", found)]


def archive(config: bytes, weights: bytes | None = None) -> bytes:
    """A whole `.keras` file."""
    return pack(entries(config, weights))
