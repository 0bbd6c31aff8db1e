"""Large inputs and results of jobs, read in pieces, and found again where no job needs them any more.

Where the store is encrypted, small payloads are sealed as a whole and larger ones in pieces; either can be read.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO

from model_store.errors import ArtifactCorrupt, ArtifactMissing, SealBroken
from model_store.stores.store import PAYLOADS

if TYPE_CHECKING:
    from model_store.artifacts import Artifacts

PAYLOAD_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}")
# The first byte of what `AtRest.seal` gives. No payload begins with it: they are JSON, or begin with a NUL.
SEALED = b"\x01"


def open_payload(artifacts: Artifacts, name: str) -> BinaryIO:
    """The bytes kept under a name, which can be sought in; raises ArtifactMissing, ArtifactCorrupt (also when read)."""
    try:
        file = artifacts.store.open(payload_name(name))
    except FileNotFoundError:
        raise ArtifactMissing(f"the store has no payload {name}") from None
    try:
        first = file.read(1)
        file.seek(0)
        if first == SEALED:
            with file:
                return io.BytesIO(artifacts.unsealed(name, file.read()))
        return artifacts.plain(file, context_of(name))
    except SealBroken as error:
        file.close()
        raise ArtifactCorrupt(f"a payload cannot be decrypted: {error}") from error


def old_payloads(artifacts: Artifacts, older_than_seconds: float) -> Iterator[str]:
    """Names of payloads that nobody wrote within that time."""
    return (entry.name for entry in artifacts.store.entries(PAYLOADS) if entry.age_seconds > older_than_seconds)


def payload_name(name: str) -> str:
    """What the store calls it."""
    if not PAYLOAD_NAME.fullmatch(name):
        raise ValueError(f"not a payload's name: {name[:80]!r}")
    return f"{PAYLOADS}/{name}"


def context_of(name: str) -> bytes:
    """What a payload's key is bound to, so that none can be put in another's place."""
    return b"payload|" + name.encode()
