"""What ran a job: the variant's and the upload's bytes, the runtime, the machine's kind and the worker."""

from __future__ import annotations

import functools
import importlib.metadata
import json
import platform
from dataclasses import asdict, dataclass, fields

from model_store.registry import Served

# The package of each runtime, as its version is known by.
PACKAGES = {"onnx": "onnxruntime", "tensorflow": "tensorflow"}
MOST_CHARACTERS = 256


@dataclass(frozen=True, slots=True)
class Origin:
    """Digests are SHA-256 in hexadecimal; what is not known is empty."""

    artifact: str = ""
    upload: str = ""
    variant: str = ""
    runtime: str = ""
    platform: str = ""
    worker: str = ""

    def to_json(self) -> str:
        """As the job's row keeps it."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str | None) -> Origin:
        """What a row says; a newer release may have written more."""
        known = {} if text is None else json.loads(text)
        return cls(**{field.name: str(known.get(field.name, ""))[:MOST_CHARACTERS] for field in fields(cls)})


NOWHERE = Origin()


def origin_of(served: Served, worker: str) -> Origin:
    """What a loaded version's answers come from."""
    return Origin(
        artifact=served.digest,
        upload=served.upload_digest,
        variant=served.variant,
        runtime=_runtime(served.runtime),
        platform=_platform(),
        worker=worker,
    )


@functools.cache
def _runtime(name: str) -> str:
    package = PACKAGES.get(name, name)
    try:
        return f"{package} {importlib.metadata.version(package)}"
    except importlib.metadata.PackageNotFoundError:
        return package


@functools.cache
def _platform() -> str:
    return f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
