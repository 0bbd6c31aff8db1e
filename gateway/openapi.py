"""The interface's OpenAPI document: FastAPI's own, completed.

FastAPI does not know the prediction paths (they are answered in front of its router), the scopes that routes ask for,
nor the shapes in which errors are rendered.
"""

from __future__ import annotations

import copy
import functools
import threading
from collections.abc import Iterator
from typing import Any

import orjson
from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import iter_route_contexts

from auth.scopes import MEANINGS
from gateway.dependencies import PAGES, TOKEN_PATH, Reader, Require, SignedInPerson
from gateway.dry_run_description import DRY_RUN_SCHEMAS, with_dry_runs
from gateway.errors import has_bare_errors, speaks_mlflow, speaks_openai
from gateway.example_description import EXAMPLE_SCHEMAS, example_paths
from gateway.explain_description import EXPLAIN_SCHEMAS, explain_paths
from gateway.infer_description import INFER_SCHEMAS, INFER_TAG, infer_paths
from gateway.prediction_description import NAME_PATTERN, SCHEMAS, TAG, Json, header, prediction_paths, reference
from gateway.scoring_description import SCORING_SCHEMAS, SCORING_TAG, scoring_paths

# How paths end, in the order in which they are shown; among equals, the order of the routes.
ORDER = (":predict", ":submit", ":batch", ":classify", ":regress", ":explain", "/infer", "/invocations", "")
METHODS = ("get", "put", "post", "delete", "patch", "head", "options")
# Of models and labels, and of whatever else has a name in a path.
PATTERNS = {"model": NAME_PATTERN, "label": NAME_PATTERN, "version": "^[0-9]{1,9}$"}
# What a route says that only keeps NUL from the database.
ANYTHING = r"^[^\x00]*$"
IDENTIFIER = "^[A-Za-z0-9_.-]{1,128}$"
FASTAPI_ERROR = "HTTPValidationError"

TOKEN_SCHEME: Json = {
    "type": "oauth2",
    "description": (
        "A client's id and secret give a token for some minutes (RFC 6749, section 4.4). Without a choice of scopes it "
        "has all that the client has."
    ),
    "flows": {
        "clientCredentials": {
            "tokenUrl": TOKEN_PATH,
            "scopes": {str(scope): meaning for scope, meaning in MEANINGS.items()},
        }
    },
}
SESSION_SCHEME: Json = {
    "type": "apiKey",
    "in": "cookie",
    "description": (
        "A person's session, which `POST /admin/session` begins. Changing requests need the session's `csrf_token` in "
        "the header `X-CSRF-Token`."
    ),
}
ERROR_SCHEMAS: dict[str, Json] = {
    "Error": {
        "type": "object",
        "description": "An error in the shape of TensorFlow Serving and the Open Inference Protocol.",
        "required": ["error"],
        "properties": {"error": {"type": "string"}},
    },
    "Problem": {
        "type": "object",
        "description": "An error as RFC 9457 describes it; `code` is stable.",
        "required": ["type", "title", "status", "code", "detail"],
        "properties": {
            "type": {"type": "string"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "code": {"type": "string"},
            "detail": {"type": "string"},
        },
    },
    "OpenAIError": {
        "type": "object",
        "description": "An error as OpenAI writes it.",
        "required": ["error"],
        "properties": {
            "error": {
                "type": "object",
                "required": ["message", "type", "param", "code"],
                "properties": {
                    "message": {"type": "string"},
                    "type": {"type": "string"},
                    "param": {"type": ["string", "null"]},
                    "code": {"type": ["string", "null"]},
                },
            }
        },
    },
    "OAuthError": {
        "type": "object",
        "description": "An error as RFC 6749, section 5.2, describes it.",
        "required": ["error"],
        "properties": {"error": {"type": "string"}, "error_description": {"type": "string"}},
    },
}


class Description:
    """The document of an application, made when it is first asked for: a second of work, and open to strangers."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self._lock = threading.Lock()

    def __call__(self) -> Json:
        with self._lock:
            return self._document

    @property
    def text(self) -> bytes:
        """As JSON."""
        with self._lock:
            return self._text

    @functools.cached_property
    def _document(self) -> Json:
        return describe(self._app)

    @functools.cached_property
    def _text(self) -> bytes:
        return orjson.dumps(self._document)


def describe(app: FastAPI) -> Json:
    """The complete OpenAPI 3.1 document of `app`, a new one at each call; it needs no request and no token."""
    document = copy.deepcopy(FastAPI.openapi(app))
    predictions = {**prediction_paths(), **example_paths(), **explain_paths(), **infer_paths(), **scoring_paths()}
    paths = ordered({**document["paths"], **with_dry_runs(predictions)})
    scopes, sessions = scopes_of(app), routes_of_sessions(app)
    for path, method, operation in operations(paths):
        if "security" not in operation or (path, method) in scopes:
            operation["security"] = [{"token": scopes[path, method]}] if (path, method) in scopes else []
        if (path, method) in sessions or (operation["security"] and path.startswith(PAGES)):
            operation["security"].append({"session": []})
        add_refusals(path, operation)
        for status, response in operation["responses"].items():
            if int(status) >= 400:
                add_error_shape(path, response)
    document["paths"] = paths
    components = document.setdefault("components", {})
    components.setdefault("schemas", {}).update(ERROR_SCHEMAS | SCHEMAS | EXAMPLE_SCHEMAS | INFER_SCHEMAS)
    components["schemas"].update(SCORING_SCHEMAS | EXPLAIN_SCHEMAS | DRY_RUN_SCHEMAS)
    for unused in (FASTAPI_ERROR, "ValidationError"):
        components["schemas"].pop(unused, None)
    components["securitySchemes"] = {
        "token": TOKEN_SCHEME,
        "session": SESSION_SCHEME | {"name": app.state.parts.people.cookies.session_name},
    }
    document["tags"] = [TAG, INFER_TAG, SCORING_TAG, *document.get("tags", [])]
    return document


def ordered(paths: dict[str, Json]) -> dict[str, Json]:
    """The same as a reader of `/docs` wants them below each heading: what asks a model, then what tells of it."""

    def rank(path: str) -> int:
        return next(number for number, end in enumerate(ORDER) if path.endswith(end))

    return {path: paths[path] for path in sorted(paths, key=rank)}


def operations(paths: dict[str, Json]) -> Iterator[tuple[str, str, Json]]:
    """Every operation with its path and method."""
    for path, item in paths.items():
        for method in METHODS:
            if method in item:
                yield path, method, item[method]


def scopes_of(app: FastAPI) -> dict[tuple[str, str], list[str]]:
    """The scopes that FastAPI's routes ask for, by path and method; routes that ask for none are missing."""
    found: dict[tuple[str, str], list[str]] = {}
    for route in iter_route_contexts(app.routes):
        dependant: Dependant | None = getattr(route, "dependant", None)
        asked = [] if dependant is None else sorted(set(required_scopes(dependant)))
        for method in route.methods or () if asked else ():
            found[str(route.path_format), method.lower()] = asked
    return found


def routes_of_sessions(app: FastAPI) -> set[tuple[str, str]]:
    """Path and method of the routes that only a person's session opens."""
    return {
        (str(route.path_format), method.lower())
        for route in iter_route_contexts(app.routes)
        for method in route.methods or ()
        if asks_for_session(getattr(route, "dependant", None))
    }


def asks_for_session(dependant: Dependant | None) -> bool:
    if dependant is None:
        return False
    return isinstance(dependant.call, SignedInPerson) or any(map(asks_for_session, dependant.dependencies))


def required_scopes(dependant: Dependant) -> Iterator[str]:
    if isinstance(dependant.call, Require | Reader):
        yield str(dependant.call.scope)
    for inner in dependant.dependencies:
        yield from required_scopes(inner)


def add_refusals(path: str, operation: Json) -> None:
    """What every operation of its kind may answer, where the route does not say it in better words."""
    responses: dict[str, Any] = operation["responses"]
    if operation["security"]:
        challenge = {"headers": {"WWW-Authenticate": header("How to authenticate (RFC 6750).")}}
        responses.setdefault("401", {"description": "There is no valid access token.", **challenge})
        needed = ", ".join(operation["security"][0].get("token", ()))
        reason = f"The token, or the role, does not have the scope: {needed}." if needed else "The request was forged."
        responses.setdefault("403", {"description": reason, **challenge})
        responses.setdefault("503", {"description": "Rights cannot be read, or the database is away."})
    responses.setdefault("400", {"description": "The request cannot be read: its address, a header, or its JSON."})
    name_parameters(operation)
    if "{" in path:
        responses.setdefault("404", {"description": "What the path names does not exist, or not for this caller."})
    if "422" in responses and FASTAPI_ERROR in str(responses["422"].get("content")):
        responses["422"] = {"description": "A field is missing, unknown, or out of its bounds: the text says which."}
    operation["responses"] = dict(sorted(responses.items()))


def name_parameters(operation: Json) -> None:
    """Say how the names in a path are written, so that nobody has to find out by trying."""
    for parameter in operation.get("parameters", []):
        schema = parameter["schema"]
        said = "enum" in schema or schema.get("pattern", ANYTHING) != ANYTHING
        if parameter["in"] == "path" and schema.get("type") == "string" and not said:
            schema["pattern"] = PATTERNS.get(parameter["name"], IDENTIFIER)


def add_error_shape(path: str, response: Json) -> None:
    """The body of an error, as `gateway.errors.render` writes it for this path."""
    if speaks_openai(path):
        shape, kind = "OpenAIError", "application/json"
    elif speaks_mlflow(path):
        shape, kind = "ScoringError", "application/json"
    elif has_bare_errors(path):
        shape, kind = "Error", "application/json"
    elif path.startswith("/oauth/"):
        shape, kind = "OAuthError", "application/json"
    else:
        shape, kind = "Problem", "application/problem+json"
    response.setdefault("content", {kind: {"schema": reference(shape)}})
