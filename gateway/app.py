"""The gateway as an application: its collaborators, middleware, routes and error handlers, on one screen."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import AsyncIterator

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from auth.assertions import Assertions
from auth.failures import Failures
from auth.foreign_tokens import FederatedVerifier
from auth.job_receipts import ReceiptIssuer
from auth.signing_keys import SigningKeys
from auth.tokens import Issuer
from gateway import errors, openapi
from gateway.admission import Admission
from gateway.assembling import Assembling
from gateway.audit_log import AuditLog
from gateway.audit_trail import AuditTrail
from gateway.cross_origin import CrossOrigin
from gateway.end_channel import EndChannel
from gateway.end_feed import EndFeed
from gateway.event_streams import EventStreams
from gateway.figure_buffer import FigureBuffer
from gateway.health import Health
from gateway.inference_statistics import InferenceStatistics
from gateway.job_results import JobResults
from gateway.job_submission import JobSubmission
from gateway.job_watch import JobWatch
from gateway.key_keeping import KeyKeeping
from gateway.limits import Limits
from gateway.middleware import BodyLimit, RequestContext
from gateway.page_tokens import PageTokens
from gateway.parts import Parts
from gateway.people_parts import make_people_parts
from gateway.predictions import PredictionEndpoint
from gateway.queue_outlook import QueueOutlook
from gateway.result_addresses import ResultAddresses
from gateway.routes import (
    access,
    admin_jobs,
    admin_models,
    audit,
    batches,
    bundles,
    canaries,
    client_keys,
    client_webhooks,
    clients,
    dead_letters,
    docs,
    events,
    health,
    imports,
    job_policies,
    job_removal,
    job_results,
    jobs,
    keys,
    labels,
    limits,
    model_cards,
    model_configurations,
    model_deletion,
    model_interfaces,
    model_settings,
    model_statistics,
    model_uploads,
    models,
    open_inference,
    openai_batches,
    openai_files,
    people,
    person_tokens,
    repository,
    samples,
    scoring,
    second_factors,
    sessions,
    setup,
    shadows,
    token_states,
    tokens,
    traffic,
    upload_keys,
    variants,
    version_policies,
    webhook_deliveries,
    webhooks,
    workers,
)
from gateway.settings import GatewaySettings
from gateway.shadowing import Shadowing
from gateway.snapshot import Snapshot
from gateway.submission import Submission
from gateway.webhook_dispatch import WebhookDispatch
from model_store.artifacts import Artifacts
from model_store.database import connect, sessions_of
from monitoring.metrics import watch_memory
from workers import redis_link
from workers.broker import broker
from workers.dispatch import Dispatcher
from workers.lanes import Keys
from workers.pools import CatalogPools
from workers.publisher import Publisher
from workers.sweep import Collaborators

LARGEST_BATCH = 128
# Of whatever is neither a prediction nor an upload: FastAPI parses it on the event loop, in front of everybody else.
# The longest that makes sense, 1,000 grants, has less than half of this.
OTHER_BODY_BYTES = 1024**2


class Gateway(FastAPI):
    """FastAPI, but for predictions: they go around its own layers too, which are a tenth of what one costs here."""

    predictions: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self.predictions is not None:
            await self.predictions(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


def create_app(settings: GatewaySettings) -> FastAPI:
    """The application; what it connects to is connected when it starts, not here."""
    parts = make_parts(settings)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, object]]:
        async with running(parts), grpc_serving(app, parts) as port:
            app.state.grpc_port = port
            # Connections are told of the server's end before anything else is (gateway/connections.py).
            yield {"end_streams": parts.streams.stop}

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
    for routes in (
        tokens,
        token_states,
        # Before `models`, which answers whatever else stands under that address.
        batches,
        openai_files,
        openai_batches,
        model_interfaces,
        models,
        # Before `open_inference`, which takes `stats` for a model's name.
        model_statistics,
        model_configurations,
        repository,
        scoring,
        open_inference,
        events,
        jobs,
        job_results,
        job_removal,
        admin_jobs,
        dead_letters,
        admin_models,
        model_deletion,
        bundles,
        job_policies,
        labels,
        version_policies,
        variants,
        traffic,
        shadows,
        canaries,
        model_settings,
        samples,
        imports,
        model_cards,
        model_uploads,
        audit,
        webhook_deliveries,
        webhooks,
        clients,
        client_keys,
        client_webhooks,
        people,
        sessions,
        person_tokens,
        second_factors,
        setup,
        access,
        keys,
        limits,
        upload_keys,
        workers,
        health,
        docs,
    ):
        app.include_router(routes.router)
    # The last one added comes first.
    app.add_middleware(BodyLimit, limit_bytes=min(settings.body_limit_bytes, OTHER_BODY_BYTES))
    app.add_middleware(RequestContext, conclude=parts.audit.conclude)
    # Predictions go around everything above.
    app.predictions = PredictionEndpoint(super(Gateway, app).__call__, parts)
    if settings.origins:
        app.predictions = CrossOrigin(app.predictions, settings.origins)
    app.openapi = openapi.Description(app)  # type: ignore[method-assign] # FastAPI's documented way to extend it
    return app


def make_parts(settings: GatewaySettings) -> Parts:
    """All collaborators, not yet started."""
    engine = connect(settings, pool_size=10)
    sessions = sessions_of(engine)
    artifacts = Artifacts.of(settings)
    master_keys = settings.master_keys
    signing_keys = SigningKeys(master_keys)
    key_keeping = KeyKeeping(sessions, master_keys, settings)
    snapshot = Snapshot(sessions, signing_keys, key_keeping)
    verifier = FederatedVerifier(
        signing_keys,
        settings.trusted_issuers,
        issuer=settings.issuer,
        audience=settings.audience,
        max_seconds=settings.token_seconds,
        clock=snapshot.clock.now,
    )
    issuer = Issuer(signing_keys, issuer=settings.issuer, audience=settings.audience, seconds=settings.token_seconds)
    failures = Failures()
    audit_log = AuditLog(sessions, signing_keys, settings, settings.gateway_name)
    publisher = Publisher(broker(settings))
    # Numbers of requests begin anew with each start: an answer to the process before must find another name.
    gateway = f"{settings.gateway_name}-{secrets.token_hex(8)}"
    submission = Submission(settings, gateway, publisher, snapshot.weight, pools_of(settings, snapshot))
    watch, end_feed = JobWatch(sessions), EndFeed(sessions)
    outlook = QueueOutlook(sessions, snapshot, submission)
    figures = FigureBuffer(sessions)
    return Parts(
        settings=settings,
        engine=engine,
        sessions=sessions,
        artifacts=artifacts,
        assembling=Assembling(),
        snapshot=snapshot,
        keys=signing_keys,
        key_keeping=key_keeping,
        verifier=verifier,
        issuer=issuer,
        assertions=Assertions(tokens.audiences(settings), clock=snapshot.clock.now),
        failures=failures,
        people=make_people_parts(settings, sessions, snapshot, failures),
        audit_log=audit_log,
        audit=AuditTrail(audit_log, snapshot),
        admission=Admission(verifier, snapshot),
        submission=submission,
        figures=figures,
        shadowing=Shadowing(submission, figures),
        outlook=outlook,
        statistics=InferenceStatistics(submission, Keys(settings.key_prefix)),
        limits=Limits(settings, sessions, snapshot, gateway),
        jobs=JobSubmission(settings, sessions, artifacts, submission),
        results=JobResults(
            artifacts,
            ResultAddresses(master_keys, settings.result_url_seconds, snapshot.clock.now),
            ReceiptIssuer(signing_keys, issuer=settings.issuer, clock=snapshot.clock.now),
            outlook,
        ),
        pages=PageTokens(master_keys),
        watch=watch,
        end_feed=end_feed,
        end_channel=EndChannel(settings, [watch.ended, end_feed.ended]),
        streams=EventStreams(settings),
        publisher=publisher,
        health=Health(snapshot, submission, signing_keys, settings.pool),
    )


def pools_of(settings: GatewaySettings, snapshot: Snapshot) -> CatalogPools:
    """The pool of each model, as of the snapshot's newest catalog."""
    return CatalogPools(settings.pool, lambda: snapshot.catalog)


@contextlib.asynccontextmanager
async def grpc_serving(app: ASGIApp, parts: Parts) -> AsyncIterator[int]:
    """The gRPC server, where a port is set for it; the port on which it listens, or 0."""
    if not parts.settings.grpc_port:
        yield 0
        return
    # Its packages take 20 MB and a tenth of a second, for whoever serves HTTP alone too.
    from gateway.grpc_services.listening import serving

    async with serving(app, parts) as port:
        yield port


@contextlib.asynccontextmanager
async def running(parts: Parts) -> AsyncIterator[None]:
    """Start what runs beside the requests, and stop it again."""
    settings = parts.settings
    dispatcher = Dispatcher(
        Collaborators(
            parts.sessions,
            redis_link.connect(settings),
            parts.artifacts,
            parts.publisher,
            settings,
            LARGEST_BATCH,
            parts.snapshot.weight,
            lambda: parts.snapshot.rights.running_bounds,
            pools_of(settings, parts.snapshot),
        ),
        settings.gateway_name,
    )
    webhooks = WebhookDispatch(
        settings, parts.sessions, redis_link.connect(settings), parts.publisher, settings.master_keys
    )
    parts.snapshot.start()
    parts.publisher.start()
    parts.key_keeping.start()
    parts.audit_log.start()
    parts.verifier.start()
    watch_memory("gateway")
    await parts.submission.start()
    await parts.limits.start()
    await parts.outlook.start()
    await parts.figures.start()
    await parts.statistics.start()
    await parts.end_channel.start()
    dispatcher.start()
    webhooks.start()
    parts.health.start()
    try:
        yield
    finally:
        await parts.jobs.close()
        await parts.shadowing.close()
        await parts.figures.close()
        await parts.statistics.close()
        await parts.end_channel.close()
        await parts.watch.close()
        await parts.end_feed.close()
        await parts.outlook.close()
        await parts.limits.close()
        await parts.submission.close()
        parts.health.close()
        webhooks.close()
        dispatcher.close()
        parts.publisher.close()
        parts.verifier.close()
        parts.key_keeping.close()
        parts.audit_log.close()
        parts.snapshot.close()
        parts.engine.dispose()
