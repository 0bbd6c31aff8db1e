"""Errors that know their HTTP status and a stable code; their messages are safe to show to a caller."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType


class SluiceError(Exception):
    """An expected failure: `status` is its HTTP status, `code` a stable identifier, the message is for the caller."""

    status = 500
    code = "internal"
    # Further fields of its answer, by their names in lower case.
    headers: Mapping[str, str] = MappingProxyType({})
    # Further members of its document (RFC 9457, section 3.2), as JSON has them.
    members: Mapping[str, object] = MappingProxyType({})

    def __init__(self, message: str, *, retry_after_seconds: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after_seconds = retry_after_seconds


class ModelNotFound(SluiceError):
    status = 404
    code = "model_not_found"


class LabelNotFound(SluiceError):
    """TensorFlow Serving answers an unknown label with INVALID_ARGUMENT, not NOT_FOUND."""

    status = 400
    code = "label_not_found"


class LabelMissing(LabelNotFound):
    """As a thing of its own, rather than as part of a request, a label that is not there is simply not found."""

    status = 404


class VersionNotReady(SluiceError):
    status = 503
    code = "version_not_ready"


class NameInvalid(SluiceError):
    status = 422
    code = "name_invalid"


class VersionInUse(SluiceError):
    status = 409
    code = "version_in_use"


class VersionNotAvailable(SluiceError):
    """An administrator asks for something that only an AVAILABLE version can do."""

    status = 409
    code = "version_not_available"


class VersionUnwanted(SluiceError):
    """An administrator asks for a version that the model's policy would take away at once."""

    status = 409
    code = "version_unwanted"


class NoVersionBefore(SluiceError):
    """There is nothing to roll back to."""

    status = 409
    code = "no_version_before"


class LabelMoved(SluiceError):
    """Of two administrators who move a label at once, the second acts on what is no longer so."""

    status = 409
    code = "label_moved"


class PreparationRunning(SluiceError):
    """A version is prepared once at a time."""

    status = 409
    code = "preparation_running"


class FormatUnsupported(SluiceError):
    status = 415
    code = "unsupported_format"


class ArtifactMissing(SluiceError):
    status = 500
    code = "artifact_missing"


class ArtifactCorrupt(SluiceError):
    status = 500
    code = "artifact_corrupt"


class ArtifactTooLarge(SluiceError):
    status = 413
    code = "artifact_too_large"


class ArtifactEmpty(SluiceError):
    status = 422
    code = "empty_file"


class StoreFull(SluiceError):
    status = 507
    code = "store_full"


class StoreUnavailable(SluiceError):
    """The store is elsewhere, and does not answer, or not in time, or refuses."""

    status = 503
    code = "store_unavailable"


class DatabaseUnavailable(SluiceError):
    status = 503
    code = "database_unavailable"


class DatabaseNotMigrated(SluiceError):
    status = 503
    code = "database_not_migrated"


class SealBroken(SluiceError):
    """What was sealed cannot be opened: under none of these keys, for something else, or changed since."""

    status = 500
    code = "seal_broken"


class SealingKeysInvalid(SluiceError):
    """The text of the keys is not what keys look like; the process does not start."""

    status = 500
    code = "sealing_keys_invalid"


class StoreEncrypted(SluiceError):
    """The store is encrypted and this process has no key of it; it does not start."""

    status = 500
    code = "store_encrypted"
