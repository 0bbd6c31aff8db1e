"""JSON text to Python values, exactly: strict UTF-8, bounded depth, no repeated keys, bare NaN and infinities allowed.

Stricter than RFC 8259 demands and than TensorFlow Serving is: its parser stops after the first value and ignores what
follows, and takes the first of two equal keys where others take the last. Both are refused here.
"""

from __future__ import annotations

import json
import re
from collections import Counter

import numpy as np

from workers.protocols.errors import excerpt, invalid

DEPTH_LIMIT = 64

# Possessive, so that a hostile string costs one pass.
STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
STEP = np.zeros(256, np.int8)
STEP[list(b"[{")] = 1
STEP[list(b"]}")] = -1


def parse_json(body: bytes) -> object:
    """The one JSON value that `body` is; raises InputInvalid with the offset in bytes.

    Numbers are int or float (`1e400` is infinity, as IEEE 754 rounds it); bare `NaN`, `Infinity` and `-Infinity` are
    floats.
    """
    if not body.strip():
        raise invalid("JSON Parse error: The document is empty")
    if nesting(body) > DEPTH_LIMIT:
        raise invalid(f"JSON Parse error: nested deeper than {DEPTH_LIMIT} levels")
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise invalid(f"JSON Parse error: Invalid UTF-8 at offset: {error.start}") from None
    try:
        return json.loads(text, object_pairs_hook=members)
    except json.JSONDecodeError as error:
        offset = len(text[: error.pos].encode())
        raise invalid(f"JSON Parse error: {error.msg}. at offset: {offset}") from None
    except ValueError:
        # CPython refuses to convert an integer of more than 4,300 digits, which no tensor could hold anyway.
        raise invalid("JSON Parse error: Number too big. An integer has too many digits") from None


def nesting(body: bytes) -> int:
    """How deep lists and objects are nested, or more, without recursion; never less, up to the first syntax error."""
    opened = body.count(b"[") + body.count(b"{")
    if opened <= DEPTH_LIMIT:
        return opened
    outside = STRING.sub(b"", body) if b'"' in body else body
    brackets = np.frombuffer(outside.translate(None, NOT_BRACKETS), np.uint8)
    return int(STEP[brackets].cumsum(dtype=np.int32).max(initial=0))


def members(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """One object; a key given twice is refused, since readers differ on which one counts."""
    found = dict(pairs)
    if len(found) < len(pairs):
        repeated, _ = (Counter(name for name, _ in pairs) - Counter(found.keys())).popitem()
        raise invalid(f"JSON Parse error: the key {excerpt(repeated)} is given twice in one object")
    return found
