"""What a body held, in a few words: the sizes of its lists and the type within, beside what was expected."""

from __future__ import annotations

from workers.errors import InputInvalid
from workers.protocols.body import TEXT, Body, Dialect
from workers.protocols.errors import excerpt, json_type
from workers.protocols.json_text import DEPTH_LIMIT, parse_json

MOST_MEMBERS = 16


def received(body: Body) -> dict[str, str] | str:
    """Each member of a body of JSON as `[2, 3] of Number`; a sentence for anything else.

    Lists are told by their first elements: where they differ among each other, the refusal says so.
    """
    if body.dialect == Dialect.MLFLOW_CSV:
        return f"{len(body.data)} bytes of CSV"
    text = body.data if body.head == TEXT else body.data[: body.head]
    try:
        document = parse_json(text)
    except InputInvalid:
        return f"{len(body.data)} bytes that are no JSON"
    if not isinstance(document, dict):
        return _told(document)
    return {excerpt(name)[1:-1]: _told(value) for name, value in list(document.items())[:MOST_MEMBERS]}


def _told(value: object) -> str:
    sizes: list[str] = []
    while isinstance(value, list) and len(sizes) < DEPTH_LIMIT:
        sizes.append(str(len(value)))
        if not value:
            return f"[{', '.join(sizes)}]"
        value = value[0]
    return f"[{', '.join(sizes)}] of {_kind(value)}" if sizes else _kind(value)


def _kind(value: object) -> str:
    if isinstance(value, bool):
        return "Boolean"
    if isinstance(value, dict):
        names = ", ".join(excerpt(name)[1:-1] for name in list(value)[:MOST_MEMBERS])
        return f"Object with {names}" if names else "Object"
    return json_type(value)
