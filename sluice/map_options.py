"""What may be asked of a `map` beside its model and its instances."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict


class MapOptions(TypedDict, total=False):
    """All may be left out."""

    batch: int
    """Instances in one request, 32 unless said otherwise."""
    concurrency: int
    """Requests at once, 4 unless said otherwise."""
    version: int | None
    label: str | None
    outputs: str | Sequence[str] | None
    """As for `predict`."""
    progress: bool
    """Whether a bar is shown on standard error."""
    checkpoint: str | Path | None
    """The file in which what was answered is kept, for the same call after a break."""
