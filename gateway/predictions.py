"""The prediction endpoint: a raw ASGI application in front of FastAPI's router.

FastAPI's own machinery costs about 80 of the 107 µs of a request that does nothing, so what is asked most often goes
around it: same admission, same errors, same metrics, described in the same OpenAPI document (gateway/openapi.py).
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, replace

from starlette.types import ASGIApp, Receive, Scope, Send

from auth.standing import Authority
from gateway.access import Found
from gateway.admission import Caller
from gateway.content_codings import packed
from gateway.dry_runs import asks_for_dry_run, description_link, understood, with_example
from gateway.errors import render, unforeseen
from gateway.idempotent_submits import Keyed
from gateway.job_submission import Submitted
from gateway.job_terms import terms
from gateway.job_view import accepted_document, failure_of, job_document, wait_for_end, whole_result
from gateway.limit_visits import Visit
from gateway.load_shedding import too_old, too_old_to_wait
from gateway.middleware import CLOSED_POLICY, outcome_of, request_id_of
from gateway.parts import Parts
from gateway.prediction_addresses import Address, parse_path
from gateway.prediction_bodies import Disconnected, RawHeaders, content_headers, read_prediction
from gateway.preferences import Preferences, read_preferences, waiting
from gateway.schedules import TimeoutExpired, patience, scheduled
from gateway.submission import CallerGone
from gateway.submit_options import SubmitOptions, read_submit_options
from gateway.webhook_terms import is_told
from gateway.whole_answers import send_and_linger, send_whole
from model_store.catalog import CatalogVersion
from model_store.errors import SluiceError
from monitoring import logs
from monitoring.metrics import request_metrics
from workers.errors import DeadlinePassed, InputInvalid
from workers.lanes import Lane, Priority
from workers.protocols.body import TEXT, Body, Dialect, stored
from workers.protocols.contract import Contract, Request
from workers.protocols.dialects import GRAMMARS
from workers.protocols.file_reading import UNREAD

log = logging.getLogger(__name__)

PATHS_REMEMBERED = 4096
# Parsing a larger body on the event loop would hold up the other requests for over half a millisecond.
INLINE_PARSE_BYTES = 64 * 1024
# Of what stands for more than it says: an explanation's copies are counted, a context is written out.
SPREADING = frozenset({Dialect.CLASSIFY, Dialect.REGRESS, Dialect.EXPLAIN})
INLINE_SPREADING_BYTES = 4 * 1024

# Answers to POST are stored by nobody unless they say so (RFC 9111, section 3): each header costs a microsecond here.
SECURITY_HEADERS = ((b"x-content-type-options", b"nosniff"), CLOSED_POLICY)


Answered = tuple[int, RawHeaders, bytes]


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a submit's headers ask for: how to be answered, and what kind of job it is to be."""

    preferences: Preferences
    options: SubmitOptions

    def of_explanation(self, seconds: float) -> Wishes:
        """The same for what is a job whether or not that was asked for: it waits, and behind everybody else's."""
        return Wishes(waiting(self.preferences, seconds), replace(self.options, priority=Priority.BULK))


class PredictionEndpoint:
    """Answers prediction requests itself and hands everything else on."""

    def __init__(self, app: ASGIApp, parts: Parts) -> None:
        self._app = app
        self._parts = parts
        self._audit = parts.audit
        self._paths: dict[str, Address] = {}
        self._parsing = asyncio.Lock()

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
            self._audit.refused_prediction(scope, address, error, request_id)
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
            if status == 400:
                headers.append(description_link(model, version))
        if len(body) >= self._parts.settings.packing_bytes:
            body, said = await packed(body, scope["headers"])
            headers += said
        headers += [(b"content-length", str(len(body)).encode()), (b"x-request-id", request_id)]
        headers += SECURITY_HEADERS
        # Before it is sent: what is thrown away after a refusal took no time of ours.
        request_metrics(address.route, model, version).observe(outcome_of(status), time.perf_counter() - started)
        if status == 413:
            await send_and_linger(receive, send, status, headers, body)
        else:
            await send_whole(send, status, headers, body)
        if resolved and self._audit.share and "dry_run" not in scope:
            self._audit.predicted(scope, address, resolved[0], status, request_id)

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
        caller = parts.admission.caller(headers, scope["query_string"], scope.get("extensions"))
        scope["caller"] = caller
        parts.admission.require(caller, address.right)
        dry = scope["query_string"] and asks_for_dry_run(scope["query_string"])
        preferences = read_preferences(headers)
        asynchronous = address.submits or preferences.asynchronous
        # Read of every request: one that waits has no use for them, but what cannot be read was meant otherwise.
        options = read_submit_options(headers, parts.snapshot.now_ms)
        action = "submit" if asynchronous else "predict"
        picture = parts.snapshot.rights
        found = parts.admission.found(caller, action, address.model, address.version, address.label, headers)
        target = found.version
        resolved.append(target)
        with parts.limits.visit(caller.rights, address.model) as visit:
            if not visit.take():
                await visit.wait()
            body = await read_prediction(headers, receive, visit.plan.body_bytes, address.dialect)
            if not dry:
                visit.read(len(body.data))
            if parts.snapshot.rights is not picture:
                # A body may come slowly: what was withdrawn meanwhile is refused, and it means what it means now.
                caller = parts.admission.caller(headers, scope["query_string"], scope.get("extensions"))
                parts.admission.require(caller, address.right)
                found = parts.admission.found(caller, action, address.model, address.version, address.label, headers)
                target = resolved[0] = found.version
            if dry:
                scope["dry_run"] = True
                return await self._understood(address, target, body, visit)
            if asynchronous:
                return await self._submit(caller, address, found, body, Wishes(preferences, options), visit)
            lane = Lane(address.model, target.number, Priority.INTERACTIVE, caller.client_id)
            late = too_old_to_wait(parts.submission.age(lane), found.policy)
            if late is not None:
                raise late
            seconds, wanted = parts.settings.synchronous_seconds, patience(body)
            began = time.perf_counter()
            try:
                if found.watch is None:
                    answer = await parts.submission.predict(lane, body, min(seconds, wanted), receive)
                else:
                    answer = await parts.shadowing.predict(found.watch, lane, body, min(seconds, wanted), receive)
            except SluiceError as error:
                told = TimeoutExpired() if isinstance(error, DeadlinePassed) and wanted < seconds else error
                parts.statistics.count((lane.model, lane.version), told.status, time.perf_counter() - began)
                raise told from None
            taken = time.perf_counter() - began
            parts.statistics.count((lane.model, lane.version), answer.status, taken)
            visit.answered(answer.instances)
            answered = content_headers(answer.head) + visit.headers()
        if answer.status == 503:
            answered.append((b"retry-after", b"1"))
        return answer.status, answered, answer.body

    async def _understood(self, address: Address, target: CatalogVersion, body: Body, visit: Visit) -> Answered:
        """How a request would be read, or what is wrong with it and a body that would work; nothing is queued."""
        try:
            request = await self._checked(address.model, target, body)
        except InputInvalid as error:
            async with self._parsing:
                raise await asyncio.to_thread(with_example, error, address.model, target, body) from None
        text = understood(address.model, target.number, Dialect(body.dialect), request)
        return 200, content_headers(TEXT) + visit.headers(), text

    async def _submit(
        self,
        caller: Caller,
        address: Address,
        found: Found,
        body: Body,
        wishes: Wishes,
        visit: Visit,
    ) -> Answered:
        if address.dialect is Dialect.EXPLAIN:
            wishes = wishes.of_explanation(self._parts.settings.synchronous_seconds)
        parts, target, preferences, options = self._parts, found.version, wishes.preferences, wishes.options
        request = await self._checked(address.model, target, body)
        options = scheduled(options, request)
        lane = Lane(address.model, target.number, options.priority, caller.client_id)
        submitted_body = stored(body)
        keyed = _keyed(caller, address, options, body.dialect, submitted_body)
        late = too_old(parts.outlook, lane, found.policy, options.deadline_seconds)
        if late is not None and keyed is None:
            raise late
        submitted = Submitted(
            lane,
            Dialect(body.dialect).label,
            request.instances,
            submitted_body,
            target.max_batch,
            visit.plan.most_queued,
            visit.plan.most_queued_of_model,
            Authority(found.rule.id, caller.token_id, caller.issued_at),
            terms(options, found.policy, parts.settings.job_seconds),
            keyed,
            late,
            visit.plan.bounds_running,
            is_told(parts.settings, parts.snapshot, caller.client_id, options.webhook),
            options.webhook,
        )
        with visit.submitting(request.instances):
            accepted = await parts.jobs.submit(submitted)
        headers: RawHeaders = visit.headers()
        if accepted.replayed:
            visit.answered(-request.instances)
            headers.append((b"idempotent-replayed", b"true"))
        if preferences.applied:
            headers.append((b"preference-applied", preferences.applied))
        headers.append((b"location", f"/v1/jobs/{accepted.id}".encode()))
        if not preferences.wait_given and not accepted.replayed:
            return 202, headers + content_headers(TEXT), accepted_document(accepted, lane, request.instances)
        job = await wait_for_end(parts, accepted.id, caller.client_id, preferences.wait_seconds)
        result = await whole_result(parts, job) if preferences.wait_given else None
        if result is not None:
            return 200, headers + content_headers(result.head), result.data
        if not preferences.stated and job.ended:
            # Who did not ask for a job is told of its end as of a prediction's.
            raise failure_of(job.job)
        return 202, headers + content_headers(TEXT), job_document(job)

    async def _checked(self, model: str, target: CatalogVersion, body: Body) -> Request:
        """Parse and check before the promise: a job that cannot run is refused now, not found failed later."""
        if target.signature is None:
            raise SluiceError("the version has no signature")
        most = self._parts.snapshot.catalog.most_instances(model, self._parts.settings.max_instances)
        contract = Contract(
            model,
            target.number,
            target.signature,
            most,
            input_specification=target.input_specification,
            files=UNREAD,
        ).with_further(target.further)
        parse = GRAMMARS[body.dialect].parse
        if len(body.data) <= (INLINE_SPREADING_BYTES if body.dialect in SPREADING else INLINE_PARSE_BYTES):
            return parse(body, contract)
        # One at a time: each takes the interpreter from the event loop in turn with the others; of 20 bodies of 8 MiB
        # at once, the loop came to a halt for a second.
        async with self._parsing:
            return await asyncio.to_thread(parse, body, contract)


def _keyed(caller: Caller, address: Address, options: SubmitOptions, dialect: int, body: bytes) -> Keyed | None:
    """The request under its key; a deadline is no part of it, since who tries again has less time left."""
    if options.idempotency_key is None:
        return None
    asked = (address.model, address.version, address.label, Dialect(dialect).label)
    wanted = (options.priority, options.max_attempts, options.webhook)
    return Keyed(caller.client_id, options.idempotency_key, (repr(asked).encode(), repr(wanted).encode(), body))


def _rendered(path: str, error: SluiceError) -> Answered:
    status, headers, body = render(path, error)
    if status == 413:
        # The rest of the body is not read, so the connection cannot be used again.
        headers["connection"] = "close"
    return status, [(name.encode(), value.encode("latin-1", "replace")) for name, value in headers.items()], body
