"""What a version can be asked for beside its default signature: further signatures of its program, and further names.

Only a SavedModel has such; they are found, and tried, by its preparation.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from model_store.signature import Signature


@dataclass(frozen=True, slots=True)
class FurtherSignature:
    """One that callers choose by its name; at most `max_batch` instances of it share an inference."""

    signature: Signature
    max_batch: int


@dataclass(frozen=True, slots=True)
class FurtherSignatures:
    """All of a version; `aliases` are names of signatures that are the default's own function once more."""

    listed: tuple[FurtherSignature, ...] = ()
    aliases: tuple[str, ...] = ()

    def by_name(self, default: Signature) -> dict[str, Signature]:
        """Each signature by the names that callers choose it by; the empty one means the default."""
        further = {one.signature.name: one.signature for one in self.listed}
        return dict.fromkeys(("", default.name, *self.aliases), default) | further

    def to_json(self) -> str | None:
        """As it is kept in SQL; None where there is nothing beside the default."""
        if self == NO_FURTHER:
            return None
        listed = [{"signature": json.loads(one.signature.to_json()), "max_batch": one.max_batch} for one in self.listed]
        return json.dumps({"listed": listed, "aliases": list(self.aliases)})

    @classmethod
    def from_json(cls, text: str | None) -> FurtherSignatures:
        if text is None:
            return NO_FURTHER
        document = json.loads(text)
        listed = (
            FurtherSignature(Signature.from_json(json.dumps(row["signature"])), int(row["max_batch"]))
            for row in document["listed"]
        )
        return cls(tuple(listed), tuple(document["aliases"]))


NO_FURTHER = FurtherSignatures()
