"""The prediction endpoint: a raw ASGI application in front of FastAPI's router.

FastAPI's own machinery costs about 80 of the 107 µs of a request that does nothing, so what is asked most often goes
around it: same admission, same errors, same metrics, described in the same OpenAPI document (gateway/openapi.py).
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from dataclasses import dataclass

from starlette.types import ASGIApp, Receive, Scope, Send

from auth.scopes import Scope as Right
from gateway.admission import Caller
from gateway.errors import RequestTooLarge, render, unforeseen
from gateway.job_submission import Submitted
from gateway.job_view import accepted_document, job_document, wait_for_end
from gateway.middleware import outcome_of, request_id_of
from gateway.parts import Parts
from gateway.preferences import Preferences, read_preferences
from gateway.submission import CallerGone
from model_store.catalog import CatalogVersion
from model_store.errors import SluiceError
from monitoring import logs
from monitoring.metrics import request_metrics
from workers.lanes import Lane, Priority
from workers.protocols.tensorflow_serving import PredictRequest, parse_predict

log = logging.getLogger(__name__)

PATH = re.compile(
    r"/v1/models/(?P<model>[A-Za-z0-9][A-Za-z0-9._-]{0,127})"
    r"(?:/versions/(?P<version>[0-9]{1,9})|/labels/(?P<label>[A-Za-z0-9][A-Za-z0-9._-]{0,127}))?:(?P<verb>predict|submit)"
)
PREDICT_ROUTE = "/v1/models/{model}:predict"
SUBMIT_ROUTE = "/v1/models/{model}:submit"
DIALECT = "tensorflow_serving"
PATHS_REMEMBERED = 4096
# Parsing a larger body on the event loop would hold up the other requests for over half a millisecond.
INLINE_PARSE_BYTES = 64 * 1024

JSON = (b"content-type", b"application/json")
NO_SNIFF = (b"x-content-type-options", b"nosniff")


@dataclass(frozen=True, slots=True)
class Address:
    """What a prediction's path names."""

    model: str
    version: int | None
    label: str | None
    submits: bool


Answered = tuple[int, list[tuple[bytes, bytes]], bytes]


class Disconnected(Exception):
    """The caller went away before its body was complete."""


class PredictionEndpoint:
    """Answers prediction requests itself and hands everything else on."""

    def __init__(self, app: ASGIApp, parts: Parts) -> None:
        self._app = app
        self._parts = parts
        self._paths: dict[str, Address] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST" or (address := self._address(scope["path"])) is None:
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        request_id = request_id_of(scope["headers"])
        resolved: list[CatalogVersion] = []
        try:
            status, headers, body = await self._answer(address, scope, receive, resolved)
        except SluiceError as error:
            status, headers, body = _rendered(scope["path"], error)
        except (Disconnected, CallerGone):
            return
        except Exception:  # the process's edge: one request's unforeseen failure is its own
            with logs.bind(request_id=request_id.decode()):
                log.exception("a prediction failed unexpectedly")
            status, headers, body = _rendered(scope["path"], unforeseen())
        # Only a model that was found is named: text of a request must not become a label.
        model, version = (address.model, str(resolved[0].number)) if resolved else ("", "")
        if resolved:
            headers.append((b"sluice-model-version", version.encode()))
        headers += [(b"content-length", str(len(body)).encode()), (b"x-request-id", request_id), NO_SNIFF]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})
        route = SUBMIT_ROUTE if address.submits else PREDICT_ROUTE
        request_metrics(route, model, version).observe(outcome_of(status), time.perf_counter() - started)

    def _address(self, path: str) -> Address | None:
        try:
            return self._paths[path]
        except KeyError:
            found = parse_path(path)
            # Others are not kept: a path of no form at all has no length that it may not exceed.
            if found is not None:
                if len(self._paths) >= PATHS_REMEMBERED:
                    self._paths.clear()
                self._paths[path] = found
            return found

    async def _answer(
        self, address: Address, scope: Scope, receive: Receive, resolved: list[CatalogVersion]
    ) -> Answered:
        """The answer to a request; the version that it means is noted in `resolved` as soon as it is known."""
        parts, headers = self._parts, scope["headers"]
        caller = parts.admission.caller(headers, scope["query_string"])
        parts.admission.require(caller, Right.PREDICT)
        preferences = read_preferences(headers)
        asynchronous = address.submits or preferences.asynchronous
        action = "submit" if asynchronous else "predict"
        target = parts.admission.target(caller, action, address.model, address.version, address.label)
        resolved.append(target)
        body = await _read_body(headers, receive, parts.settings.body_limit_bytes)
        if asynchronous:
            return await self._submit(caller, address, target, body, preferences)
        lane = Lane(address.model, target.number, Priority.INTERACTIVE, caller.client_id)
        answer = await parts.submission.predict(lane, body, parts.settings.synchronous_seconds, receive)
        answered = [JSON]
        if answer.status == 503:
            answered.append((b"retry-after", b"1"))
        return answer.status, answered, answer.body

    async def _submit(
        self, caller: Caller, address: Address, target: CatalogVersion, body: bytes, preferences: Preferences
    ) -> Answered:
        parts = self._parts
        request = await self._checked(target, body)
        lane = Lane(address.model, target.number, Priority.BULK, caller.client_id)
        job_id = await parts.jobs.submit(Submitted(lane, DIALECT, request.instances, body, target.max_batch))
        headers = [JSON]
        if preferences.applied:
            headers.append((b"preference-applied", preferences.applied))
        headers.append((b"location", f"/v1/jobs/{job_id}".encode()))
        if not preferences.wait_given:
            return 202, headers, accepted_document(job_id, lane, request.instances)
        job = await wait_for_end(parts, job_id, caller.client_id, preferences.wait_seconds)
        if job.ended and job.result is not None:
            return 200, headers, job.result
        return 202, headers, job_document(job)

    async def _checked(self, target: CatalogVersion, body: bytes) -> PredictRequest:
        """Parse and check before the promise: a job that cannot run is refused now, not found failed later."""
        signature, most = target.signature, self._parts.settings.max_instances
        if signature is None:
            raise SluiceError("the version has no signature")
        if len(body) <= INLINE_PARSE_BYTES:
            return parse_predict(body, signature, max_instances=most)
        return await asyncio.to_thread(parse_predict, body, signature, max_instances=most)


def parse_path(path: str) -> Address | None:
    """What a prediction's path names; None where it is none."""
    match = PATH.fullmatch(path)
    if match is None:
        return None
    version = match["version"]
    return Address(match["model"], int(version) if version else None, match["label"], match["verb"] == "submit")


async def _read_body(headers: list[tuple[bytes, bytes]], receive: Receive, limit: int) -> bytes:
    for name, value in headers:
        if name == b"content-length" and value.isdigit() and int(value) > limit:
            raise _too_large(limit)
        if name == b"content-encoding" and value.lower() != b"identity":
            raise _encoded()
    message = await receive()
    body: bytes = message.get("body", b"")
    if not message.get("more_body", False):
        if message["type"] == "http.disconnect":
            raise Disconnected
        if len(body) > limit:
            raise _too_large(limit)
        return body
    pieces, size = [body], len(body)
    while message.get("more_body", False):
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        piece = message.get("body", b"")
        size += len(piece)
        if size > limit:
            raise _too_large(limit)
        pieces.append(piece)
    return b"".join(pieces)


def _too_large(limit: int) -> RequestTooLarge:
    return RequestTooLarge(f"the body is larger than {limit} bytes")


def _encoded() -> SluiceError:
    error = SluiceError("send the body without Content-Encoding")
    error.status, error.code = 415, "content_encoding_unsupported"
    return error


def _rendered(path: str, error: SluiceError) -> Answered:
    status, headers, body = render(path, error)
    if status == 413:
        # The rest of the body is not read, so the connection cannot be used again.
        headers["connection"] = "close"
    return status, [(name.encode(), value.encode("latin-1", "replace")) for name, value in headers.items()], body
