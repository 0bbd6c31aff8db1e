"""Events of jobs as streams (server-sent events): of one job, and of all of a client's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request, Response

from auth.errors import TokenInvalid
from auth.scopes import Scope
from gateway.admission import Admission, Caller
from gateway.client_events import client_events, cursor_of_id
from gateway.dependencies import Require, parts
from gateway.end_events import NAMES, Wanted
from gateway.event_frames import MEDIA_TYPE
from gateway.job_events import ENDS, job_events, stamp
from gateway.job_stamps import stamp_of_id
from gateway.job_view import JobView, view
from model_store.database import transaction
from model_store.errors import SluiceError
from model_store.registry import NAME

router = APIRouter(prefix="/v1", tags=["Jobs"])

EITHER = (Scope.JOBS, Scope.PREDICT)
EXAMPLE = """\
retry: 2000

event: job.running
id: 1.1.0
data: {"id": "Zk0o3rVxQ1uYt5pWc8sLd2Ea", "model": "mnist", "version": "1", "state": "running"}

event: job.succeeded
id: 1.2.1
data: {"id": "Zk0o3rVxQ1uYt5pWc8sLd2Ea", "model": "mnist", "version": "1", "state": "succeeded"}

"""
# Of each event: before OpenAPI 3.2 there is no other place to say what a stream is made of.
EVENT: dict[str, Any] = {
    "type": "object",
    "required": ["event", "data"],
    "properties": {
        "event": {"type": "string", "enum": sorted(NAMES)},
        "id": {"type": "string"},
        "data": {"type": "string", "contentMediaType": "application/json"},
    },
}
Responses = dict[int | str, dict[str, Any]]
STREAM: Responses = {
    200: {
        "description": "Events; a line that begins with a colon every 15 seconds without one",
        "content": {MEDIA_TYPE: {"schema": EVENT, "example": EXAMPLE}},
    }
}
OVER: Responses = {204: {"description": "The last event has been seen: do not come again"}}

Own = Annotated[Caller, Depends(Require(*EITHER))]
LastEventId = Annotated[str | None, Header(max_length=64, description="The id of the last event that was seen.")]


class EventTypeUnknown(SluiceError):
    status = 400
    code = "event_type_unknown"


@router.get("/jobs/{job_id}/events", summary="Follow a job", response_class=Response, responses=STREAM | OVER)
async def follow_job(request: Request, caller: Own, job_id: str, last_event_id: LastEventId = None) -> Response:
    """What becomes of the job, as server-sent events with the job's document; the stream ends after the last one.

    With `Last-Event-ID`, only what is newer than that, at whatever gateway; 204 where there is nothing more to come.
    """
    found, seen = parts(request), stamp_of_id(last_event_id)

    def look() -> JobView:
        with transaction(found.sessions, write=False) as session:
            return view(session, found.results, job_id, caller.client_id)

    job = await found.watch.looks.take(look)
    if job.ended and seen is not None and stamp(job) <= seen:
        return Response(status_code=204, headers={"Cache-Control": "no-store"})
    source = job_events(found.watch, job_id, look, seen)
    return found.streams.stream(caller.client_id, source, still_admitted(found.admission, caller))


@router.get("/events", summary="Follow all jobs of this client", response_class=Response, responses=STREAM)
async def follow_jobs(
    request: Request,
    caller: Own,
    model: Annotated[str | None, Query(pattern=f"^{NAME.pattern}$", description="Jobs of this model only.")] = None,
    types: Annotated[
        str | None,
        Query(
            max_length=256, description=f"Which events, with commas: {', '.join(NAMES)}. Otherwise all ends of jobs."
        ),
    ] = None,
    last_event_id: LastEventId = None,
) -> Response:
    """The ends of this client's jobs, each at least once; with `Last-Event-ID`, at whatever gateway, from there on.

    Without it, from now on. Starts and progress have to be asked for; they are told as they are seen, once a second.
    """
    found, seen = parts(request), cursor_of_id(last_event_id)
    wanted = Wanted(caller.client_id, event_names(types), model)
    source = client_events(found.end_feed, wanted, seen, await found.end_feed.now())
    return found.streams.stream(caller.client_id, source, still_admitted(found.admission, caller))


def event_names(types: str | None) -> frozenset[str]:
    """The names in a list; raises EventTypeUnknown."""
    if types is None:
        return frozenset(ENDS)
    names = frozenset(name.strip() for name in types.split(","))
    unknown = sorted(names.difference(NAMES))
    if unknown:
        raise EventTypeUnknown(f"there is no event {unknown[0]!r}; there are {', '.join(NAMES)}")
    return names


def still_admitted(admission: Admission, caller: Caller) -> Callable[[], bool]:
    """Asks whether a caller that was let in some time ago would be now."""

    def ask() -> bool:
        try:
            return not admission.renewed(caller).scopes.isdisjoint(EITHER)
        except TokenInvalid:
            return False

    return ask
