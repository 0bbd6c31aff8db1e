"""Tables of MLflow's scoring protocol (`dataframe_split`, `dataframe_records`, CSV) and which input takes what of them.

A single input takes the column of its name, or all columns as a matrix in their order; each of several inputs takes the
column of its name. Other columns are dropped, missing ones are named (mlflow/models/utils.py, _enforce_tensor_schema).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from model_store.signature import Signature, Tensor, Tensors, TensorSpec
from workers.protocols.contract import instance_count
from workers.protocols.errors import excerpt, invalid, shown_name
from workers.protocols.json_tensors import Place, expectation
from workers.protocols.mlflow_gaps import Gaps, gaps_in
from workers.protocols.mlflow_values import tensor_in

NAMES_SHOWN = 8


class Table(Protocol):
    """Rows of cells in named columns; `place` says where it stands in the body."""

    @property
    def place(self) -> str: ...

    @property
    def names(self) -> Sequence[str]: ...

    def __len__(self) -> int: ...

    def has(self, name: str) -> bool: ...

    def column(self, name: str, spec: TensorSpec) -> list[object]:
        """The cells of a column, as values that an input of this dtype could take."""

    def matrix(self, spec: TensorSpec) -> list[list[object]]:
        """All cells, row by row."""


def as_they_are(cells: Sequence[object], _: TensorSpec) -> list[object]:
    return list(cells)


@dataclass(frozen=True, slots=True)
class Rows:
    """A table whose rows are lists; `at` says which cell a column's is, `read` makes values of cells."""

    place: str
    at: Mapping[str, int]
    rows: Sequence[Sequence[Any]]
    read: Callable[[Sequence[Any], TensorSpec], list[object]] = as_they_are

    @property
    def names(self) -> Sequence[str]:
        return list(self.at)

    def __len__(self) -> int:
        return len(self.rows)

    def has(self, name: str) -> bool:
        return name in self.at

    def column(self, name: str, spec: TensorSpec) -> list[object]:
        at = self.at[name]
        return self.read([row[at] for row in self.rows], spec)

    def matrix(self, spec: TensorSpec) -> list[list[object]]:
        return [self.read(row, spec) for row in self.rows]


@dataclass(frozen=True, slots=True)
class Records:
    """A table whose rows are objects by column; a cell that a row lacks is null, or refused where there are no gaps.

    `known` are the columns that any of the rows has.
    """

    place: str
    records: Sequence[Mapping[str, object]]
    gaps: bool
    known: frozenset[str]

    @property
    def names(self) -> Sequence[str]:
        return list(self.records[0])

    def __len__(self) -> int:
        return len(self.records)

    def has(self, name: str) -> bool:
        return name in self.known

    def column(self, name: str, spec: TensorSpec) -> list[object]:
        number = next((number for number, record in enumerate(self.records) if name not in record), None)
        if number is not None and not self.gaps:
            raise invalid(f"{self.place}[{number}] lacks {excerpt(name)}; {expectation(spec)}")
        return [record.get(name) for record in self.records]

    def matrix(self, spec: TensorSpec) -> list[list[object]]:  # noqa: ARG002 - as above
        names = self.names
        # What a row lacks is not made up here: rows without cells could ask for far more of them than the body has.
        number = next((number for number, row in enumerate(self.records) if row.keys() != self.records[0].keys()), None)
        if number is not None:
            raise invalid(f"{self.place}[{number}] has other columns than {self.place}[0]")
        return [[record[name] for name in names] for record in self.records]


def split_table(value: object, place: str) -> Rows:
    """`dataframe_split`: `data` as rows, and `columns` and `index` if they are given. Raises InputInvalid."""
    if not isinstance(value, dict):
        raise invalid(f"Dataframe split format must be a dictionary. Got {excerpt(value)}.")
    others = value.keys() - {"columns", "data", "index"}
    if "data" not in value or others:
        raise invalid(
            "Dataframe split format must have 'data' field and optionally 'columns' and 'index' fields. "
            f"Got {_listed(list(value))}."
        )
    rows, index = value["data"], value.get("index")
    if not isinstance(rows, list) or not rows or not all(isinstance(row, list) for row in rows):
        raise invalid(f"{place}.data must be a list of rows, each of them a list of cells")
    if index is not None and not (isinstance(index, list) and len(index) == len(rows)):
        raise invalid(f"{place}.index must be a list with a value for each of the {len(rows)} rows")
    named = value.get("columns")
    names = [str(number) for number in range(len(rows[0]))] if named is None else _names(named, f"{place}.columns")
    number = next((number for number, row in enumerate(rows) if len(row) != len(names)), None)
    if number is not None:
        raise invalid(f"{place}.data[{number}] has {len(rows[number])} cells, but there are {len(names)} columns")
    return Rows(f"{place}.data", places_of(names, place), rows)


def places_of(names: Sequence[str], place: str) -> dict[str, int]:
    """Which cell of a row is whose; raises InputInvalid for a name given twice, where readers differ on what it is."""
    found = {name: number for number, name in enumerate(names)}
    if len(found) < len(names):
        twice = next(name for number, name in enumerate(names) if found[name] != number)
        raise invalid(f"The column {excerpt(twice)} is given twice in {place}")
    return found


def records_table(value: object, place: str, *, gaps: bool = True) -> Records:
    """`dataframe_records`: a list of objects, each of which may lack cells if there may be `gaps`, as pandas has it.

    Raises InputInvalid.
    """
    if not isinstance(value, list):
        raise invalid(f"Dataframe records format must be a list of records. Got {excerpt(value)}.")
    if not value:
        raise invalid(f"{place} has no records")
    number = next((number for number, row in enumerate(value) if not isinstance(row, dict)), None)
    if number is not None:
        raise invalid(f"{place}[{number}] must be an object by column. Got {excerpt(value[number])}.")
    return Records(place, value, gaps, frozenset().union(*value))


def most_rows(signature: Signature, max_instances: int) -> int:
    """More rows than this fit no input: as many instances as one request may have, or as a fixed dimension takes."""
    return max(max_instances, *(spec.shape[0] or 0 for spec in signature.inputs if spec.shape), 0)


def tensors_of(table: Table, signature: Signature, max_instances: int) -> tuple[Tensors, int]:
    """The inputs that a table holds, in the signature's order, and how many instances. Raises InputInvalid."""
    count = max(instance_count(spec, len(table), max_instances) for spec in signature.inputs)
    fixed = next((spec for spec in signature.inputs if spec.shape and spec.shape[0] not in (None, len(table))), None)
    if fixed is not None:
        raise invalid(f"{table.place} has {len(table)} rows, but {expectation(fixed)}")
    if len(signature.inputs) == 1:
        (spec,) = signature.inputs
        return {spec.name: _only_input(table, spec)}, count
    missing = [spec.name for spec in signature.inputs if not table.has(spec.name)]
    if missing:
        raise missing_inputs(missing, signature)
    gaps = gaps_in(table.records, signature.inputs) if isinstance(table, Records) and table.gaps else {}
    return {spec.name: _of_name(table, spec, gaps.get(spec.name)) for spec in signature.inputs}, count


def missing_inputs(names: Sequence[str], signature: Signature) -> Exception:
    """The refusal where inputs are left out, by their names."""
    wanted = "; ".join(expectation(spec) for spec in signature.inputs if spec.name in names[:NAMES_SHOWN])
    return invalid(f"Model is missing inputs {_listed(names)}: {wanted}")


def _only_input(table: Table, spec: TensorSpec) -> Tensor:
    names = table.names
    name = spec.name if table.has(spec.name) else names[0] if len(names) == 1 else None
    cells = [] if name is None else table.column(name, spec)
    if name is None or not (spec.shape[1:] in ((), (1,)) or isinstance(cells[0], list)):
        return _of_matrix(table, spec)
    return _of_column(cells, spec, name)


def _of_name(table: Table, spec: TensorSpec, gaps: Gaps | None) -> Tensor:
    filled = None if gaps is None else gaps.tensor(spec, len(table))
    return _of_column(table.column(spec.name, spec), spec, spec.name) if filled is None else filled


def _of_column(cells: list[object], spec: TensorSpec, name: str) -> Tensor:
    """The tensor whose rows are the cells of one column: values, or lists, which may be flat whatever the shape."""
    row_shape = spec.shape[1:]
    place = Place(f"column '{shown_name(name)}'")
    if not spec.shape:
        raise invalid(f"A table has rows, but {expectation(spec)}: send it as 'inputs'")
    if not row_shape:
        return tensor_in(cells, spec, place)
    first = cells[0]
    if not isinstance(first, list):
        if row_shape != (1,):
            raise invalid(f"The column '{shown_name(name)}' contains single values, but {expectation(spec)}")
        return tensor_in([[cell] for cell in cells], spec, place)
    if len(row_shape) == 1 or None in row_shape or (first and isinstance(first[0], list)):
        return tensor_in(cells, spec, place)
    return _flat(cells, spec, place)


def _of_matrix(table: Table, spec: TensorSpec) -> Tensor:
    width, row_shape = len(table.names), spec.shape[1:]
    place = Place(table.place)
    if row_shape == (None,):
        return tensor_in(table.matrix(spec), spec, place)
    if not row_shape or None in row_shape:
        raise invalid(
            f"{table.place} has {width} columns, of which none is '{shown_name(spec.name)}', but {_one(spec)}"
        )
    wanted = math.prod(size for size in row_shape if size is not None)
    if width != wanted:
        raise invalid(
            f"{table.place} has {width} columns, but {expectation(spec)}: {wanted} columns in order, or one column "
            f"'{shown_name(spec.name)}'"
        )
    return _flat(table.matrix(spec), spec, place)


def _one(spec: TensorSpec) -> str:
    return f"{expectation(spec)}: send one column of its name"


def _flat(rows: list[object] | list[list[object]], spec: TensorSpec, place: Place) -> Tensor:
    """Rows whose values lie flat, in the order of the shape: the first dimension's, then as many as an instance has."""
    row_shape = [size or 0 for size in spec.shape[1:]]
    flat = tensor_in(rows, replace(spec, shape=(spec.shape[0], math.prod(row_shape))), place)
    return flat.reshape(len(flat), *row_shape)


def _names(value: object, place: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(name, str | int) for name in value):
        raise invalid(f"{place} must be a list of the columns' names")
    return [str(name) for name in value]


def _listed(names: Sequence[str]) -> str:
    more = ", …" if len(names) > NAMES_SHOWN else ""
    return f"[{', '.join(excerpt(name) for name in names[:NAMES_SHOWN])}{more}]"
