"""The prediction endpoint: a raw ASGI application in front of FastAPI's router.

FastAPI's own machinery costs about 80 of the 107 µs of a request that does nothing, so what is asked most often goes
around it: same admission, same errors, same metrics, described in the same OpenAPI document (gateway/openapi.py).
"""

from __future__ import annotations

import asyncio
import logging
import time

from starlette.types import ASGIApp, Receive, Scope, Send

from auth.scopes import Scope as Right
from gateway.admission import Caller
from gateway.errors import render, unforeseen
from gateway.job_submission import Submitted
from gateway.job_view import accepted_document, job_document, wait_for_end
from gateway.middleware import outcome_of, request_id_of
from gateway.parts import Parts
from gateway.prediction_addresses import Address, parse_path
from gateway.prediction_bodies import Disconnected, RawHeaders, content_headers, read_prediction
from gateway.preferences import Preferences, read_preferences
from gateway.submission import CallerGone
from model_store.catalog import CatalogVersion
from model_store.errors import SluiceError
from monitoring import logs
from monitoring.metrics import request_metrics
from workers.lanes import Lane, Priority
from workers.protocols.body import TEXT, Body, stored
from workers.protocols.contract import Contract, Request
from workers.protocols.dialects import GRAMMARS

log = logging.getLogger(__name__)

PATHS_REMEMBERED = 4096
# Parsing a larger body on the event loop would hold up the other requests for over half a millisecond.
INLINE_PARSE_BYTES = 64 * 1024

NO_SNIFF = (b"x-content-type-options", b"nosniff")


Answered = tuple[int, RawHeaders, bytes]


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
        request_metrics(address.route, model, version).observe(outcome_of(status), time.perf_counter() - started)

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
        body = await read_prediction(headers, receive, parts.settings.body_limit_bytes, address.dialect)
        if asynchronous:
            return await self._submit(caller, address, target, body, preferences)
        lane = Lane(address.model, target.number, Priority.INTERACTIVE, caller.client_id)
        answer = await parts.submission.predict(lane, body, parts.settings.synchronous_seconds, receive)
        answered = content_headers(answer.head)
        if answer.status == 503:
            answered.append((b"retry-after", b"1"))
        return answer.status, answered, answer.body

    async def _submit(
        self, caller: Caller, address: Address, target: CatalogVersion, body: Body, preferences: Preferences
    ) -> Answered:
        parts = self._parts
        request = await self._checked(address.model, target, body)
        lane = Lane(address.model, target.number, Priority.BULK, caller.client_id)
        job_id = await parts.jobs.submit(
            Submitted(lane, address.dialect.label, request.instances, stored(body), target.max_batch)
        )
        headers: RawHeaders = []
        if preferences.applied:
            headers.append((b"preference-applied", preferences.applied))
        headers.append((b"location", f"/v1/jobs/{job_id}".encode()))
        if not preferences.wait_given:
            return 202, headers + content_headers(TEXT), accepted_document(job_id, lane, request.instances)
        job = await wait_for_end(parts, job_id, caller.client_id, preferences.wait_seconds)
        if job.ended and job.result is not None:
            return 200, headers + content_headers(job.result.head), job.result.data
        return 202, headers + content_headers(TEXT), job_document(job)

    async def _checked(self, model: str, target: CatalogVersion, body: Body) -> Request:
        """Parse and check before the promise: a job that cannot run is refused now, not found failed later."""
        if target.signature is None:
            raise SluiceError("the version has no signature")
        contract = Contract(model, target.number, target.signature, self._parts.settings.max_instances)
        parse = GRAMMARS[body.dialect].parse
        if len(body.data) <= INLINE_PARSE_BYTES:
            return parse(body, contract)
        return await asyncio.to_thread(parse, body, contract)


def _rendered(path: str, error: SluiceError) -> Answered:
    status, headers, body = render(path, error)
    if status == 413:
        # The rest of the body is not read, so the connection cannot be used again.
        headers["connection"] = "close"
    return status, [(name.encode(), value.encode("latin-1", "replace")) for name, value in headers.items()], body
