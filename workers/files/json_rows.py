"""JSON Lines (jsonlines.org): each line is an instance, or an object with one or several.

A line is one of these, in this order of meaning: an object whose keys are the inputs' names (and `id`); an object with
`instance`, `instances` or `inputs` (and `id`); any other value, which is the instance of the only input.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Callable, Iterator
from typing import BinaryIO

import orjson

from model_store.errors import SluiceError
from model_store.signature import Signature, Tensor
from workers.errors import InputInvalid
from workers.files import row_lines
from workers.files.contract import Asked, Chunk, ChunkSize, Members, Piece
from workers.files.lines import count_lines, cut_lines
from workers.files.number_lines import numbers_of
from workers.files.row_lines import RequestRow, UniformRows
from workers.protocols.contract import Contract
from workers.protocols.errors import invalid
from workers.protocols.json_text import parse_json
from workers.protocols.number_buffer import NumberBuffer
from workers.protocols.number_text import NUMBER_AND_SPACE, fits, grid_shape
from workers.protocols.tensorflow_serving import (
    INPUTS,
    INSTANCES,
    PredictRequest,
    from_columns,
    from_rows,
    is_member_object,
    number_reader,
)

ID, INSTANCE = "id", "instance"
ID_CHARACTERS = 256
# Of members that nobody asked for: what an error tells of them.
MOST_NAMED, NAME_CHARACTERS = 6, 64
# The commonest object, a plain id and numbers: to read it as any other takes four times as long.
NAMED = re.compile(
    rb'\s*+\{\s*+"id"\s*+:\s*+("[ !#-\[\]-~]*+"|-?[1-9][0-9]{0,17})\s*+,\s*+"instance"\s*+:([^"{}]*+)\}\s*+'
)
_NUMBERS = NUMBER_AND_SPACE.replace(b"\n", b"")


class JsonLines:
    """The format `jsonl`."""

    def chunks(
        self, file: BinaryIO, _contract: Contract, size: ChunkSize, checkpoint: Members | None
    ) -> Iterator[Chunk]:
        terms: Members = {"row_bytes": size.row_bytes}
        return cut_lines(file, size, checkpoint, terms)

    def total(self, file: BinaryIO, _contract: Contract, beat: Callable[[], None]) -> int | None:
        return count_lines(file, beat)

    def pieces(self, asked: Asked, contract: Contract) -> list[Piece]:
        if too_long := asked.terms.get("too_long"):
            return [row_lines.refused(asked.first_row, None, too_long_error(too_long, asked))]
        uniform = uniform_rows(asked.data, contract.signature)
        if uniform is not None:
            spec = contract.signature.inputs[0]
            return [UniformRows(asked.first_row, {spec.name: uniform}, len(uniform))]
        return [
            piece_of(line, asked.first_row + place, contract, asked) for place, line in enumerate(lines_of(asked.data))
        ]

    def refusals(self, asked: Asked, error: SluiceError) -> bytes:
        ids = [id_of(line) for line in lines_of(asked.data)] if asked.data else None
        return row_lines.refusals(asked, error, ids)


def lines_of(data: bytes) -> list[bytes]:
    """The rows of a chunk, without their line feeds."""
    return data.removesuffix(b"\n").split(b"\n")


def uniform_rows(data: bytes, signature: Signature) -> Tensor | None:
    """The rows as one tensor where each is the same grid of numbers, for the only input; None where one is not.

    As in workers/protocols/number_text.py, but the text's structure must also be the same in every line: joined, lines
    that are none by themselves could make up others.
    """
    if len(signature.inputs) != 1:
        return None
    spec = signature.inputs[0]
    numbers = NumberBuffer.of(spec.numpy_dtype()) if spec.batched else None
    if numbers is None:
        return None
    text = data.removesuffix(b"\n")
    structure = text.translate(None, _NUMBERS)
    line, _, _ = structure.partition(b"\n")
    count = structure.count(b"\n") + 1
    if structure != b"\n".join([line] * count):
        return None
    shape = grid_shape(line, len(spec.shape) - 1)
    if shape is None or not fits((count, *shape), spec.shape):
        return None
    values, wanted = numbers_of(text, numbers), (count, *shape)
    return None if values is None or values.size != math.prod(wanted) else values.reshape(wanted)


def piece_of(line: bytes, row: int, contract: Contract, asked: Asked) -> Piece:
    """One row by itself."""
    limit = asked.terms.get("row_bytes")
    if isinstance(limit, int) and len(line) > limit:
        return row_lines.refused(row, None, too_long_error(len(line), asked))
    try:
        row_id, request = read_row(line, contract)
    except RowInvalid as error:
        return row_lines.refused(row, error.row_id, error.reason)
    return RequestRow(row, request, row_id)


class RowInvalid(Exception):
    """A row that is none, with its id as JSON if it has one that can be read."""

    def __init__(self, row_id: bytes | None, reason: InputInvalid) -> None:
        super().__init__()
        self.row_id = row_id
        self.reason = reason


def read_row(line: bytes, contract: Contract) -> tuple[bytes | None, PredictRequest]:
    """A row's id as JSON, if it has one, and its request; raises RowInvalid."""
    row_id: bytes | None = None
    try:
        signature, most = contract.signature, contract.max_instances
        reader = number_reader(signature)
        found = None if reader is None else reader.read(b'{"instances":[%b]}' % line)
        if found is not None and len(found[1]) == 1:
            return None, PredictRequest({signature.inputs[0].name: found[1]}, 1, row_form=True)
        named = NAMED.fullmatch(line)
        if named is not None and reader is not None and len(named[1]) <= ID_CHARACTERS:
            found = reader.read(b'{"instances":[%b]}' % named[2])
            if found is not None and len(found[1]) == 1 and ID not in names_of(signature):
                return named[1], PredictRequest({signature.inputs[0].name: found[1]}, 1, row_form=True)
        value = parse_json(line)
        if not is_member_object(value):
            return None, from_rows([value], signature, most)
        row_id = text_of_id(value)
        return row_id, request_of(value, signature, most)
    except InputInvalid as error:
        raise RowInvalid(row_id, error) from None


def request_of(value: dict[str, object], signature: Signature, most: int) -> PredictRequest:
    """The request that an object is."""
    names = names_of(signature)
    rest = {name: member for name, member in value.items() if name != ID or name in names}
    if rest.keys() == names:
        # With one input, `from_rows` takes a row of its name and value as well.
        return from_rows([rest], signature, most)
    if rest.keys() == {INSTANCE}:
        return from_rows([rest[INSTANCE]], signature, most)
    if rest.keys() == {INSTANCES}:
        return from_rows(rest[INSTANCES], signature, most)
    if rest.keys() == {INPUTS}:
        return from_columns(rest[INPUTS], signature, most)
    member = next((name for name in (INSTANCE, INSTANCES, INPUTS) if name in rest.keys() - names), None)
    if member is not None:
        others = ", ".join(repr(name[:NAME_CHARACTERS]) for name in list(rest)[:MOST_NAMED] if name != member)
        raise invalid(f"beside '{member}' a row may have an 'id', but this one has {others}")
    return from_rows([rest], signature, most)


def names_of(signature: Signature) -> frozenset[str]:
    return frozenset(spec.name for spec in signature.inputs)


def text_of_id(value: dict[str, object]) -> bytes | None:
    """The id as JSON; raises InputInvalid where it is neither a short text nor a whole number."""
    row_id = value.get(ID)
    if row_id is None:
        return None
    if isinstance(row_id, str) and len(row_id) > ID_CHARACTERS:
        raise invalid(f"an id may have {ID_CHARACTERS} characters")
    if isinstance(row_id, str) or type(row_id) is int:
        with contextlib.suppress(TypeError):
            return orjson.dumps(row_id)
    raise invalid("an id is a text or a whole number of 64 bits")


def id_of(line: bytes) -> bytes | None:
    """The id of a row that may be no row at all."""
    if b'"id"' not in line:
        return None
    try:
        value = parse_json(line)
        return text_of_id(value) if is_member_object(value) else None
    except InputInvalid:
        return None


def too_long_error(length: object, asked: Asked) -> InputInvalid:
    return invalid(f"the row has {length} bytes, but a row may have {asked.terms.get('row_bytes')}")
