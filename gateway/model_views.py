"""Models and versions as administrators see them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict
from sqlalchemy.orm import Session

from gateway.sight import Sight
from model_store import listing
from model_store.further_signatures import FurtherSignatures
from model_store.signature import Signature, TensorSpec
from model_store.tables import Label, Model, State, Variant, Version
from workers.protocols.signature_names import default_names
from workers.tables import Preparation

DIGEST = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
SUMMARY_EXAMPLE: JsonDict = {
    "version": 1,
    "state": "AVAILABLE",
    "format": "keras",
    "created_at": "2026-11-22T13:10:00.123000Z",
    "available_at": "2026-11-22T13:10:09.456000Z",
    "error": None,
    "withdrawn": False,
}
MODEL_EXAMPLE: JsonDict = {
    "name": "mnist",
    "created_at": "2026-11-22T13:10:00.120000Z",
    "latest": 1,
    "labels": {"stable": 1},
    "versions": [SUMMARY_EXAMPLE],
}
VERSION_EXAMPLE: JsonDict = {
    "model": "mnist",
    **SUMMARY_EXAMPLE,
    "digest": DIGEST,
    "size_bytes": 1236542,
    "uploaded_by": "cli_4mZQhVYwW0qK7bN2sT9xLd3R",
    "signed_by": None,
    "labels": ["stable"],
    "signature": {
        "inputs": [{"name": "image", "dtype": "float32", "shape": [None, 28, 28]}],
        "outputs": [{"name": "digit", "dtype": "float32", "shape": [None, 10]}],
    },
    "signature_names": ["serving_default"],
    "further_signatures": [],
    "variants": [
        {
            "name": "onnx",
            "runtime": "onnx",
            "digest": DIGEST[::-1],
            "size_bytes": 408642,
            "memory_bytes": 9437184,
            "chosen": True,
        }
    ],
    "max_batch": 64,
    "max_parallelism": 2,
    "batch_seconds": 0.00008,
    "preparation": {"step": "store", "attempt": 1, "done": True},
    "report": {"steps": []},
    "source": None,
    "environment": {
        "libraries": {"keras": "3.15.1", "onnxruntime": "1.32.0"},
        "python": "3.11.7",
        "machine": "x86_64",
        "features": ["avx2", "fma"],
        "absolute": 0.00001,
        "relative": 0.0001,
        "top1_floor": 0.99,
    },
}


class ErrorShown(BaseModel):
    """Why a version ended before it could serve."""

    code: str
    message: str


class VersionSummary(BaseModel):
    """A version in a list; times are RFC 3339 in UTC."""

    version: int
    state: State
    format: str
    created_at: datetime
    available_at: datetime | None = Field(description="When it first could serve.")
    error: ErrorShown | None = Field(description="Why preparation refused it; null otherwise.")
    withdrawn: bool = Field(
        description="Whether it was retired or rolled back: a bare name does not mean it, and no policy brings it back."
    )


class ModelShown(BaseModel):
    """A model with its versions and labels."""

    model_config = ConfigDict(json_schema_extra={"examples": [MODEL_EXAMPLE]})

    name: str
    created_at: datetime
    latest: int | None = Field(
        description="The highest AVAILABLE version not rolled back: the bare name means it unless traffic is set."
    )
    labels: dict[str, int]
    versions: list[VersionSummary]


class ModelsPage(BaseModel):
    """A page of the list; `next_page_token` is null on the last one."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"models": [MODEL_EXAMPLE], "next_page_token": None}]})

    models: list[ModelShown]
    next_page_token: str | None


class TensorShown(BaseModel):
    """One tensor of a signature; null in `shape` is a free dimension, first of all the batch."""

    name: str
    dtype: str
    shape: list[int | None]


class SignatureShown(BaseModel):
    """Inputs and outputs in the model's own order."""

    inputs: list[TensorShown]
    outputs: list[TensorShown]


class FurtherSignatureShown(SignatureShown):
    """One that requests choose by `signature_name`."""

    name: str
    max_batch: int = Field(description="Most instances of it in one inference.")


class VariantShown(BaseModel):
    """A converted form that gave the same answers as the original."""

    name: str
    runtime: str
    digest: str
    size_bytes: int
    memory_bytes: int = Field(description="Resident memory that loading it takes.")
    chosen: bool = Field(description="Whether it is the one that serves.")


class PreparationShown(BaseModel):
    """How far the preparation is."""

    step: str
    attempt: int
    done: bool


class VersionShown(VersionSummary):
    """Everything about a version."""

    model_config = ConfigDict(json_schema_extra={"examples": [VERSION_EXAMPLE]})

    model: str
    digest: str = Field(description="SHA-256 of the uploaded file.")
    size_bytes: int
    uploaded_by: str = Field(description="Id of the client that uploaded it.")
    signed_by: str | None = Field(description="Id of the upload key that signed the file.")
    labels: list[str] = Field(description="Labels that point to it.")
    signature: SignatureShown | None = Field(description="Known once preparation has loaded the model.")
    signature_names: list[str] = Field(description="Names of that one, which answers whoever names none.")
    further_signatures: list[FurtherSignatureShown] = Field(description="What else the version answers, by name.")
    variants: list[VariantShown]
    max_batch: int = Field(description="Most instances in one inference.")
    max_parallelism: int = Field(description="Most worker slots that run it at once.")
    batch_seconds: float | None = Field(description="Measured time of one inference of `max_batch` instances.")
    preparation: PreparationShown | None
    report: dict[str, Any] | None = Field(description="What each step of the preparation found and measured.")
    source: dict[str, Any] | None = Field(description="What it was imported from; null for an upload.")
    environment: dict[str, Any] | None = Field(
        description="What it was prepared with; a worker that has something else proves it again before it serves."
    )


def show_version(session: Session, model: str, number: int) -> VersionShown:
    """Raises ModelNotFound."""
    version = listing.find_version(session, model, number)
    preparation = session.get(Preparation, (model, number))
    own = None if version.signature is None else Signature.from_json(version.signature)
    further = FurtherSignatures.from_json(version.further_signatures)
    return VersionShown(
        **_summary(version).model_dump(),
        model=model,
        digest=version.digest,
        size_bytes=version.size_bytes,
        uploaded_by=version.uploaded_by,
        signed_by=version.signed_by,
        labels=[label.name for label in listing.labels_of(session, [model]) if label.version == number],
        signature=None if own is None else _signature(own),
        signature_names=[] if own is None else _names(own, further),
        further_signatures=[
            FurtherSignatureShown(
                **_signature(one.signature).model_dump(), name=one.signature.name, max_batch=one.max_batch
            )
            for one in further.listed
        ],
        variants=[_variant(variant, version.variant) for variant in listing.variants_of(session, model, number)],
        max_batch=version.max_batch,
        max_parallelism=version.max_parallelism,
        batch_seconds=version.batch_seconds,
        preparation=None if preparation is None else show_preparation(preparation),
        report=None if version.report is None else json.loads(version.report),
        source=None if version.source is None else json.loads(version.source),
        environment=None if version.environment is None else json.loads(version.environment),
    )


def show_models(session: Session, models: Sequence[Model], sight: Sight) -> list[ModelShown]:
    """Each model with those versions and labels that may be seen, in three queries whatever their number."""
    names = [model.name for model in models]
    versions: dict[str, list[Version]] = {name: [] for name in names}
    for version in listing.versions_of(session, names):
        if sight.version(version.model, version.number):
            versions[version.model].append(version)
    labels: dict[str, list[Label]] = {name: [] for name in names}
    for label in listing.labels_of(session, names):
        if sight.version(label.model, label.version):
            labels[label.model].append(label)
    return [_model(model, versions[model.name], labels[model.name]) for model in models]


def show_preparation(preparation: Preparation) -> PreparationShown:
    return PreparationShown(step=preparation.step, attempt=preparation.attempt, done=preparation.done)


def _model(model: Model, versions: list[Version], labels: list[Label]) -> ModelShown:
    available = [one.number for one in versions if one.state == State.AVAILABLE and not one.withdrawn]
    return ModelShown(
        name=model.name,
        created_at=_time(model.created_at),
        latest=max(available, default=None),
        labels={label.name: label.version for label in labels},
        versions=[_summary(version) for version in versions],
    )


def _summary(version: Version) -> VersionSummary:
    error = None
    if version.error_code is not None:
        error = ErrorShown(code=version.error_code, message=version.error_message or "")
    return VersionSummary(
        version=version.number,
        state=State(version.state),
        format=version.format,
        created_at=_time(version.created_at),
        available_at=None if version.available_at is None else _time(version.available_at),
        error=error,
        withdrawn=version.withdrawn,
    )


def _names(signature: Signature, further: FurtherSignatures) -> list[str]:
    others = {one.signature.name for one in further.listed}
    return [name for name in default_names(signature, *further.aliases) if name not in others]


def _signature(signature: Signature) -> SignatureShown:
    return SignatureShown(
        inputs=[_tensor(spec) for spec in signature.inputs], outputs=[_tensor(spec) for spec in signature.outputs]
    )


def _tensor(spec: TensorSpec) -> TensorShown:
    return TensorShown(name=spec.name, dtype=spec.dtype, shape=list(spec.shape))


def _variant(variant: Variant, chosen: str | None) -> VariantShown:
    return VariantShown(
        name=variant.name,
        runtime=variant.runtime,
        digest=variant.digest,
        size_bytes=variant.size_bytes,
        memory_bytes=variant.memory_bytes,
        chosen=variant.name == chosen,
    )


def _time(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
