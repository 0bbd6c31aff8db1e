"""How a text file becomes a string: UTF-8, and what an input specification of a text does to it."""

from __future__ import annotations

import json

# Of one text in an archive; a request's may be as long as its body.
TEXT_BYTES = 1024**2


class TextUnfit(Exception):
    """A file that is no text; the message says why."""


def text_of(content: bytes, specification: str | None) -> bytes:
    """The string of a file, with or without a byte order mark; raises TextUnfit."""
    try:
        return specified(content.decode("utf-8-sig"), specification).encode()
    except UnicodeDecodeError:
        raise TextUnfit("it is no text in UTF-8") from None


def specified(text: str, specification: str | None) -> str:
    """A text in lower case, or cut, where the specification (JSON, that of a text) says so."""
    said = json.loads(specification or "{}")
    if said.get("lowercase"):
        text = text.lower()
    return text[: said.get("max_characters")]
