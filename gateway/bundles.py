"""Bundles: one variant of a version with all that a device needs to run it, to check it and to know where it is from.

A bundle is a zip that is written while it is sent; its files have no compression and no moment, so that the same bundle
has the same bytes but for its signature, which says when it was made.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from sqlalchemy.orm import Session

from model_store import golden, listing
from model_store.artifacts import Artifacts
from model_store.environment import Environment
from model_store.errors import SluiceError, VersionNotReady
from model_store.model_settings import metadata_of
from model_store.signature import Signature
from model_store.tables import State, Variant, Version
from model_store.variant_policies import FP16, QUANTISED
from workers.preparation.parity import HALF, OF_RANGE
from workers.runtimes.predictor import batch_of

PIECE_BYTES = 256 * 1024
PROGRAMS = Path(__file__).resolve().parent / "static"
# By the variant's runtime: the artifact's name in the bundle, and the program that runs it.
FORMS: Mapping[str, tuple[str, str]] = {
    "onnx": ("model.onnx", "bundle_onnx.py"),
    "litert": ("model.tflite", "bundle_litert.py"),
    "tensorflow": ("savedmodel.tar", "bundle_tensorflow.py"),
}
SIGNATURE_FILE = "bundle.jws"
SUMS_FILE = "SHA256SUMS"
_MOMENT = (1980, 1, 1, 0, 0, 0)


class VariantNotFound(SluiceError):
    """The version has no such variant; the message says which there are."""

    status = 404
    code = "variant_not_found"


class GoldenMissing(SluiceError):
    """A version that was prepared without keeping golden samples, by which a bundle checks itself."""

    status = 409
    code = "golden_missing"


@dataclass(frozen=True, slots=True)
class Bundle:
    """What goes into the zip: small `files`, and the artifact's name and digest. `claims` are what is signed."""

    name: str
    files: Mapping[str, bytes]
    artifact: str
    digest: str
    claims: Mapping[str, object]


def describe(session: Session, artifacts: Artifacts, model: str, number: int, variant: str | None) -> Bundle:
    """The bundle of a variant, None for the one that serves; its bytes are not read yet.

    Raises ModelNotFound, VersionNotReady, VariantNotFound, GoldenMissing, and the store's errors.
    """
    version = listing.find_version(session, model, number)
    found = _variant(session, version, variant)
    if version.golden is None:
        raise GoldenMissing(
            "the version has no golden samples: a release before bundles prepared it, or a single instance is too "
            f"large to keep. In the first case, POST /admin/models/{model}/versions/{number}/prepare"
        )
    with artifacts.opened(version.golden) as path:
        samples = path.read_bytes()
    artifact, program = FORMS[found.runtime]
    class_names = metadata_of(session, model, number).class_names
    files = {
        "predict.py": (PROGRAMS / "bundle_predict.py").read_bytes(),
        "runtime.py": (PROGRAMS / program).read_bytes(),
        "signature.json": _json(json.loads(version.signature or "{}")),
        "labels.json": _json(list(class_names or ())),
        "parity.json": _json(_parity(version, found, samples)),
        "golden.npz": samples,
    }
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()} | {artifact: found.digest}
    files[SUMS_FILE] = "".join(f"{digest}  {name}\n" for name, digest in digests.items()).encode()
    digests[SUMS_FILE] = hashlib.sha256(files[SUMS_FILE]).hexdigest()
    claims = {
        "model": model,
        "version": number,
        "variant": found.name,
        "upload_sha256": version.digest,
        "files": digests,
    }
    return Bundle(f"{model}-{number}-{found.name}.zip", files, artifact, found.digest, claims)


def zipped(bundle: Bundle, signature: str, artifacts: Artifacts) -> Iterator[bytes]:
    """The zip in pieces, the artifact's bytes verified before the first of them is sent.

    Raises ArtifactMissing, ArtifactCorrupt at once, rather than when the first piece is asked for.
    """
    held = contextlib.ExitStack()
    artifact = held.enter_context(artifacts.reading(bundle.digest))
    return _pieces(bundle, signature, artifact, held)


def _pieces(bundle: Bundle, signature: str, artifact: BinaryIO, held: contextlib.ExitStack) -> Iterator[bytes]:
    target = _Unsent()
    with held, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for name, data in {**bundle.files, SIGNATURE_FILE: signature.encode()}.items():
            archive.writestr(_member(name), data)
        with archive.open(_member(bundle.artifact), "w", force_zip64=True) as member:
            while piece := artifact.read(PIECE_BYTES):
                member.write(piece)
                yield target.taken()
        archive.close()
        yield target.taken()


class _Unsent(io.RawIOBase):
    """What a zip has written since somebody looked; it cannot be sought in, so a zip writes sizes behind the bytes."""

    def __init__(self) -> None:
        super().__init__()
        self._buffer = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:  # noqa: ANN401 - RawIOBase's own: anything with a buffer
        self._buffer += data
        return len(data)

    def taken(self) -> bytes:
        """The bytes, which are forgotten here."""
        taken = bytes(self._buffer)
        self._buffer.clear()
        return taken


def _variant(session: Session, version: Version, name: str | None) -> Variant:
    if version.state in {State.START, State.LOADING} and version.variant is None:
        raise VersionNotReady(f"version {version.number} is being prepared", retry_after_seconds=1)
    offered = {found.name: found for found in listing.variants_of(session, version.model, version.number)}
    found = offered.get(name or version.variant or "")
    if found is None or found.runtime not in FORMS:
        there = f"there are: {', '.join(offered)}" if offered else "it has none"
        raise VariantNotFound(f"version {version.number} has no variant {(name or '')[:64]!r} to export; {there}")
    return found


def _parity(version: Version, variant: Variant, samples: bytes) -> dict[str, Any]:
    """The report's row of the variant, and what its answers to the golden samples are measured by."""
    report = json.loads(version.report or "{}")
    rows = (row for row in report.get("variants", ()) if row["name"] == variant.name)
    environment = None if version.environment is None else json.loads(version.environment)
    return {
        "model": version.model,
        "version": version.number,
        "variant": variant.name,
        "runtime": variant.runtime,
        "upload_sha256": version.digest,
        "tolerance": _tolerance(version, variant.name, samples),
        "figures": next(rows, None),
        "environment": environment,
    }


def _tolerance(version: Version, variant: str, samples: bytes) -> dict[str, float]:
    """|Δ| <= absolute + relative * |y|, or as many rows as `top1_floor` with their largest value at the same place.

    2, which no share reaches, is no such floor.
    """
    known = Environment({}, "", "", ()) if version.environment is None else Environment.from_json(version.environment)
    if variant == FP16:
        return {
            "absolute": max(known.absolute, HALF.absolute),
            "relative": max(known.relative, HALF.relative),
            "top1_floor": 2.0,
        }
    if variant not in QUANTISED:
        return {"absolute": known.absolute, "relative": known.relative, "top1_floor": 2.0}
    inputs, outputs = golden.unpack(samples)
    signature = Signature.from_json(version.signature or "")
    floats = [output for output in outputs.values() if output.dtype.kind == "f" and output.size]
    largest = max((float(np.nanmax(np.abs(output))) for output in floats), default=0.0)
    return {
        "absolute": OF_RANGE * largest,
        "relative": 0.0,
        "top1_floor": known.golden_floor(batch_of(signature, inputs) or 1),
    }


def _member(name: str) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name, _MOMENT)
    member.create_system, member.external_attr = 3, 0o644 << 16
    return member


def _json(document: object) -> bytes:
    return json.dumps(document, indent=2, ensure_ascii=False).encode() + b"\n"
