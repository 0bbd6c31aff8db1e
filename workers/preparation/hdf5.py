"""The gate for HDF5 files of weights; runs in a runner only, because libhdf5 is native code that reads hostile bytes.

Nothing is followed that leads out of the file (soft and external links, external storage, virtual datasets), nothing
needs a plug-in (filters), and no dataset is read before its declared size was compared with what is stored.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import h5py

from workers.preparation.findings import refused, shown

OBJECTS_LIMIT = 50_000
DEPTH_LIMIT = 32
NAME_LIMIT = 512
ATTRIBUTES_LIMIT = 256
ATTRIBUTE_LIMIT_BYTES = 64 * 1024
# Deflate reaches 1,032 at best; zeros that Keras wrote itself are stored as they are.
EXPANSION_LIMIT = 1000
EXPANSION_FREE_BYTES = 64 * 1024
FILTERS = frozenset({h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32})
LAYOUTS = frozenset({h5py.h5d.COMPACT, h5py.h5d.CONTIGUOUS, h5py.h5d.CHUNKED})
NUMBERS = frozenset("fiub")
BFLOAT16 = "bfloat16"

# What h5py raises about files that are damaged or shaped to confuse it.
ERRORS = (OSError, RuntimeError, ValueError, TypeError, KeyError, OverflowError, AttributeError, UnicodeError)


@dataclass(frozen=True, slots=True)
class Contents:
    """Paths of what a checked file holds, parents before children, and the bytes that its datasets declare."""

    groups: list[str]
    datasets: list[str]
    declared_bytes: int


def check(file: h5py.File, path: Path, limit_bytes: int) -> Contents:
    """Walks an open file; `limit_bytes` bounds what its datasets declare together.

    Raises UploadRefused with the object's path: h5_structure, h5_link, h5_cycle, h5_depth, h5_objects, h5_name,
    h5_dtype, h5_external, h5_virtual, h5_filter, h5_bomb, h5_attr.
    """
    try:
        return _Walk(path.stat().st_size, limit_bytes).run(file)
    except ERRORS as error:
        raise refused("h5_structure", f"the HDF5 file is damaged ({type(error).__name__})") from error


def open_file(path: Path) -> h5py.File:
    """The file opened for reading; raises UploadRefused: h5_structure."""
    try:
        file = h5py.File(path, "r", locking=False)
    except ERRORS as error:
        raise refused("h5_structure", f"not an HDF5 file, or truncated ({type(error).__name__})") from error
    if file.userblock_size:
        raise refused("h5_structure", "the file has other bytes before its HDF5 part")
    return file


class _Walk:
    def __init__(self, file_bytes: int, limit_bytes: int) -> None:
        self._file_bytes = file_bytes
        self._limit_bytes = limit_bytes
        self._seen: set[int] = set()
        self._stored = 0
        self._declared = 0

    def run(self, file: h5py.File) -> Contents:
        groups: list[str] = []
        datasets: list[str] = []
        waiting: list[tuple[str, h5py.h5g.GroupID, int]] = [("", file["/"].id, 0)]
        while waiting:
            place, group, depth = waiting.pop()
            self._enter(group, place)
            for name, child in self._children(group, place, depth):
                if isinstance(child, h5py.h5g.GroupID):
                    groups.append(name)
                    waiting.append((name, child, depth + 1))
                elif isinstance(child, h5py.h5d.DatasetID):
                    self._enter(child, name)
                    self._check_dataset(child, name)
                    datasets.append(name)
                else:
                    raise refused("h5_dtype", "neither a group nor a dataset", name)
        return Contents(sorted(groups), sorted(datasets), self._declared)

    def _children(
        self, group: h5py.h5g.GroupID, place: str, depth: int
    ) -> Iterator[tuple[str, h5py.h5g.GroupID | h5py.h5d.DatasetID]]:
        if len(self._seen) + group.get_num_objs() > OBJECTS_LIMIT:
            raise refused("h5_objects", f"the file has more than {OBJECTS_LIMIT} objects")
        if depth >= DEPTH_LIMIT:
            raise refused("h5_depth", f"groups are nested deeper than {DEPTH_LIMIT}", place)
        for raw in list(group):
            name = _path(place, raw)
            if group.links.get_info(raw).type != h5py.h5l.TYPE_HARD:
                raise refused("h5_link", "a link that is not a hard link", name)
            yield name, h5py.h5o.open(group, raw)

    def _enter(self, thing: h5py.h5g.GroupID | h5py.h5d.DatasetID, place: str) -> None:
        address = h5py.h5o.get_info(thing).addr
        if address in self._seen:
            raise refused("h5_cycle", "the object stands in the file under two names", place)
        self._seen.add(address)
        _check_attributes(thing, place)

    def _check_dataset(self, dataset: h5py.h5d.DatasetID, place: str) -> None:
        layout = dataset.get_create_plist()
        if layout.get_layout() not in LAYOUTS:
            raise refused("h5_virtual", "a virtual dataset", place)
        if layout.get_external_count():
            raise refused("h5_external", "a dataset stored in other files", place)
        for index in range(layout.get_nfilters()):
            if layout.get_filter(index)[0] not in FILTERS:
                raise refused("h5_filter", f"packed by filter {layout.get_filter(index)[0]}", place)
        _check_type(dataset, place)
        self._check_size(dataset, place)

    def _check_size(self, dataset: h5py.h5d.DatasetID, place: str) -> None:
        itemsize = dataset.get_type().get_size()
        declared = math.prod(dataset.shape) * itemsize
        stored = dataset.get_storage_size()
        self._declared += declared
        self._stored += stored
        layout = dataset.get_create_plist()
        chunked = layout.get_layout() == h5py.h5d.CHUNKED
        chunk = math.prod(layout.get_chunk()) * itemsize if chunked else 0
        if max(self._declared, chunk) > self._limit_bytes:
            raise refused("h5_bomb", f"the datasets declare more than {self._limit_bytes} bytes", place)
        # Datasets whose stored bytes overlap each other declare more than the file can hold.
        if self._stored > self._file_bytes or (not chunked and stored != declared):
            raise refused("h5_bomb", "declares bytes that the file does not hold", place)
        if declared > EXPANSION_FREE_BYTES and declared > EXPANSION_LIMIT * stored:
            raise refused("h5_bomb", f"unpacks to more than {EXPANSION_LIMIT} times what is stored", place)


def _path(place: str, raw: bytes) -> str:
    name = raw.decode("utf-8")
    if not name or len(name) > NAME_LIMIT or name in (".", "..") or not name.isprintable() or "/" in name:
        raise refused("h5_name", f"an object is named {shown(raw)}", place)
    return f"{place}/{name}" if place else name


def _check_type(dataset: h5py.h5d.DatasetID, place: str) -> None:
    kind = dataset.get_type()
    if isinstance(kind, h5py.h5t.TypeOpaqueID) and kind.get_size() == 2 and is_bfloat16(h5py.Dataset(dataset)):
        return
    plain = isinstance(kind, (h5py.h5t.TypeIntegerID, h5py.h5t.TypeFloatID, h5py.h5t.TypeEnumID))
    if not plain or kind.get_size() > 8 or kind.dtype.kind not in NUMBERS:
        raise refused("h5_dtype", "a dataset that holds something else than numbers", place)


def is_bfloat16(dataset: h5py.Dataset) -> bool:
    """Whether Keras wrote the dataset as bfloat16: two opaque bytes each, and an attribute that says so."""
    return "dtype" in dataset.attrs and bool(dataset.attrs["dtype"] == BFLOAT16)


def _check_attributes(thing: h5py.h5g.GroupID | h5py.h5d.DatasetID, place: str) -> None:
    count = h5py.h5a.get_num_attrs(thing)
    if count > ATTRIBUTES_LIMIT:
        raise refused("h5_attr", f"{count} attributes", place)
    for index in range(count):
        attribute = h5py.h5a.open(thing, index=index)
        kind = attribute.get_type()
        number = isinstance(kind, (h5py.h5t.TypeIntegerID, h5py.h5t.TypeFloatID))
        # Strings of any length are how Keras writes names; arrays of any length are not.
        if not (number or isinstance(kind, h5py.h5t.TypeStringID)):
            raise refused("h5_attr", "an attribute that is neither text nor a number", place)
        # Not get_storage_size(), which fails for an empty list of names.
        if attribute.get_space().get_simple_extent_npoints() * kind.get_size() > ATTRIBUTE_LIMIT_BYTES:
            raise refused("h5_attr", f"an attribute of more than {ATTRIBUTE_LIMIT_BYTES} bytes", place)
