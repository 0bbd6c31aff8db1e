"""How the dialects word a refusal: short, with the place and what was expected, never with much of what was sent."""

from __future__ import annotations

import json

import orjson

from workers.errors import InputInvalid

MESSAGE_CHARACTERS = 300
VALUE_CHARACTERS = 32
NAME_CHARACTERS = 64


def invalid(message: str) -> InputInvalid:
    """The refusal to raise; its message is cut at 300 characters, so that no answer outgrows its request."""
    if len(message) <= MESSAGE_CHARACTERS:
        return InputInvalid(message)
    return InputInvalid(message[: MESSAGE_CHARACTERS - 1] + "…")


def error_text(message: str, _status: int = 400) -> bytes:
    """The body of a refusal in TensorFlow Serving and the Open Inference Protocol alike: `{"error": message}`."""
    return orjson.dumps({"error": message})


def excerpt(value: object) -> str:
    """A JSON value as it may be shown: printable ASCII of at most 32 characters; a list or an object shows nothing."""
    if isinstance(value, list):
        return "[…]"
    if isinstance(value, dict):
        return "{…}"
    # Cut before and after it is written: escaping makes the text longer, and cutting first keeps it cheap.
    text = json.dumps(value[:VALUE_CHARACTERS] if isinstance(value, str) else value)
    return text if len(text) <= VALUE_CHARACTERS else text[: VALUE_CHARACTERS - 1] + "…"


def shown_name(name: str) -> str:
    """A model's tensor name as it may be shown: printable ASCII of at most 64 characters."""
    text = json.dumps(name)[1:-1]
    return text if len(text) <= NAME_CHARACTERS else text[: NAME_CHARACTERS - 1] + "…"


def json_type(value: object) -> str:
    """The type's name in TensorFlow Serving's messages."""
    if value is None:
        return "Null"
    if isinstance(value, bool):
        return str(value)
    names: dict[type, str] = {dict: "Object", list: "Array", str: "String"}
    return names.get(type(value), "Number")
