"""Findings about an upload: what is wrong with it, as a stable code, and where."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from workers.errors import UploadRefused, brief, first_line

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
    except Exception as error:  # whatever Keras or HDF5 raises on a file, the file is refused
        if type(error).__name__ == "ResourceExhaustedError":
            raise
        if "objects could not be loaded" in str(error):
            code = "weights_mismatch"
        raise refused(code, f"{what}: {_innermost(error)}") from error


def _innermost(error: Exception) -> str:
    """What went wrong, without the layers of explanation that Keras puts around it."""
    for opening in ("Exception encountered: ", "Example error message for object"):
        _, found, rest = str(error).rpartition(opening)
        if found:
            return first_line(rest.partition(":\n")[2] or rest)
    return brief(error)
