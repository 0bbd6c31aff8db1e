"""How MLflow's scoring server words a refusal: `{"error_code": …, "message": …}`, here without a stack trace.

Source: mlflow/exceptions.py (which status has which code) and databricks.proto. Statuses that it has no code for get
that of their kind.
"""

from __future__ import annotations

from collections.abc import Mapping

import orjson

BAD_REQUEST, INTERNAL_ERROR = "BAD_REQUEST", "INTERNAL_ERROR"
CODES: Mapping[int, str] = {
    400: BAD_REQUEST,
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "RESOURCE_DOES_NOT_EXIST",
    409: "RESOURCE_CONFLICT",
    422: "INVALID_PARAMETER_VALUE",
    429: "REQUEST_LIMIT_EXCEEDED",
    501: "NOT_IMPLEMENTED",
    503: "TEMPORARILY_UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
    507: "TEMPORARILY_UNAVAILABLE",
}
SERVER_ERRORS = 500


def error_code(status: int) -> str:
    """The code of a status; of one without its own, that of all errors on the same side."""
    return CODES.get(status, INTERNAL_ERROR if status >= SERVER_ERRORS else BAD_REQUEST)


def error_body(message: str, status: int) -> bytes:
    """The body of a refusal."""
    return orjson.dumps({"error_code": error_code(status), "message": message})
