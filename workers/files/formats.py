"""The formats of files by name; each is imported when a file of it comes, since some bring large libraries."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pathlib import PurePath
from typing import cast

from model_store.errors import FormatUnsupported
from workers.files.contract import Format

# Where each is, what an upload's Content-Type says (in small letters), and how names of such files end.
FORMATS: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "jsonl": (
        "workers.files.json_rows:JsonLines",
        ("application/jsonl", "application/x-ndjson", "application/ndjson", "application/json-lines"),
        (".jsonl", ".ndjson"),
    ),
    "csv": ("workers.files.csv_rows:CommaSeparated", ("text/csv",), (".csv",)),
    "npz": ("workers.files.npz:NumpyArchive", ("application/x-npz", "application/x-numpy"), (".npz",)),
    "openai": ("workers.files.batch_requests:BatchRequests", (), ()),
    "parquet": (
        "workers.decoding.formats:parquet",
        ("application/vnd.apache.parquet", "application/x-parquet"),
        (".parquet",),
    ),
    "files": ("workers.decoding.formats:files", ("application/zip", "application/x-zip-compressed"), (".zip",)),
    "images": ("workers.decoding.formats:images", (), ()),
    "images-0-1": ("workers.decoding.formats:images_of_units", (), ()),
    "images-0-255": ("workers.decoding.formats:images_of_bytes", (), ()),
}


@cache
def format_named(name: str) -> Format:
    """The format of a name; raises FormatUnsupported."""
    if name not in FORMATS:
        raise FormatUnsupported(f"there is no format {name[:32]!r}; there are {', '.join(sorted(FORMATS))}")
    module, _, attribute = FORMATS[name][0].partition(":")
    return cast(Format, getattr(import_module(module), attribute)())


def name_of(format_name: str | None, media_type: str, file_name: str) -> str:
    """The format of an upload: as it is asked for, else by Content-Type, else by the file's name.

    Raises FormatUnsupported.
    """
    if format_name is not None:
        if format_name not in FORMATS:
            format_named(format_name)
        return format_name
    plain = media_type.partition(";")[0].strip().lower()
    suffix = PurePath(file_name).suffix.lower()
    for name, (_, media_types, suffixes) in FORMATS.items():
        if plain in media_types or suffix in suffixes:
            return name
    told = f"the Content-Type {plain[:64]!r} names no format" if plain else "no Content-Type says what the file is"
    raise FormatUnsupported(f"{told}; `?format=` is one of {', '.join(sorted(FORMATS))}")
