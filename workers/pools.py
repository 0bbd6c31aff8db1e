"""Which pool of workers a model is for: gateways ring there, and workers of other pools leave its lanes to it."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from typing import Protocol

from model_store.catalog import Catalog


class Pools(Protocol):
    """As gateways and dispatchers ask."""

    def of(self, model: str) -> str:
        """The pool that serves a model."""

    @property
    def ordinary(self) -> str:
        """The pool of models that name none: the one in the settings."""

    @property
    def named(self) -> Collection[str]:
        """All pools that serve some model, the ordinary one among them."""


class OnePool:
    """All models are for the same pool."""

    def __init__(self, ordinary: str) -> None:
        self.ordinary = ordinary
        self.named: Collection[str] = (ordinary,)

    def of(self, model: str) -> str:  # noqa: ARG002 - as `Pools` has it
        return self.ordinary


class CatalogPools:
    """As the catalog says, which is replaced as a whole; asked at each ring, so it is read once for each catalog."""

    def __init__(self, ordinary: str, catalog: Callable[[], Catalog]) -> None:
        self.ordinary = ordinary
        self._catalog = catalog
        # One pair, replaced in one go: a gateway's loop and its dispatcher's thread ask.
        self._read: tuple[Catalog | None, dict[str, str]] = (None, {})

    def of(self, model: str) -> str:
        return self._by_model().get(model, self.ordinary)

    @property
    def named(self) -> Collection[str]:
        return {self.ordinary, *self._by_model().values()}

    def _by_model(self) -> dict[str, str]:
        catalog = self._catalog()
        known, by_model = self._read
        if known is not catalog:
            by_model = {name: one.serving.pool for name, one in catalog.models.items() if one.serving.pool}
            self._read = catalog, by_model
        return by_model


class AssignedPools:
    """What a worker's process knows of models that name a pool; it learns the whole picture whenever that changes."""

    def __init__(self, own: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._own = own
        self._clock = clock
        self._by_model: Mapping[str, str] = {}
        self._moved_at: dict[str, float] = {}

    def learn(self, by_model: Mapping[str, str]) -> None:
        """Take note of all models that name a pool."""
        known = self._by_model
        moved = {model for model in known.keys() | by_model.keys() if known.get(model) != by_model.get(model)}
        now = self._clock()
        # For as long as a session may have a lane of it that was rung before: a lane is dropped within a second.
        self._moved_at = {model: at for model, at in self._moved_at.items() if now - at < 60.0}
        self._moved_at |= dict.fromkeys(moved, now)
        self._by_model = by_model

    def elsewhere(self, model: str) -> bool:
        """Whether a model names another pool than this process's."""
        return self._by_model.get(model, self._own) != self._own

    def left(self, model: str, since: float) -> bool:
        """Whether a lane of the model that was rung at `since` is another pool's, or older than its last move."""
        return self.elsewhere(model) or self._moved_at.get(model, float("-inf")) >= since
