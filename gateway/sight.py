"""Sight: what somebody may see of models at one moment, for every list and view; the same rights as everywhere."""

from __future__ import annotations

from dataclasses import dataclass

from auth.grants import Action
from auth.rights import ClientRights
from model_store.catalog import Catalog, CatalogModel


@dataclass(frozen=True, slots=True)
class Sight:
    """Of one client, under one picture of what there is; `now_ms` by the database's clock."""

    catalog: Catalog
    rights: ClientRights
    now_ms: int

    def version(self, model: str, number: int) -> bool:
        """Whether a version may be looked at, in whatever state, whether or not it exists."""
        known = self.catalog.models.get(model)
        labels = () if known is None else known.labels_of(number)
        return self.rights.rule(Action.METADATA, model, number, labels, self.now_ms) is not None

    def model(self, model: str) -> bool:
        """Whether the model as a whole, or one of its versions, may be looked at."""
        if self.rights.rule(Action.METADATA, model, None, (), self.now_ms) is not None:
            return True
        known = self.catalog.models.get(model)
        return known is not None and any(self.version(model, number) for number in known.versions)

    def uses(self, model: CatalogModel) -> bool:
        """Whether anything at all is allowed with one of the model's versions."""
        return any(
            self.rights.rule(action, model.name, number, model.labels_of(number), self.now_ms) is not None
            for number in model.versions
            for action in Action
        )

    @property
    def everything(self) -> bool:
        """Whether every version of every model may be looked at."""
        return self.rights.sees_everything(self.now_ms)
