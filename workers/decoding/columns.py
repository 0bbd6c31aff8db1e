"""Columns of a table as a version's inputs: which column is meant, and its values as instances.

Only what is plain: a column with the input's name, whose every row has as many numbers as an instance; or, where a
version has one input, as many columns of single numbers as an instance has, in their order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from model_store.signature import STRING, Signature, Tensor, TensorSpec
from workers.decoding.rows import refused

Wrong = dict[int, str]


@dataclass(slots=True)
class Instances:
    """Values of one input, shape (rows, *instance), and what is wrong with some rows; their values mean nothing."""

    values: Tensor
    wrong: Wrong = field(default_factory=dict)


def find_columns(signature: Signature, schema: Any) -> list[list[str]]:  # noqa: ANN401 - pyarrow has no annotations
    """The names of the columns of each input, in order; raises UploadRefused (parquet_columns, shape_open)."""
    for spec in signature.inputs:
        if not spec.batched or None in spec.shape[1:]:
            raise refused("shape_open", f"{spec.name} has the shape {list(spec.shape)}: rows of a table need sizes")
    named = [spec.name for spec in signature.inputs]
    if len(set(schema.names)) != len(schema.names):
        raise refused("parquet_columns", "two columns have the same name")
    if set(named) <= set(schema.names):
        for spec in signature.inputs:
            _require_kind(schema.field(spec.name), spec)
        return [[name] for name in named]
    [first, *others] = signature.inputs
    if others or len(schema.names) != math.prod(_instance(first)):
        raise refused("parquet_columns", f"a column is needed for each input: {', '.join(named)}")
    for column in schema:
        if _is_list(column.type):
            raise refused("parquet_columns", f"the column {column.name[:64]} does not hold single values")
        _require_kind(column, first)
    return [list(schema.names)]


def instances_of(batch: Any, spec: TensorSpec, names: list[str]) -> Instances:  # noqa: ANN401 - as above
    """A record batch's rows as instances of an input."""
    size = math.prod(_instance(spec))
    parts = [_values(batch.column(name), spec, size // len(names)) for name in names]
    wrong = {row: message for part in reversed(parts) for row, message in part.wrong.items()}
    values = parts[0].values if len(parts) == 1 else np.concatenate([part.values for part in parts], axis=1)
    return Instances(values.reshape(batch.num_rows, *_instance(spec)), wrong)


def _instance(spec: TensorSpec) -> tuple[int, ...]:
    return tuple(size for size in spec.shape[1:] if size is not None)


def _values(column: Any, spec: TensorSpec, size: int) -> Instances:  # noqa: ANN401 - as above
    """Shape (rows, size)."""
    import pyarrow

    rows = len(column)
    # Of each row, where its values begin in the level below, and whether there is a null on the way.
    bounds: Tensor = np.arange(rows + 1)
    empty = np.zeros(rows, bool)
    while True:
        empty |= _any_of(column.is_null().to_numpy(zero_copy_only=False), bounds)
        if not _is_list(column.type):
            break
        steps = _steps(column)
        column, bounds = column.values, steps[bounds]
    lengths = np.diff(bounds)
    fits = (lengths == size) & ~empty
    wrong = {int(row): _why(spec, size, int(lengths[row]), null=bool(empty[row])) for row in np.flatnonzero(~fits)}
    first, last = int(bounds[0]), int(bounds[-1])
    leaves = column.slice(first, last - first)
    if pyarrow.types.is_dictionary(leaves.type):
        leaves = leaves.dictionary_decode()
    flat, outside = _leaves(leaves, spec)
    begins: Tensor = bounds[:-1][fits, None] - first
    chosen = np.add(begins, np.arange(size), dtype=np.int64)
    values = np.zeros((rows, size), spec.numpy_dtype())
    values[fits] = flat[chosen]
    for row in np.flatnonzero(fits)[outside[chosen].any(axis=1)].tolist():
        wrong[row] = f"{spec.name} takes {spec.dtype}, which this row's numbers are outside of"
    return Instances(values, wrong)


def _leaves(leaves: Any, spec: TensorSpec) -> tuple[Tensor, Tensor]:  # noqa: ANN401 - as above
    """Single values as the input's dtype, and which of them it cannot hold; nulls are anything."""
    import pyarrow

    nowhere = np.zeros(len(leaves), bool)
    if spec.dtype == STRING:
        texts = np.empty(len(leaves), object)
        texts[:] = [b"" if text is None else text for text in leaves.cast(pyarrow.large_binary()).to_pylist()]
        return texts, nowhere
    plain = leaves if pyarrow.types.is_floating(leaves.type) else leaves.fill_null(False if spec.dtype == "bool" else 0)
    found = plain.to_numpy(zero_copy_only=False)
    wanted = spec.numpy_dtype()
    if wanted.kind in "iu":
        least, most = int(np.iinfo(spec.dtype).min), int(np.iinfo(spec.dtype).max)
        return found.astype(wanted), (found < least) | (found > most)
    with np.errstate(over="ignore"):
        converted = found.astype(wanted)
    return converted, np.isfinite(found) & ~np.isfinite(converted) if wanted.kind == "f" else nowhere


def _steps(column: Any) -> Tensor:  # noqa: ANN401 - as above
    """Where each list's values begin in `column.values`, and where the last one's end."""
    import pyarrow

    if pyarrow.types.is_fixed_size_list(column.type):
        steps: Tensor = (np.arange(len(column) + 1) + column.offset) * column.type.list_size
    else:
        steps = column.offsets.to_numpy(zero_copy_only=False).astype(np.int64)
    return steps


def _any_of(mask: Tensor, bounds: Tensor) -> Tensor:
    """For each row, whether any value between its bounds is marked."""
    before = np.concatenate([[0], np.cumsum(mask)])
    found: Tensor = before[bounds[1:]] > before[bounds[:-1]]
    return found


def _why(spec: TensorSpec, size: int, found: int, *, null: bool) -> str:
    return f"{spec.name} is null" if null else f"{spec.name} takes {size} values, and the row has {found}"


def _is_list(kind: Any) -> bool:  # noqa: ANN401 - as above
    from pyarrow import types

    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _require_kind(column: Any, spec: TensorSpec) -> None:  # noqa: ANN401 - as above
    from pyarrow import types

    kind = column.type
    while _is_list(kind):
        kind = kind.value_type
    if types.is_dictionary(kind):
        kind = kind.value_type
    wanted = spec.numpy_dtype().kind
    text = types.is_string(kind) or types.is_large_string(kind) or types.is_binary(kind) or types.is_large_binary(kind)
    fits = {
        "O": text,
        "b": types.is_boolean(kind),
        "i": types.is_integer(kind),
        "u": types.is_integer(kind),
        "f": types.is_integer(kind) or types.is_floating(kind),
    }
    if not fits.get(wanted, False):
        raise refused(
            "parquet_columns",
            f"the column {column.name[:64]} holds {str(kind)[:64]}, and {spec.name} takes {spec.dtype}",
        )
