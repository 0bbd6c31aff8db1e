"""What an import finds at the MLflow server, and the errors with which it ends where there is nothing to be had."""

from __future__ import annotations

import json
from dataclasses import dataclass

from model_store.errors import SluiceError


class SourceNotFound(SluiceError):
    """The registry has no such model, version, alias or run."""

    status = 404
    code = "source_not_found"


class SourceRefused(SluiceError):
    """What the URI leads to cannot be imported; the message says why."""

    status = 422
    code = "source_refused"


class RegistryUnavailable(SluiceError):
    """The MLflow server does not answer, or not as one does."""

    status = 503
    code = "registry_unavailable"


@dataclass(frozen=True, slots=True)
class Source:
    """What a URI led to: where the files are on the server, and which run and version they are of."""

    uri: str
    artifacts: str
    run_id: str | None = None
    registered_version: str | None = None
    model_id: str | None = None

    def to_json(self) -> str:
        """As it is kept with the version."""
        kept = {"uri": self.uri, "run_id": self.run_id, "registered_version": self.registered_version}
        return json.dumps({"kind": "mlflow", **kept, "model_id": self.model_id})


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file below a model's place: its path from there, and how large the server says it is."""

    path: str
    size_bytes: int
