"""The gateway as an application: its collaborators, middleware, routes and error handlers, on one screen."""

from __future__ import annotations

import contextlib
import functools
import secrets
from collections.abc import AsyncIterator

from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from auth.failures import Failures
from auth.keys import load_keys
from auth.passwords import Passwords
from auth.people import PasswordCheck
from auth.tokens import Issuer, Verifier
from gateway import errors, openapi
from gateway.admission import Admission
from gateway.health import Health
from gateway.job_submission import JobSubmission
from gateway.job_watch import JobWatch
from gateway.middleware import BodyLimit, RequestContext
from gateway.parts import Parts
from gateway.predictions import PredictionEndpoint
from gateway.routes import admin_models, clients, docs, health, jobs, models, open_inference, tokens, workers
from gateway.settings import GatewaySettings
from gateway.snapshot import Snapshot
from gateway.submission import Submission
from model_store.artifacts import Artifacts
from model_store.database import connect, sessions_of
from monitoring.metrics import watch_memory
from workers import redis_link
from workers.broker import broker
from workers.dispatch import Dispatcher
from workers.publisher import Publisher
from workers.sweep import Collaborators

LARGEST_BATCH = 128
# Of whatever is neither a prediction nor an upload: FastAPI parses it on the event loop, in front of everybody else.
# The longest that makes sense, 1,000 grants, has less than half of this.
OTHER_BODY_BYTES = 1024**2


class Gateway(FastAPI):
    """FastAPI, but for predictions: they go around its own layers too, which are a tenth of what one costs here."""

    predictions: PredictionEndpoint | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self.predictions is not None:
            await self.predictions(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


def create_app(settings: GatewaySettings) -> FastAPI:
    """The application; what it connects to is connected when it starts, not here."""
    parts = make_parts(settings)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with running(parts):
            yield

    app = Gateway(
        title="Sluice",
        version="0.1.0",
        summary="A secured multi-model gateway with queue-based workers.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        # The redirect would name whatever Host the request claimed.
        redirect_slashes=False,
    )
    app.state.parts = parts
    errors.install(app)
    for routes in (tokens, models, open_inference, jobs, admin_models, clients, workers, health, docs):
        app.include_router(routes.router)
    # The last one added comes first.
    app.add_middleware(BodyLimit, limit_bytes=min(settings.body_limit_bytes, OTHER_BODY_BYTES))
    app.add_middleware(RequestContext)
    # Predictions go around everything above.
    app.predictions = PredictionEndpoint(super(Gateway, app).__call__, parts)
    # Open to strangers, and 50 ms of work: done once.
    app.openapi = functools.cache(lambda: openapi.describe(app))  # type: ignore[method-assign] # FastAPI's documented way to extend it
    return app


def make_parts(settings: GatewaySettings) -> Parts:
    """All collaborators, not yet started."""
    engine = connect(settings, pool_size=10)
    sessions = sessions_of(engine)
    artifacts = Artifacts(settings.store_dir, settings.upload_limit_bytes)
    snapshot = Snapshot(sessions)
    keys = load_keys(settings.keys_dir)
    verifier = Verifier(
        keys.public, issuer=settings.issuer, audience=settings.audience, max_seconds=settings.token_seconds
    )
    issuer = Issuer(keys.signing, issuer=settings.issuer, audience=settings.audience, seconds=settings.token_seconds)
    failures = Failures()
    publisher = Publisher(broker(settings))
    # Numbers of requests begin anew with each start: an answer to the process before must find another name.
    submission = Submission(settings, f"{settings.gateway_name}-{secrets.token_hex(8)}", publisher)
    return Parts(
        settings=settings,
        engine=engine,
        sessions=sessions,
        artifacts=artifacts,
        snapshot=snapshot,
        keys=keys,
        issuer=issuer,
        failures=failures,
        password_check=PasswordCheck(sessions, Passwords(), failures),
        admission=Admission(verifier, snapshot),
        submission=submission,
        jobs=JobSubmission(settings, sessions, artifacts, submission),
        watch=JobWatch(settings),
        publisher=publisher,
        health=Health(snapshot, submission, settings.pool),
    )


@contextlib.asynccontextmanager
async def running(parts: Parts) -> AsyncIterator[None]:
    """Start what runs beside the requests, and stop it again."""
    settings = parts.settings
    dispatcher = Dispatcher(
        Collaborators(
            parts.sessions, redis_link.connect(settings), parts.artifacts, parts.publisher, settings, LARGEST_BATCH
        ),
        settings.gateway_name,
    )
    parts.snapshot.start()
    parts.publisher.start()
    watch_memory("gateway")
    await parts.submission.start()
    await parts.watch.start()
    dispatcher.start()
    parts.health.start()
    try:
        yield
    finally:
        await parts.jobs.close()
        await parts.watch.close()
        await parts.submission.close()
        parts.health.close()
        dispatcher.close()
        parts.publisher.close()
        parts.snapshot.close()
        parts.engine.dispose()
