"""The OpenAPI description of bodies that are files, for all models and for one."""

from __future__ import annotations

import json
from typing import Any

from model_store.signature import STRING, Signature

Json = dict[str, Any]

FILE: Json = {
    "schema": {
        "type": "string",
        "format": "binary",
        "description": (
            "A file as it is, which becomes one instance of a model with one input: by its input specification, or, "
            "where it takes strings, a text as it is."
        ),
    }
}
FORM: Json = {
    "schema": {
        "type": "object",
        "description": "A part, or several, named after each input: a file, or a value in JSON.",
        "additionalProperties": {"type": "string", "format": "binary"},
        "minProperties": 1,
    }
}
KINDS = {
    "image": ("image/png", "image/jpeg", "image/webp"),
    "audio": ("audio/wav", "audio/flac"),
    "text": ("text/plain",),
}
FORM_TYPE = "multipart/form-data"
FILES: dict[str, Json] = {
    **{media_type: FILE for types in KINDS.values() for media_type in types},
    FORM_TYPE: FORM,
}


def files_of(signature: Signature, specification: str | None) -> dict[str, Json]:
    """The bodies of files that one version takes, by media type; `specification` is its input specification, as JSON.

    Values of several inputs can come in a form whatever they are.
    """
    if len(signature.inputs) > 1:
        return {FORM_TYPE: FORM}
    [only] = signature.inputs
    kind = "text" if only.dtype == STRING else json.loads(specification or "{}").get("kind")
    if kind not in KINDS or (kind == "text") != (only.dtype == STRING):
        return {}
    return {**dict.fromkeys(KINDS[kind], FILE), FORM_TYPE: FORM}
