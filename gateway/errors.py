"""Errors on their way out: each path prefix has one shape (see docs/http-api.md), rendered here and nowhere else."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from gateway.allowed_methods import methods_of
from gateway.prediction_addresses import parse_path
from model_store.errors import ModelNotFound, SluiceError
from workers.protocols.mlflow_errors import error_code

CODES = {400: "request_invalid", 404: "not_found", 405: "method_not_allowed", 413: "body_too_large", 415: "unsupported"}
MOST_ERRORS_SHOWN = 10
MOST_CHARACTERS = 1000
OPENAI = ("/v1/files", "/v1/batches")
MLFLOW = ("/models/", "/endpoints/")
OPEN_INFERENCE_MODELS = "/v2/models/"

Rendered = tuple[int, dict[str, str], bytes]


class RequestTooLarge(SluiceError):
    status = 413
    code = "body_too_large"


class ContentEncoded(SluiceError):
    """Nothing is unpacked here: a small body could become a large one (RFC 9110, section 15.5.16)."""

    status = 415
    code = "content_encoding_unsupported"
    headers = {"accept-encoding": "identity"}  # noqa: RUF012 - as the mapping that it replaces, nobody changes it

    def __init__(self, message: str = "send the body without Content-Encoding") -> None:
        super().__init__(message)


class ContentCodingUnknown(ContentEncoded):
    """A prediction's body may be packed, but not so."""

    headers = {"accept-encoding": "gzip, deflate"}  # noqa: RUF012 - as above

    def __init__(self) -> None:
        super().__init__("send the body with Content-Encoding gzip or deflate, or without")


class RightsUnavailable(SluiceError):
    """Rights could not be read for too long: refuse rather than serve on stale ones."""

    status = 503
    code = "rights_unavailable"


def render(path: str, error: SluiceError) -> Rendered:
    """Status, headers and body of an error in the shape that callers of this path can read."""
    headers = {"content-type": "application/json", **error.headers}
    if error.retry_after_seconds is not None:
        headers["retry-after"] = str(error.retry_after_seconds)
    challenge = getattr(error, "challenge", None)
    if challenge:
        headers["www-authenticate"] = challenge
    # It may name what was asked for, which has no bound of its own; nobody gets more back than a line or two.
    message = error.message[:MOST_CHARACTERS]
    document: dict[str, object]
    if path.startswith("/oauth/"):
        document = {"error": error.code, "error_description": message}
        headers["cache-control"] = "no-store"
    elif speaks_openai(path):
        told = {"message": message, "type": _type_of(error.status), "param": None, "code": error.code}
        document = {"error": told}
    elif speaks_mlflow(path):
        document = {"error_code": error_code(error.status), "message": message}
        document |= error.members
    elif has_bare_errors(path):
        document = {"error": _unknown_to_triton(path) if _names_unknown_model(path, error) else message}
        document |= error.members
        # These shapes have a text only; a program goes by the code.
        headers["sluice-error-code"] = error.code
    else:
        headers["content-type"] = "application/problem+json"
        document = {"type": "about:blank", "title": title(error.code), "status": error.status, "code": error.code}
        document["detail"] = message
        document |= error.members
    return error.status, headers, json.dumps(document).encode()


def has_bare_errors(path: str) -> bool:
    """Whether callers of this path expect `{"error": text}`: their clients fail to decode anything else."""
    if path.startswith(("/v1/jobs", "/v1/results/", "/v1/events", "/v1/webhooks")) or speaks_openai(path):
        return False
    return path.startswith(("/v1/", "/v2/")) or path in ("/v1", "/v2")


def speaks_openai(path: str) -> bool:
    """Whether callers of this path expect errors as OpenAI writes them (openapi.yaml, ErrorResponse)."""
    return path.startswith(OPENAI)


def speaks_mlflow(path: str) -> bool:
    """Whether callers of this path expect errors as MLflow's scoring server writes them."""
    return path.startswith(MLFLOW)


def _type_of(status: int) -> str:
    known = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
    return "server_error" if status >= 500 else known.get(status, "invalid_request_error")


def _names_unknown_model(path: str, error: SluiceError) -> bool:
    return isinstance(error, ModelNotFound) and path.startswith(OPEN_INFERENCE_MODELS)


def _unknown_to_triton(path: str) -> str:
    # Triton's words, which its own clients look for; the name is the path's third part, as the caller wrote it.
    name = path.removeprefix(OPEN_INFERENCE_MODELS).partition("/")[0]
    return f"Request for unknown model: '{name[:128]}' is not found"


def unforeseen() -> SluiceError:
    """A failure that nobody foresaw: what it was is for the log, a stranger learns only that it happened."""
    return SluiceError("internal error; the request id is in the X-Request-Id header")


def title(code: str) -> str:
    return code.replace("_", " ").capitalize()


def install(app: FastAPI) -> None:
    """Register the handlers of every kind of error but the unforeseen, which RequestContext answers."""

    def sluice_error(request: Request, error: SluiceError) -> Response:
        _remember(request, error)
        return response(render(request.scope["path"], error))

    def validation_error(request: Request, error: RequestValidationError) -> Response:
        stated = _invalid(error.errors())
        _remember(request, stated)
        return response(render(request.scope["path"], stated))

    def http_error(request: Request, error: HTTPException) -> Response:
        stated = _unmatched(request, error)
        _remember(request, stated)
        status, headers, body = render(request.scope["path"], stated)
        if status == 405:
            headers["Allow"] = methods_of(app, request.scope["path"])
        else:
            headers |= error.headers or {}
        return response((status, headers, body))

    app.add_exception_handler(SluiceError, sluice_error)  # type: ignore[arg-type] # handlers are typed for Exception
    app.add_exception_handler(RequestValidationError, validation_error)  # type: ignore[arg-type] # as above
    app.add_exception_handler(HTTPException, http_error)  # type: ignore[arg-type] # as above


def _unmatched(request: Request, error: HTTPException) -> SluiceError:
    """What the router says of an address or a method that no route has."""
    path = request.scope["path"]
    status, text = error.status_code, str(error.detail)
    if status == 404 and parse_path(path) is not None:
        # Predictions are answered in front of the router, which knows no method of theirs.
        status, text = 405, "Method Not Allowed"
    elif status == 404 and path.startswith("/v1/") and has_bare_errors(path):
        # TensorFlow Serving's words for whatever is no form of address there.
        status, text = 400, f"Malformed request: {request.method} {path}"
    stated = SluiceError(text)
    stated.status, stated.code = status, CODES.get(status, "request_invalid")
    return stated


def _remember(request: Request, error: SluiceError) -> None:
    # For the audit log, which says why something was refused.
    request.scope.setdefault("state", {})["refusal"] = error.code


def response(rendered: Rendered) -> Response:
    status, headers, body = rendered
    return Response(body, status, headers)


def _invalid(errors: Sequence[Mapping[str, object]]) -> SluiceError:
    # FastAPI's own answer repeats the input: 34 times its size for a list of wrong elements, and a 500 where the
    # input holds NaN or a lone surrogate. Places and reasons are enough.
    lines = [f"{_place(error)}: {_fault(error)}" for error in errors[:MOST_ERRORS_SHOWN]]
    if len(errors) > MOST_ERRORS_SHOWN:
        lines.append(f"and {len(errors) - MOST_ERRORS_SHOWN} more")
    stated = SluiceError("; ".join(lines)[:2000].encode("utf-8", "replace").decode())
    stated.status, stated.code = 422, "request_invalid"
    return stated


def _fault(error: Mapping[str, object]) -> str:
    if error.get("type") == "model_attributes_type":
        # What curl -d sends unless it is told otherwise is a form, which arrives here as one long string.
        return "expected a JSON object; send it with Content-Type: application/json"
    # pydantic's prefix for what a check of ours says.
    return str(error.get("msg")).removeprefix("Value error, ")


def _place(error: Mapping[str, object]) -> str:
    location = error.get("loc")
    return ".".join(str(part)[:64] for part in location) if isinstance(location, tuple) else "request"
