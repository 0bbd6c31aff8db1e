"""The dialects by number: how each reads a request and words a refusal; a request itself knows how it is answered."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from workers.protocols import open_inference, tensorflow_serving
from workers.protocols.body import Body, Dialect
from workers.protocols.contract import Contract, Request
from workers.protocols.errors import error_text


@dataclass(frozen=True, slots=True)
class Grammar:
    """One dialect. `parse` raises InputInvalid, whose message names the place and what was expected there."""

    parse: Callable[[Body, Contract], Request]
    format_error: Callable[[str], bytes]


# Numbers of the wire are looked up as they are: each equals its `Dialect`.
GRAMMARS: Mapping[int, Grammar] = {
    Dialect.TENSORFLOW_SERVING: Grammar(tensorflow_serving.parse, error_text),
    Dialect.OPEN_INFERENCE: Grammar(open_inference.parse, error_text),
}
