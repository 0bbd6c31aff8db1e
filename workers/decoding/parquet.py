"""Commands of the child: read rows of a Parquet file, a batch at a time, as tensors of a version's inputs.

A file of some kilobytes may stand for billions of rows, and its footer may say anything: what is declared is bounded
before anything is read, and what is read by the runner's limit on memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from model_store.signature import Signature, Tensors
from workers.decoding.columns import find_columns, instances_of
from workers.decoding.rows import answer, refused

HELD = "parquet"
# Of the footer's Thrift structures: a few bytes there can announce gigabytes of names.
FOOTER_STRING_BYTES = 16 * 1024**2
FOOTER_ELEMENTS = 1_000_000
MOST_COLUMNS = 10_000
MOST_ROW_GROUPS = 10_000
# Pages are read as they are needed; without a buffer, the whole part of a column in its row group would be.
BUFFER_BYTES = 1024**2


@dataclass(slots=True)
class Open:
    """A file that is being read; `batches` stands before row `next_row`."""

    file: Any
    signature: Signature
    columns: list[list[str]]
    batches: Iterator[Any]
    batch_rows: int
    next_row: int


def open_file(held: dict[str, Any], arguments: dict[str, Any], _tensors: Tensors) -> tuple[dict[str, Any], Tensors]:
    """Opens `file`, in the current folder, for batches of `batch_rows`; answers how many `rows` it has.

    Raises UploadRefused: parquet_invalid, parquet_too_large, parquet_columns, format_unavailable.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise refused(
            "format_unavailable", "reading Parquet needs pyarrow: pip install 'sluice-gateway[files]'"
        ) from None
    signature = Signature.from_json(arguments["signature"])
    try:
        file = parquet.ParquetFile(
            arguments["file"],
            memory_map=False,
            buffer_size=BUFFER_BYTES,
            pre_buffer=False,
            thrift_string_size_limit=FOOTER_STRING_BYTES,
            thrift_container_size_limit=FOOTER_ELEMENTS,
        )
        metadata, schema = file.metadata, file.schema_arrow
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise refused("parquet_invalid", "the file is no Parquet file, or it is truncated") from error
    if metadata.num_columns > MOST_COLUMNS or metadata.num_row_groups > MOST_ROW_GROUPS:
        raise refused("parquet_too_large", f"at most {MOST_COLUMNS} columns and {MOST_ROW_GROUPS} row groups are read")
    counted = sum(metadata.row_group(group).num_rows for group in range(metadata.num_row_groups))
    if counted != metadata.num_rows or counted < 0:
        raise refused("parquet_invalid", "the file's footer contradicts itself")
    if counted > arguments["most_rows"]:
        raise refused("parquet_too_large", f"the file has {counted:,} rows; {arguments['most_rows']:,} are taken")
    columns = find_columns(signature, schema)
    found = Open(file, signature, columns, iter(()), arguments["batch_rows"], 0)
    _seek(found, 0)
    held[HELD] = found
    return {"rows": counted}, {}


def read_rows(held: dict[str, Any], arguments: dict[str, Any], _tensors: Tensors) -> tuple[dict[str, Any], Tensors]:
    """The next batch from row `start` on: how many `rows`, what is `wrong` with some, and tensors of the others."""
    import pyarrow

    found: Open = held[HELD]
    try:
        if arguments["start"] != found.next_row:
            _seek(found, arguments["start"])
        batch = next(found.batches, None)
    except MemoryError:  # Arrow's own is an ArrowException as well
        raise
    except (pyarrow.ArrowException, OSError) as error:
        raise refused("parquet_invalid", f"the file cannot be read after row {found.next_row}") from error
    if batch is None or not batch.num_rows:
        return answer(0, {}, {})
    found.next_row += batch.num_rows
    read = {
        spec.name: instances_of(batch, spec, names)
        for spec, names in zip(found.signature.inputs, found.columns, strict=True)
    }
    wrong = {row: message for part in reversed(read.values()) for row, message in part.wrong.items()}
    return answer(batch.num_rows, wrong, {name: part.values for name, part in read.items()})


def _seek(found: Open, row: int) -> None:
    """Stands before a row: whole row groups are passed by, the rows before it in its own are read and dropped."""
    metadata, first, group = found.file.metadata, 0, 0
    while group < metadata.num_row_groups and first + metadata.row_group(group).num_rows <= row:
        first += metadata.row_group(group).num_rows
        group += 1
    found.batches = _from_row(found, range(group, metadata.num_row_groups), row - first)
    found.next_row = row


def _from_row(found: Open, groups: range, skipped: int) -> Iterator[Any]:
    names = list(dict.fromkeys(name for names in found.columns for name in names))
    for batch in found.file.iter_batches(found.batch_rows, list(groups), names, use_threads=False):
        left = max(skipped - batch.num_rows, 0)
        if skipped < batch.num_rows:
            yield batch.slice(skipped)
        skipped = left
