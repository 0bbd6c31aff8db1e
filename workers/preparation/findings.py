"""Findings about an upload: what is wrong with it, as a stable code, and where."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from workers.errors import UploadRefused, brief

NAME_CHARACTERS = 80


def refused(code: str, message: str, place: str = "") -> UploadRefused:
    """The refusal to raise; `place` is a path in the configuration, a member of the archive or an object of HDF5."""
    place = place.lstrip(".")
    return UploadRefused(f"{place}: {message}" if place else message, code=code)


def shown(name: object) -> str:
    """A name out of an upload as it may stand in a message: short, ASCII, in quotes."""
    if isinstance(name, bytes):
        name = name.decode("utf-8", errors="replace")
    return ascii(str(name)[:NAME_CHARACTERS])


@contextlib.contextmanager
def keras_findings(code: str = "load_failed", what: str = "Keras cannot load the model") -> Iterator[None]:
    """Makes what Keras raises about a model into a finding of this code, or weights_mismatch.

    Running out of memory stays what it is, for the runner to report.
    """
    try:
        yield
    except (UploadRefused, MemoryError):
        raise
    except Exception as error:
        if type(error).__name__ == "ResourceExhaustedError":
            raise
        if "objects could not be loaded" in str(error):
            code = "weights_mismatch"
        raise refused(code, f"{what}: {brief(error)}") from error
