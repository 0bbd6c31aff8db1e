"""Health for platforms, metrics for Prometheus."""

from __future__ import annotations

import json
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import RedirectResponse

from auth.scopes import Scope
from gateway.admission import Caller
from gateway.dependencies import Reader, parts
from gateway.visible_metrics import visible_samples
from monitoring.metrics import CONTENT_TYPE, exposition

router = APIRouter(tags=["Health"])

MetricsViewer = Annotated[Caller | None, Depends(Reader(lambda settings: settings.metrics_public, Scope.METRICS_READ))]

ALIVE: dict[int | str, dict[str, Any]] = {200: {"content": {"application/json": {"example": {"status": "alive"}}}}}
LIVE = {200: {"content": {"application/json": {"example": {"status": "live"}}}}}
READY_EXAMPLE = {"status": "ready", "database": "up", "redis": "up", "signing_key": "up", "slots": 2}
NOT_READY_EXAMPLE = {"status": "not ready", "database": "up", "redis": "down", "signing_key": "up", "slots": 0}
READY = {
    200: {"content": {"application/json": {"example": READY_EXAMPLE}}},
    503: {"description": "Something is away", "content": {"application/json": {"example": NOT_READY_EXAMPLE}}},
}


@router.get("/", summary="Is there anybody", responses=ALIVE)
async def root(request: Request) -> Response:
    """A browser is led to the interface's description; programs learn that the server is alive, as KServe says it."""
    if "text/html" in request.headers.get("accept", ""):
        return RedirectResponse("/docs")
    return Response(json.dumps({"status": "alive"}), media_type="application/json")


@router.get("/health/live", summary="Is the process alive", responses=LIVE)  # type: ignore[arg-type] # FastAPI's type is wider than it says
async def live() -> dict[str, str]:
    """Answers as long as the process can answer at all; a platform restarts it when it does not."""
    return {"status": "live"}


@router.get("/health/ready", summary="Can it serve", responses=READY)  # type: ignore[arg-type] # as above
async def ready(request: Request) -> Response:
    """200 while database and Redis can be reached and there is a signing key, else 503 and what is away.

    `slots` counts live workers.
    """
    health = parts(request).health
    found = health.dependencies()
    document = {
        "status": "ready" if all(found.values()) else "not ready",
        **{name: "up" if up else "down" for name, up in found.items()},
        "slots": health.slots,
    }
    headers = {"Cache-Control": "no-store"} | ({} if all(found.values()) else {"Retry-After": "1"})
    status = 200 if all(found.values()) else 503
    return Response(json.dumps(document), status, headers, media_type="application/json")


@router.get(
    "/metrics",
    summary="Metrics in Prometheus's text format",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"example": "# TYPE sluice_requests_total counter\n"}}}},
)
def metrics(request: Request, viewer: MetricsViewer) -> Response:
    """Of all processes that share this gateway's metrics folder; workers elsewhere have a port of their own.

    A client that may not see every model gets no samples about those that it may not see.
    """
    found = exposition()
    if viewer is not None:
        found = visible_samples(found, parts(request).admission.sight(viewer))
    return Response(found, media_type=CONTENT_TYPE)
