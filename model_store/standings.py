"""How versions stand now, briefly: what a worker compares with what it has loaded, for hundreds of versions at once."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from model_store.model_settings import ModelSettingsRow, VersionMetadataRow
from model_store.tables import State, Variant, Version

VERSIONS_A_TIME = 500
Key = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Standing:
    """`digest` is that of the chosen variant: another one has to be loaded. `terms` is whatever else batches run by."""

    state: str
    digest: str | None
    terms: tuple[object, ...]

    @property
    def ended(self) -> bool:
        return self.state == State.END


def standings(session: Session, keys: Collection[Key]) -> dict[Key, Standing]:
    """The standing of each of these versions that there is, in one question for 500 of them."""
    settings, metadata = ModelSettingsRow, VersionMetadataRow
    wanted = (
        select(
            Version.model,
            Version.number,
            Version.state,
            Variant.digest,
            Version.variant,
            Version.max_batch,
            Version.max_parallelism,
            Version.batch_seconds,
            Version.further_signatures,
            settings.max_parallelism,
            settings.max_instances,
            settings.class_names,
            metadata.class_names,
            settings.input_specification,
            metadata.input_specification,
        )
        .outerjoin(
            Variant,
            (Variant.model == Version.model) & (Variant.version == Version.number) & (Variant.name == Version.variant),
        )
        .outerjoin(settings, settings.model == Version.model)
        .outerjoin(metadata, (metadata.model == Version.model) & (metadata.version == Version.number))
    )
    found: dict[Key, Standing] = {}
    ordered = sorted(keys)
    for start in range(0, len(ordered), VERSIONS_A_TIME):
        page = ordered[start : start + VERSIONS_A_TIME]
        rows = session.execute(
            wanted.where(
                Version.model.in_({model for model, _ in page}), Version.number.in_({number for _, number in page})
            )
        )
        for model, number, state, digest, *terms in rows:
            found[model, number] = Standing(state, digest, tuple(terms))
    return found
