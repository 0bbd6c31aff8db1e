"""Bodies of the repository extension: empty, or JSON that clients send without saying that it is JSON.

Source: docs/protocol/extension_model_repository.md of Triton's server.
"""

from __future__ import annotations

from typing import Any

from fastapi import Request

from workers.protocols.errors import invalid
from workers.protocols.json_text import parse_json

DEPENDENTS = "unload_dependents"
# Of an index, which is read on the event loop: megabytes of JSON would hold it up for seconds.
MOST_INDEX_BYTES = 16 * 1024

INDEX_BODY: dict[str, Any] = {
    "requestBody": {
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "properties": {"ready": {"type": "boolean", "description": "Only versions that serve."}},
                },
                "example": {"ready": True},
            }
        }
    }
}
MOVE_BODY: dict[str, Any] = {
    "requestBody": {
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "parameters": {
                            "type": "object",
                            "properties": {DEPENDENTS: {"type": "boolean", "description": "Ignored."}},
                        }
                    },
                },
                "example": {"parameters": {}},
            }
        }
    }
}


async def repository_body(request: Request) -> bytes:
    """The body as it came, for routes that ask for it as a dependency."""
    return await request.body()


def only_ready(body: bytes) -> bool:
    """Whether an index is to leave out what does not serve; raises InputInvalid."""
    if len(body) > MOST_INDEX_BYTES:
        raise invalid(f"the body of an index has {len(body)} bytes; at most {MOST_INDEX_BYTES} are read")
    ready = _object(body).get("ready", False)
    if not isinstance(ready, bool):
        raise invalid("Invalid value for 'ready': expected a boolean")
    return ready


def require_no_files(body: bytes) -> None:
    """Raises InputInvalid for a body that is none, or with a configuration or files: they would not be taken."""
    parameters = _object(body).get("parameters", {})
    if not isinstance(parameters, dict):
        raise invalid("parameters must be an object")
    if not isinstance(parameters.get(DEPENDENTS, False), bool):
        raise invalid(f"Invalid value for '{DEPENDENTS}': expected a boolean")
    for name in parameters:
        if name == "config" or name.startswith("file:"):
            raise invalid("a load takes neither 'config' nor files: upload a version with PUT /admin/models")


def _object(body: bytes) -> dict[str, object]:
    document = parse_json(body) if body.strip() else {}
    if not isinstance(document, dict):
        raise invalid("the body must be an object, or empty")
    return document
