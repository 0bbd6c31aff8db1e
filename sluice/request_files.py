"""Files as requests: what a file's name says that it is, and what of it is sent."""

from __future__ import annotations

import base64
import json
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sluice.answers import Json
from sluice.failures import CommandFailed

if TYPE_CHECKING:
    import numpy as np

STANDARD_INPUT = "-"
JSON_TYPE = "application/json"
# What is sent as it is, by how a name ends: the gateway hands it to the model's input specification.
FILE_TYPES = {
    ".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp", ".wav": "audio/wav",
    ".flac": "audio/flac", ".txt": "text/plain",
}  # fmt: skip
ARRAYS = frozenset({".npy", ".npz"})
# NumPy's kinds of what JSON can say: booleans, numbers that are not complex, texts.
KINDS = frozenset("biufU")


@dataclass(frozen=True, slots=True)
class Given:
    """What a request is made of: a document in the form of TensorFlow Serving, or a file with its content type."""

    document: Json = None
    content: bytes = b""
    content_type: str = JSON_TYPE

    @property
    def is_file(self) -> bool:
        """Whether it is a file that goes as it is."""
        return self.content_type != JSON_TYPE

    @property
    def is_text(self) -> bool:
        """Whether it is a file of one text."""
        return self.content_type.partition(";")[0].strip() == "text/plain"

    def as_document(self, dimensions: int = 1) -> Json:
        """A document also of a file, for requests that have options beside it.

        A text gets as many dimensions as its input has, the batch's among them.
        """
        if not self.is_file:
            return self.document
        if self.is_text:
            instances: Json = self.content.decode("utf-8-sig", "replace")
            for _ in range(dimensions):
                instances = [instances]
            return {"instances": instances}
        return {"instances": [{"b64": base64.b64encode(self.content).decode()}]}


def read_given(name: str, content_type: str | None = None) -> Given:
    """What is in a file, or in standard input for `-`; its name says what it is where no content type is given.

    Raises CommandFailed.
    """
    ending = "" if name == STANDARD_INPUT else Path(name).suffix.lower()
    if content_type is None and ending in ARRAYS:
        return Given(_arrays(Path(name)))
    known = content_type or FILE_TYPES.get(ending, JSON_TYPE)
    content = _read(name)
    if known != JSON_TYPE:
        return Given(content=content, content_type=known)
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        shown = "standard input" if name == STANDARD_INPUT else name
        known_endings = " ".join(sorted([*ARRAYS, *FILE_TYPES]))
        raise CommandFailed(
            f"{shown} is not JSON: {error}\nOther files are known by how their names end ({known_endings}), or by "
            "--content-type."
        ) from error
    if isinstance(document, list):
        document = {"instances": document}
    if not isinstance(document, dict):
        raise CommandFailed('a request is {"instances": …}, {"inputs": …}, or a list of instances')
    return Given(document)


def _read(name: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if name == STANDARD_INPUT else Path(name).read_bytes()
    except OSError as error:
        raise CommandFailed(f"cannot read {name}: {error.strerror}") from error


def _arrays(path: Path) -> Json:
    """An array of instances, or the arrays of an archive by the names of the inputs; pickled objects are not read."""
    # Here, so that other commands need not wait for NumPy.
    import numpy as np

    try:
        # Opened here: of a torn archive, NumPy leaves its file open.
        with path.open("rb") as file:
            found = np.load(file, allow_pickle=False)
            if isinstance(found, np.ndarray):
                return {"instances": _values(found)}
            return {"inputs": {name: _values(found[name]) for name in found.files}}
    except OSError as error:
        raise CommandFailed(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise CommandFailed(f"{path} holds no arrays of numbers or texts; pickled objects are not read") from error


def _values(array: np.ndarray[Any, Any]) -> Json:
    """Raises ValueError where JSON has no word for its values, such as moments and complex numbers."""
    if array.dtype.kind not in KINDS:
        raise ValueError(f"no numbers or texts: {array.dtype}")
    return array.tolist()
