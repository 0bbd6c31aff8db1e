"""What an uploaded file is, by its first bytes and its name."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from pathlib import PurePath

from model_store.errors import FormatUnsupported
from model_store.formats import Format

ZIP, HDF5, GZIP = b"PK\x03\x04", b"\x89HDF\r\n\x1a\n", b"\x1f\x8b"
SUFFIXES = {
    ".keras": Format.KERAS,
    ".h5": Format.H5,
    ".hdf5": Format.H5,
    ".onnx": Format.ONNX,
    ".pt": Format.TORCHSCRIPT,
}
# Members that only one kind of archive has. Keras's own come first in its files, so few have to be looked at.
_MEMBERS = (
    (re.compile(r"(?:[^/]+/)?(?:MLmodel|conda\.yaml|python_env\.yaml|data/keras_module\.txt)"), Format.MLFLOW),
    (
        re.compile(r"(?:.*/)?(?:saved_model\.pb|fingerprint\.pb|variables/variables\.(?:index|data-.*))"),
        Format.SAVEDMODEL,
    ),
    (re.compile(r"[^/]+/(?:data/[0-9]+|data\.pkl|constants\.pkl|code/.*)"), Format.TORCHSCRIPT),
    (re.compile(r"metadata\.json|config\.json|model\.weights\.h5"), Format.KERAS),
)
_MEMBERS_LOOKED_AT = 64
_LOCAL = struct.Struct("<4s5H3L2H")  # a member's own header: APPNOTE.TXT 6.3, section 4.3.7
_SIZES_FOLLOW = 0b1000


def format_of(first: bytes, file_name: str) -> Format:
    """The format of a file that begins with these bytes; raises FormatUnsupported where neither tells.

    An archive that is none of the known ones counts as Keras's, whose gate says what is wrong with it.
    """
    if first.startswith(ZIP):
        return _archive(first)
    if first.startswith(HDF5):
        return Format.H5
    if first.startswith(GZIP):
        return Format.SAVEDMODEL
    by_name = SUFFIXES.get(PurePath(file_name).suffix.lower())
    if by_name is None:
        raise FormatUnsupported(
            "neither the first bytes nor a file's name say what this is; accepted are Keras archives (.keras), HDF5"
            " files (.h5, .hdf5) and ONNX models (.onnx); `?format=keras`, `h5` or `onnx` says which"
        )
    return by_name


def _archive(first: bytes) -> Format:
    for name in _names(first):
        for pattern, format in _MEMBERS:
            if pattern.fullmatch(name):
                return format
    return Format.KERAS


def _names(first: bytes) -> Iterator[str]:
    """Names of a zip archive's first members, as far as these bytes go and their headers tell where they end."""
    at = 0
    for _ in range(_MEMBERS_LOOKED_AT):
        header = first[at : at + _LOCAL.size]
        if len(header) < _LOCAL.size or not header.startswith(ZIP):
            return
        _, _, flags, _, _, _, _, stored, _, name_length, extra_length = _LOCAL.unpack(header)
        at += _LOCAL.size
        yield first[at : at + name_length].decode("utf-8", "replace")
        if flags & _SIZES_FOLLOW:
            return
        at += name_length + extra_length + stored
