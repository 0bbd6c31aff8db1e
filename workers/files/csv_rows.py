"""Comma-separated values (RFC 4180): each line is an instance, its fields the values of the inputs in their order.

A first line that is not all numbers is a header. It is needed where the model has several inputs: a column belongs to
the input of its name, or of its name before a dot or a bracket (`pixels.0`, `pixels[0]`); a column `id` comes back.
"""

from __future__ import annotations

import csv
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, cast

import orjson

from model_store.errors import SluiceError
from model_store.signature import STRING, Signature, Tensor, TensorSpec
from workers.errors import InputInvalid
from workers.files import row_lines
from workers.files.contract import Asked, Chunk, ChunkSize, FileInvalid, Members, Piece
from workers.files.json_rows import ID, ID_CHARACTERS, lines_of, too_long_error
from workers.files.lines import OFFSET, ROW, count_lines, cut_lines
from workers.files.number_lines import numbers_of
from workers.files.row_lines import RequestRow, UniformRows
from workers.protocols.contract import Contract
from workers.protocols.errors import excerpt, invalid, shown_name
from workers.protocols.json_tensors import Place, tensor_of
from workers.protocols.number_buffer import NumberBuffer
from workers.protocols.number_text import NUMBER_AND_SPACE
from workers.protocols.tensorflow_serving import PredictRequest

HEADER_BYTES = 4 * 1024 * 1024
MARK = b"\xef\xbb\xbf"  # of UTF-8, which spreadsheets write first
_NUMBERS = NUMBER_AND_SPACE.replace(b"\n", b"")
BOOLEANS = {"true": True, "1": True, "false": False, "0": False}


class CommaSeparated:
    """The format `csv`."""

    def chunks(
        self, file: BinaryIO, contract: Contract, size: ChunkSize, checkpoint: Members | None
    ) -> Iterator[Chunk]:
        first = header_of(file)
        places = places_of(first.names, contract.signature)
        terms: Members = {"row_bytes": size.row_bytes, "places": places.to_json(), "columns": len(first.fields)}
        begin = {OFFSET: first.length, ROW: 0} if checkpoint is None else checkpoint
        return cut_lines(file, size, begin, terms, quoted=True)

    def total(self, file: BinaryIO, _contract: Contract, beat: Callable[[], None]) -> int | None:
        lines = count_lines(file, beat, quoted=True)
        return lines - (header_of(file).names is not None)

    def pieces(self, asked: Asked, contract: Contract) -> list[Piece]:
        if too_long := asked.terms.get("too_long"):
            return [row_lines.refused(asked.first_row, None, too_long_error(too_long, asked))]
        places = Places.from_json(asked.terms["places"])
        uniform = uniform_rows(asked, contract.signature, places)
        if uniform is not None:
            return [UniformRows(asked.first_row, {contract.signature.inputs[0].name: uniform}, asked.rows)]
        return [
            piece_of(fields, asked.first_row + place, contract.signature, asked, places)
            for place, fields in enumerate(fields_of(asked.data))
        ]

    def refusals(self, asked: Asked, error: SluiceError) -> bytes:
        place = Places.from_json(asked.terms["places"]).id
        if place is None or not asked.data:
            return row_lines.refusals(asked, error)
        rows = [fields or [] for fields in fields_of(asked.data)]
        return row_lines.refusals(asked, error, [text_of_id(row, place) for row in rows])


@dataclass(frozen=True, slots=True)
class Header:
    """A file's first line: its fields, the names that they are if it is a header, and where the rows begin."""

    fields: Sequence[str]
    names: Sequence[str] | None
    length: int


@dataclass(frozen=True, slots=True)
class Places:
    """Which columns an input's values are in, by the order of the signature; the column of the id."""

    inputs: tuple[tuple[int, ...], ...]
    id: int | None

    def to_json(self) -> Members:
        # As runs: a digit has 784 columns, and each chunk tells its own.
        return {"id": self.id, "inputs": [_runs(columns) for columns in self.inputs]}

    @classmethod
    def from_json(cls, document: object) -> Places:
        found = cast(dict[str, object], document)
        inputs = cast(list[list[list[int]]], found["inputs"])
        columns = tuple(tuple(itertools.chain.from_iterable(range(*run) for run in runs)) for runs in inputs)
        return cls(columns, cast("int | None", found["id"]))


def header_of(file: BinaryIO) -> Header:
    """What the first line says; raises FileInvalid where there is none, or it is too long."""
    file.seek(0)
    line = file.readline(HEADER_BYTES + 1)
    if len(line) > HEADER_BYTES:
        raise FileInvalid(f"the first line has more than {HEADER_BYTES} bytes")
    marked = len(MARK) if line.startswith(MARK) else 0
    fields = next(iter(fields_of(line[marked:])), None)
    if not fields:
        raise FileInvalid("the first line holds no values")
    if all(is_number(field) for field in fields):
        return Header(fields, None, marked)
    if len(fields) == 1 and (b";" in line or b"\t" in line):
        raise FileInvalid("the first line has no comma: fields are separated by commas, not by semicolons or tabs")
    return Header(fields, [field.strip() for field in fields], len(line))


def places_of(names: Sequence[str] | None, signature: Signature) -> Places:
    """Which column belongs to which input; raises FileInvalid where the names do not say."""
    specs = signature.inputs
    if names is None:
        if len(specs) > 1:
            raise FileInvalid("the model has several inputs: the first line must name the columns")
        return Places(((),), None)
    known = {spec.name for spec in specs}
    row_id = names.index(ID) if ID in names and ID not in known else None
    if len(specs) == 1:
        return Places((tuple(place for place in range(len(names)) if place != row_id),), row_id)
    columns: dict[str, list[int]] = {spec.name: [] for spec in specs}
    for place, name in enumerate(names):
        owner = name if name in known else name.partition("[")[0]
        owner = owner if owner in known else name.rpartition(".")[0]
        if owner in known:
            columns[owner].append(place)
        elif place != row_id:
            raise FileInvalid(f"the column {name[:64]!r} belongs to no input of the model")
    missing = [name for name, found in columns.items() if not found]
    if missing:
        raise FileInvalid(f"no column belongs to the input {missing[0][:64]!r}")
    return Places(tuple(tuple(columns[spec.name]) for spec in specs), row_id)


def uniform_rows(asked: Asked, signature: Signature, places: Places) -> Tensor | None:
    """The rows as one tensor, where all fields of all lines are JSON's numbers of the only input; None elsewhere."""
    spec = signature.inputs[0]
    numbers = NumberBuffer.of(spec.numpy_dtype()) if spec.batched else None
    columns = asked.terms["columns"]
    if len(signature.inputs) > 1 or places.id is not None or numbers is None or not isinstance(columns, int):
        return None
    shape = shape_of(spec, columns)
    text = asked.data.removesuffix(b"\n")
    if shape is None or text.translate(None, _NUMBERS) != b"\n".join([b"," * (columns - 1)] * asked.rows):
        return None
    values = numbers_of(text, numbers)
    return None if values is None or values.size != asked.rows * columns else values.reshape(asked.rows, *shape)


def piece_of(fields: list[str] | None, row: int, signature: Signature, asked: Asked, places: Places) -> Piece:
    """One row by itself; `fields` is None where it is no text."""
    row_id = None
    try:
        if fields is None:
            raise invalid("the row is not UTF-8, or its quotation marks do not match")
        row_id = None if places.id is None else text_of_id(fields, places.id)
        return RequestRow(row, request_of(fields, signature, asked, places), row_id)
    except InputInvalid as error:
        return row_lines.refused(row, row_id, error)


def request_of(fields: list[str], signature: Signature, asked: Asked, places: Places) -> PredictRequest:
    columns, limit = asked.terms["columns"], asked.terms["row_bytes"]
    size = sum(map(len, fields))
    if isinstance(limit, int) and size > limit:
        raise too_long_error(size, asked)
    if len(fields) != columns:
        raise invalid(f"the row has {len(fields)} fields, but the first line has {columns}")
    tensors = {}
    for spec, owned in zip(signature.inputs, places.inputs, strict=True):
        values = [fields[place] for place in owned] if owned else fields
        shape = shape_of(spec, len(values))
        if shape is None:
            raise invalid(f"{len(values)} fields do not fill the input '{shown_name(spec.name)}'")
        grid: list[object] = [value_of(text, spec) for text in values]
        flat = TensorSpec(spec.name, spec.dtype, (len(grid),))
        tensors[spec.name] = tensor_of(grid, flat, Place("fields")).reshape((1, *shape) if spec.batched else shape)
    return PredictRequest(tensors, 1, row_form=True)


def shape_of(spec: TensorSpec, count: int) -> tuple[int, ...] | None:
    """The shape of one instance of so many values; None where they do not fill one."""
    shape = spec.shape[1:] if spec.batched else spec.shape
    free = shape.count(None)
    known = math.prod(size for size in shape if size is not None)
    if free == 0:
        return tuple(size for size in shape if size is not None) if count == known else None
    if free > 1 or known == 0 or count % known or not count:
        return None
    return tuple(count // known if size is None else size for size in shape)


def value_of(text: str, spec: TensorSpec) -> object:
    """A field as JSON would say it; raises InputInvalid."""
    if spec.dtype == STRING:
        return text
    plain = text.strip()
    try:
        match spec.numpy_dtype().kind:
            case "f":
                return float(plain.replace("_", "no number"))
            case "b":
                return BOOLEANS[plain.lower()]
            case _:
                return int(plain)
    except (ValueError, KeyError):
        raise invalid(f"{excerpt(text)} is no value of {spec.dtype}") from None


def is_number(text: str) -> bool:
    """Whether a field is one; `nan` and `inf` are, in any letters."""
    if "_" in text:
        return False
    try:
        float(text)
    except ValueError:
        return False
    return True


def fields_of(data: bytes) -> Iterator[list[str] | None]:
    """The fields of each row; None for one that is no text or whose quotation marks do not match."""
    if b'"' not in data:
        for line in lines_of(data):
            try:
                yield line.decode().removesuffix("\r").split(",")
            except UnicodeDecodeError:
                yield None
        return
    for line in quoted_lines(data):
        try:
            # One row of its own: what one reader makes of a stray mark would depend on where the file was cut.
            yield next(csv.reader([line.decode()], strict=True))
        except (UnicodeDecodeError, csv.Error, StopIteration):
            yield None


def quoted_lines(data: bytes) -> Iterator[bytes]:
    """The lines of rows in which line feeds may stand between quotation marks, as the file was cut."""
    held: list[bytes] = []
    for line in lines_of(data):
        held.append(line)
        whole = b"\n".join(held)
        if whole.count(b'"') % 2 == 0:
            yield whole
            held.clear()
    if held:
        yield b"\n".join(held)


def text_of_id(fields: Sequence[str], place: int) -> bytes | None:
    return orjson.dumps(fields[place][:ID_CHARACTERS]) if place < len(fields) else None


def _runs(columns: Sequence[int]) -> list[list[int]]:
    runs: list[list[int]] = []
    for column in columns:
        if runs and runs[-1][1] == column:
            runs[-1][1] = column + 1
        else:
            runs.append([column, column + 1])
    return runs
