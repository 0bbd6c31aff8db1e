"""Which model, version and signature a message of TensorFlow Serving means, and which version answered."""

from __future__ import annotations

from dataclasses import dataclass

import grpc

from gateway.grpc_services.calls import Reply
from gateway.grpc_services.failures import CallFailed, failure_of
from gateway.grpc_services.messages import Fields, message
from model_store.catalog import label_not_found, not_found
from model_store.errors import ModelNotFound
from model_store.names import NAME
from model_store.signature import DEFAULT_NAME

ModelSpec = message("tensorflow.serving.ModelSpec")
VERSION = b"sluice-model-version"
# As many digits as the version in a prediction's path may have.
HIGHEST_VERSION = 999_999_999


@dataclass(frozen=True, slots=True)
class Target:
    """What a ModelSpec names; `signature_name` is empty where it names none."""

    model: str
    version: int | None
    label: str | None
    signature_name: str

    @property
    def path(self) -> str:
        """Behind `/v1/models/` and `/v2/models/` alike."""
        if self.version is not None:
            return f"{self.model}/versions/{self.version}"
        return self.model if self.label is None else f"{self.model}/labels/{self.label}"

    def unknown(self) -> ModelNotFound:
        """What to say where there is no such model or version, or not for this caller."""
        return not_found(self.model[:128], self.version)


def target_of(spec: Fields) -> Target:
    """Raises CallFailed where nothing is named, and for names and numbers that nothing can have."""
    if not spec.name:
        raise CallFailed(grpc.StatusCode.INVALID_ARGUMENT, "Missing ModelSpec")
    version = spec.version.value if spec.HasField("version") else None
    label = spec.version_label if spec.HasField("version_label") else None
    found = Target(spec.name, version, label, spec.signature_name)
    if not NAME.fullmatch(spec.name) or (version is not None and not 0 <= version <= HIGHEST_VERSION):
        raise failure_of(found.unknown())
    if label is not None and not NAME.fullmatch(label):
        raise failure_of(label_not_found(label[:128]))
    return found


def answered_by(target: Target, reply: Reply) -> Fields:
    """The ModelSpec of an answer: always with its version, the one thing that REST's answers do not say."""
    made: Fields = ModelSpec(name=target.model, signature_name=target.signature_name or DEFAULT_NAME)
    made.version.value = int(reply.headers[VERSION])
    return made
