"""Strict JSON for text that comes out of an upload: what two parsers could read differently is refused."""

from __future__ import annotations

import json
import math
import re
from typing import NoReturn

from workers.preparation.findings import refused

SIZE_LIMIT_BYTES = 16 * 1024**2
DEPTH_LIMIT = 64
# EfficientNetV2-L's configuration has about 80,000 values, a vocabulary in a configuration easily 100,000.
NODES_LIMIT = 500_000
# Beyond this a number is no longer exact for parsers that keep all numbers as doubles (RFC 8259, section 6).
LARGEST_INTEGER = 2**53

# Possessive, so that a hostile text takes linear time.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_BRACKET = re.compile(rb"[\[\]{}]")
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def parse(data: bytes, place: str) -> object:
    """The value of a JSON text in UTF-8; `place` names it in messages.

    Raises UploadRefused: json_size, json_encoding, json_depth, json_nodes, json_duplicate_key, json_number,
    json_syntax. Depth and number of values are counted on the bytes, before a parser recurses or allocates.
    """
    if len(data) > SIZE_LIMIT_BYTES:
        raise refused("json_size", f"{place} is larger than {SIZE_LIMIT_BYTES} bytes")
    text = _decode(data, place)
    _count(data, place)
    try:
        value: object = json.loads(
            text, object_pairs_hook=_unique, parse_constant=_constant, parse_int=_integer, parse_float=_float
        )
    except _Refused as error:
        raise refused(error.code, str(error), place) from None
    except (ValueError, RecursionError):
        raise refused("json_syntax", f"{place} is not JSON") from None
    if _SURROGATE.search(data):
        _refuse_lone_surrogates(value, place)
    return value


class _Refused(Exception):
    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


def _decode(data: bytes, place: str) -> str:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise refused("json_encoding", f"{place} is not UTF-8") from None
    if text.startswith("\ufeff"):
        raise refused("json_encoding", f"{place} begins with a byte order mark")
    return text


def _count(data: bytes, place: str) -> None:
    bare = _STRING.sub(b"0", data)
    depth = deepest = 0
    for bracket in _BRACKET.finditer(bare):
        depth += 1 if bracket.group() in b"[{" else -1
        deepest = max(deepest, depth)
        if deepest > DEPTH_LIMIT:
            raise refused("json_depth", f"{place} is nested deeper than {DEPTH_LIMIT}")
    if bare.count(b",") + bare.count(b"[") + bare.count(b"{") > NODES_LIMIT:
        raise refused("json_nodes", f"{place} has more than {NODES_LIMIT} values")


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _Refused("a key stands twice in one object", "json_duplicate_key")
    return found


def _constant(name: str) -> NoReturn:
    raise _Refused(f"{name} is not a JSON number", "json_number")


def _integer(text: str) -> int:
    # The length first: Python takes quadratic time for thousands of digits.
    if len(text) > 17 or abs(int(text)) > LARGEST_INTEGER:
        raise _Refused("an integer is beyond 2^53", "json_number")
    return int(text)


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise _Refused("a number is too large", "json_number")
    return value


def _refuse_lone_surrogates(value: object, place: str) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise refused("json_encoding", f"{place} has half of a surrogate pair") from None
