"""Records that lack most of their cells: their columns without a look at each cell that is not there.

A record may leave out a float that is missing (NaN). Of 100 columns and 40,000 records with a cell each, in 400 KB, to
make a list of every column took 1.5 seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from model_store.signature import STRING, Tensor, TensorSpec
from workers.errors import InputInvalid
from workers.protocols.errors import invalid
from workers.protocols.json_tensors import Place
from workers.protocols.mlflow_values import tensor_in

# Where a fourth of the cells is there, to go through all of them takes no longer than to read them did.
SPARSE = 4
# As much as a body of 16 MiB can spell out: a record without cells has three bytes, whatever becomes of it.
FILLED_BYTES = 64 * 1024**2


@dataclass(frozen=True, slots=True)
class Gaps:
    """The cells that one column has, and their rows."""

    rows: list[int] = field(default_factory=list)
    cells: list[object] = field(default_factory=list)

    def tensor(self, spec: TensorSpec, count: int) -> Tensor | None:
        """The input of `count` values with NaN between the cells; None where it has to be read cell by cell.

        That is so for all but floats of one value an instance, and for what is wrong, to say where it is.
        """
        if spec.dtype == STRING or np.dtype(spec.dtype).kind != "f" or spec.shape[1:] not in ((), (1,)):
            return None
        found = np.full(count, np.nan, spec.dtype)
        try:
            found[self.rows] = tensor_in(self.cells, replace(spec, shape=(None,)), Place(spec.name))
        except InputInvalid:
            return None
        return found.reshape(count, *spec.shape[1:])


def gaps_in(records: Sequence[Mapping[str, object]], specs: Sequence[TensorSpec]) -> dict[str, Gaps]:
    """By column, where the records lack most cells of the inputs' columns; nothing where they have them.

    Raises InputInvalid where too much would be filled in.
    """
    if sum(map(len, records)) * SPARSE > len(records) * len(specs):
        return {}
    if len(records) * sum(spec.numpy_dtype().itemsize for spec in specs) > FILLED_BYTES:
        raise invalid(
            f"{len(records)} records that lack most of {len(specs)} columns become more than {FILLED_BYTES:,} bytes of "
            "numbers: send fewer at a time"
        )
    found = {spec.name: Gaps() for spec in specs}
    for row, record in enumerate(records):
        for name, cell in record.items():
            if name in found:
                found[name].rows.append(row)
                found[name].cells.append(cell)
    return found
