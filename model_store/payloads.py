"""Large inputs and results of jobs, read in pieces, and found again where no job needs them any more.

Where the store is encrypted, small payloads are sealed as a whole and larger ones in pieces; either can be read.
"""

from __future__ import annotations

import io
import os
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO

from model_store.errors import ArtifactCorrupt, ArtifactMissing, SealBroken

if TYPE_CHECKING:
    from model_store.artifacts import Artifacts

# The first byte of what `AtRest.seal` gives. No payload begins with it: they are JSON, or begin with a NUL.
SEALED = b"\x01"


def open_payload(artifacts: Artifacts, name: str) -> BinaryIO:
    """The bytes kept under a name, which can be sought in; raises ArtifactMissing, ArtifactCorrupt (also when read)."""
    path = artifacts.payload_path(name)
    try:
        file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb")
    except FileNotFoundError:
        raise ArtifactMissing(f"the store has no payload {name}") from None
    try:
        if file.peek(1)[:1] == SEALED:
            with file:
                return io.BytesIO(artifacts.unsealed(name, file.read()))
        return artifacts.plain(file, context_of(name))
    except SealBroken as error:
        file.close()
        raise ArtifactCorrupt(f"a payload cannot be decrypted: {error}") from error


def old_payloads(artifacts: Artifacts, older_than_seconds: float) -> Iterator[str]:
    """Names of payloads that nobody wrote within that time."""
    try:
        with os.scandir(artifacts.root / "payloads") as entries:
            for entry in entries:
                try:
                    age_seconds = time.time() - entry.stat(follow_symlinks=False).st_mtime
                except FileNotFoundError:
                    continue
                if age_seconds > older_than_seconds:
                    yield entry.name
    except FileNotFoundError:
        return


def context_of(name: str) -> bytes:
    """What a payload's key is bound to, so that none can be put in another's place."""
    return b"payload|" + name.encode()
