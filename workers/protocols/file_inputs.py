"""Files in the place of an input's numbers, in whatever dialect they came: what is taken, and by which terms.

A version's input specification says how a file becomes an instance. What can be told without decoding is told here, in
the gateway for a job and in the worker for every request; the contract's reader does the rest.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from functools import lru_cache

from model_store.signature import STRING, Signature, Tensor, TensorSpec
from workers.decoding.layout import MOST_PIXELS, Layout
from workers.decoding.recordings import Recording
from workers.decoding.texts import specified
from workers.errors import UploadRefused
from workers.protocols.contract import Contract, instance_count
from workers.protocols.errors import invalid, shown_name
from workers.protocols.file_beginnings import IMAGES, RECORDINGS, beginning_of
from workers.protocols.file_reading import FileUnfit, Given

IMAGE, AUDIO, TEXT = "image", "audio", "text"
FORMATS = {IMAGE: IMAGES, AUDIO: RECORDINGS}
FILE_BYTES = 32 * 1024**2
# Of all files of one request, as numbers: a request of a megabyte may stand for as many as its answer may hold.
DECODED_BYTES = 64 * 1024**2
SETTING = "`sluice models settings set MODEL --input FILE` gives it one"

PlaceOf = Callable[[int], str]
"""Where a file, by its number, stands in the request."""


def tensor_of_files(contract: Contract | None, spec: TensorSpec, files: Sequence[bytes], place: PlaceOf) -> Tensor:
    """The files as an input's instances, in its dtype; raises InputInvalid, with the place of the first wrong one.

    Strings are taken as they are; anything else needs an input specification.
    """
    if contract is None or contract.files is None:
        raise invalid(f"{place(0)} is a file, and files are not taken here; send numbers")
    kind, specification = _terms(contract, spec, place(0))
    instance_count(spec, len(files), contract.max_instances)
    sizes = [size for size in spec.shape[1:] if size is not None]
    if len(files) * math.prod(sizes) * spec.numpy_dtype().itemsize > DECODED_BYTES:
        raise invalid(f"{len(files)} files become more than {DECODED_BYTES:,} bytes of numbers: send fewer at a time")
    try:
        layout = _layout(kind, spec, specification)
    except UploadRefused as error:
        raise invalid(f"{place(0)}: {error.message}") from None
    for number, data in enumerate(files):
        reason = _unfit(kind, layout, data)
        if reason:
            raise invalid(f"{place(number)}: {reason}")
    try:
        return contract.files.read(Given(kind, spec, specification, files))
    except FileUnfit as error:
        raise invalid(f"{place(error.number)}: {error}") from None


def places_of(spec: TensorSpec) -> PlaceOf:
    """Places that are an input's name and a number, such as `image[3]`."""
    name = shown_name(spec.name)

    def place(number: int) -> str:
        return f"{name}[{number}]"

    return place


def takes_files(contract: Contract, spec: TensorSpec) -> bool:
    """Whether an input of numbers has a specification by which files become its instances."""
    return spec.dtype != STRING and spec.batched and specified_kind(contract, spec) in FORMATS


def specified_kind(contract: Contract, spec: TensorSpec) -> str | None:
    """The kind of the input specification where it is one of this input: `image`, `audio` or `text`."""
    if contract.input_specification is None:
        return None
    kind, named = _parsed(contract.input_specification)
    only = len(contract.signature.inputs) == 1
    return kind if named == spec.name or (named is None and only) else None


def as_text(contract: Contract, spec: TensorSpec, text: str) -> str:
    """A text file as the string that an input takes, by the input's specification where it has one."""
    return specified(text, contract.input_specification if specified_kind(contract, spec) == TEXT else None)


@lru_cache(maxsize=256)
def _parsed(specification: str) -> tuple[str, str | None]:
    said = json.loads(specification)
    return said["kind"], said.get("input")


@lru_cache(maxsize=256)
def _layout(kind: str, spec: TensorSpec, specification: str) -> Layout | None:
    """Raises UploadRefused where the specification contradicts the signature; recordings announce no size."""
    if kind == IMAGE:
        return Layout.of(Signature((spec,), ()), None, specification)
    Recording.of(spec, specification)
    return None


def _terms(contract: Contract, spec: TensorSpec, place: str) -> tuple[str, str]:
    kind = specified_kind(contract, spec)
    if kind not in FORMATS or not spec.batched:
        shape = ",".join("-1" if size is None else str(size) for size in spec.shape)
        raise invalid(
            f"{place} is a file, but input '{shown_name(spec.name)}' takes {spec.dtype} of shape [{shape}] and has no "
            f"input specification of images or recordings; {SETTING}"
        )
    return kind, contract.input_specification or ""


def _unfit(kind: str, layout: Layout | None, data: bytes) -> str | None:
    """What is wrong with a file by its beginning alone."""
    if len(data) > FILE_BYTES:
        return f"the file has more than {FILE_BYTES:,} bytes"
    found = beginning_of(data)
    if found is None or found.format not in FORMATS[kind]:
        named = "is an empty file" if not data else f"begins as {found.format}" if found else "begins otherwise"
        return f"the file should be {' or '.join(FORMATS[kind])}, but it {named}"
    if layout is None or found.size is None:
        return None
    width, height = found.size
    if layout.resize == "none" and (width, height) != (layout.width, layout.height):
        return f"it has {width} x {height} pixels, and {layout.width} x {layout.height} are taken"
    if width * height > MOST_PIXELS:
        return f"it has {width} x {height} pixels, and at most {MOST_PIXELS:,} are decoded"
    return None
