"""Golden samples of a version: inputs with the answers that the uploaded model itself gave, in one small file.

The file is an uncompressed `.npz` as numpy writes it, without pickle: `inputs/<name>.npy` and `outputs/<name>.npy` in
the order of the signature. Texts are arrays of bytes (dtype `S`), which numpy reads without our code. The same samples
are the same bytes, so that a version that is prepared again has the same digest.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Mapping, Sequence

import numpy as np

from model_store.signature import Signature, Tensor, Tensors

# What is packed where more than one instance was drawn, and what a single instance may take: three images of 224 x 224
# fit, and no version's samples weigh more than its artifact would.
FULL_BYTES = 1024**2
MOST_BYTES = 16 * 1024**2
MOST_MEMBERS = 4096
SIDES = ("inputs", "outputs")
_SUFFIX = ".npy"
_MOMENT = (1980, 1, 1, 0, 0, 0)
# A member of an archive costs its header twice, and the array's own.
_MEMBER_BYTES = 512


class GoldenInvalid(ValueError):
    """Tensors that the file cannot carry, or a file that is none."""


def pack(inputs: Tensors, outputs: Tensors) -> bytes:
    """The samples' file; raises GoldenInvalid: too large, a name or a text that numpy's form cannot carry."""
    if _size(inputs, outputs) > MOST_BYTES:
        raise GoldenInvalid(f"the samples take more than {MOST_BYTES} bytes")
    sides = zip(SIDES, (inputs, outputs), strict=True)
    return _archive({f"{side}/{name}": tensor for side, tensors in sides for name, tensor in tensors.items()})


def packed_inputs(inputs: Tensors) -> bytes:
    """Inputs alone, as samples are uploaded: `<name>.npy` for each. Raises GoldenInvalid."""
    if _size(inputs) > MOST_BYTES:
        raise GoldenInvalid(f"the samples take more than {MOST_BYTES} bytes")
    return _archive(inputs)


def unpack(data: bytes) -> tuple[Tensors, Tensors]:
    """Inputs and outputs by name, texts as objects holding `bytes`; raises GoldenInvalid."""
    sides: tuple[Tensors, Tensors] = ({}, {})
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            if len(members) > MOST_MEMBERS or sum(member.file_size for member in members) > 2 * MOST_BYTES:
                raise GoldenInvalid("the samples are too large")
            # As they are packed: what is compressed says nothing of what it unpacks to.
            if any(member.compress_type != zipfile.ZIP_STORED for member in members):
                raise GoldenInvalid("the samples are compressed")
            for member in members:
                side, _, name = member.filename.removesuffix(_SUFFIX).partition("/")
                sides[SIDES.index(side)][name] = _tensor(archive.read(member))
    except (zipfile.BadZipFile, RuntimeError, TypeError, ValueError, EOFError) as error:
        raise GoldenInvalid(f"no golden samples: {type(error).__name__}") from error
    return sides


def chosen(pairs: Sequence[tuple[Tensors, Tensors]], signature: Signature, *, row_wise: bool) -> bytes | None:
    """The file of as many instances of the pairs as fit; None where not even the first pair can be packed.

    `row_wise` says that an instance's answer does not depend on the others of its batch, so that they may be put
    together and cut apart.
    """
    if row_wise and signature.batched and _alike(pairs):
        inputs, outputs = _joined(pairs, 0), _joined(pairs, 1)
        rows = next(iter(inputs.values())).shape[0]
        each = max(1, _size(inputs, outputs) // rows)
        fitting = max(1, min(rows, FULL_BYTES // each))
        return _packed(_cut(inputs, fitting), _cut(outputs, fitting))
    for pair in reversed(pairs):
        if _size(*pair) <= FULL_BYTES and (data := _packed(*pair)) is not None:
            return data
    return _packed(*pairs[0])


def _packed(inputs: Tensors, outputs: Tensors) -> bytes | None:
    try:
        return pack(inputs, outputs)
    except GoldenInvalid:
        return None


def _archive(arrays: Mapping[str, Tensor]) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for name, tensor in arrays.items():
            # A moment and rights that are always the same, whoever writes it and when.
            member = zipfile.ZipInfo(_member(name), _MOMENT)
            member.create_system, member.external_attr = 3, 0o644 << 16
            archive.writestr(member, _array(tensor))
    return target.getvalue()


def _member(name: str) -> str:
    try:
        encoded = name.encode()
    except UnicodeEncodeError as error:
        raise GoldenInvalid("a tensor's name is no text") from error
    if b"\0" in encoded or len(encoded) > 1024 or name.endswith(_SUFFIX):
        raise GoldenInvalid(f"a tensor's name cannot be a file's: {name[:64]!r}")
    return f"{name}{_SUFFIX}"


def _array(tensor: Tensor) -> bytes:
    if tensor.dtype.kind not in "biufcO":
        raise GoldenInvalid(f"numpy alone does not know {tensor.dtype}")
    target = io.BytesIO()
    # Little-endian and in C order, whatever it was: one spelling of the same numbers.
    plain = _texts(tensor) if tensor.dtype == object else tensor.astype(tensor.dtype.newbyteorder("<"), copy=False)
    np.lib.format.write_array(target, np.ascontiguousarray(plain).reshape(tensor.shape), (1, 0), allow_pickle=False)
    return target.getvalue()


def _texts(tensor: Tensor) -> Tensor:
    flat = [item if isinstance(item, bytes) else str(item).encode() for item in tensor.reshape(-1).tolist()]
    if any(text.endswith(b"\0") for text in flat):
        raise GoldenInvalid("a text ends with NUL, which numpy takes for its end")
    if len(flat) * max(map(len, flat), default=0) > MOST_BYTES:
        raise GoldenInvalid(f"the samples take more than {MOST_BYTES} bytes")
    return np.array(flat, np.bytes_).reshape(tensor.shape)


def _tensor(data: bytes) -> Tensor:
    """Raises ValueError for objects, and where a head announces more or less than follows it: that takes no memory."""
    stream = io.BytesIO(data)
    if np.lib.format.read_magic(stream) != (1, 0):
        raise ValueError("another version of numpy's form")
    shape, by_columns, dtype = np.lib.format.read_array_header_1_0(stream)
    if by_columns or dtype.kind not in "biufcS" or math.prod(shape) * dtype.itemsize != len(data) - stream.tell():
        raise ValueError("no array of these bytes")
    array = np.frombuffer(data, dtype, math.prod(shape), stream.tell()).reshape(shape)
    return array.astype(object) if dtype.kind == "S" else array.copy()


def _size(*groups: Tensors) -> int:
    return sum(_bytes(tensor) + _MEMBER_BYTES for tensors in groups for tensor in tensors.values())


def _bytes(tensor: Tensor) -> int:
    if tensor.dtype != object:
        return tensor.nbytes
    return tensor.size * max((len(item) for item in tensor.reshape(-1).tolist()), default=0)


def _alike(pairs: Sequence[tuple[Tensors, Tensors]]) -> bool:
    """Whether the pairs differ in their first dimension only: free dimensions may follow what is in a text."""
    return len({_form(tensors) for tensors, _ in pairs}) == 1 == len({_form(tensors) for _, tensors in pairs})


def _form(tensors: Tensors) -> tuple[tuple[str, str, tuple[int, ...]], ...]:
    return tuple((name, tensor.dtype.str, tensor.shape[1:]) for name, tensor in tensors.items())


def _joined(pairs: Sequence[tuple[Tensors, Tensors]], side: int) -> Tensors:
    return {name: np.concatenate([pair[side][name] for pair in pairs]) for name in pairs[0][side]}


def _cut(tensors: Tensors, rows: int) -> Tensors:
    return {name: tensor[:rows] for name, tensor in tensors.items()}
