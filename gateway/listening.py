"""How the gateway listens: uvicorn with its connections, and TLS where it is configured."""

from __future__ import annotations

import contextlib
import functools
import gc
import logging
import resource
import signal
from collections.abc import Iterator
from dataclasses import replace

import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp

from gateway.certificates import CertificateWatch, LiveContext
from gateway.connections import Connection, ConnectionBounds, Occupancy
from gateway.settings import GatewaySettings

KEEP_ALIVE_SECONDS = 75
SHUTDOWN_SECONDS = 10
BACKLOG = 2048
# Of a process, for everything that is no connection of a caller: the database, Redis, files, and refusals.
OTHER_DESCRIPTORS = 512
# Of a connection: gRPC's has two more, for the way to the server behind (gateway/grpc_services/outer_connections.py).
HTTP_DESCRIPTORS, GRPC_DESCRIPTORS = 1, 3
# RFC 6797: a year without plain HTTP, which is not there to go back to.
STRICT_TRANSPORT = ("strict-transport-security", "max-age=31536000")

log = logging.getLogger(__name__)


def listen(app: FastAPI, settings: GatewaySettings) -> None:
    """Serve an application the way a gateway is served; the benchmarks serve their floor with it."""
    tls = None if settings.tls_files is None else LiveContext(settings.tls_files)
    bounds = within_descriptors(settings.connection_bounds, descriptors(settings))
    config = server_config(app, (settings.host, settings.port), bounds, tls)
    # What lives now lives for ever: collections need not walk it again. They were the whole tail of the latency
    # (p99 at 32 connections 64 ms, without them 10 ms); cycles that requests leave behind are still collected.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 50, 100)
    with watched(tls):
        uvicorn.Server(config).run()


def server_config(
    app: ASGIApp, address: tuple[str, int], bounds: ConnectionBounds, tls: LiveContext | None
) -> uvicorn.Config:
    """How uvicorn serves the gateway, or what else stands in its place."""
    host, port = address
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        loop="gateway.handshakes:BoundedHandshakes",
        # uvicorn calls it as it would a class.
        http=functools.partial(Connection, Occupancy(bounds)),  # type: ignore[arg-type]
        ssl_context_factory=None if tls is None else lambda *_: tls,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        headers=[] if tls is None else [STRICT_TRANSPORT],
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )


def descriptors(settings: GatewaySettings) -> int:
    """How many open files a gateway has for one connection of each kind."""
    return HTTP_DESCRIPTORS + (GRPC_DESCRIPTORS if settings.grpc_port else 0)


def within_descriptors(bounds: ConnectionBounds, each: int = HTTP_DESCRIPTORS) -> ConnectionBounds:
    """Raise the system's bound on open files as far as it goes; bounds that it can hold, with `each` a connection.

    Often it is 1,024, which a thousand idle connections use up: then nobody can be refused, and nothing be read.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = bounds.connections * each + OTHER_DESCRIPTORS
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return bounds
    found = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (found, hard))
    if found < wanted:
        log.warning("the system allows %d open files only, so fewer connections are taken", found)
    return replace(bounds, connections=max((found - OTHER_DESCRIPTORS) // each, 1))


@contextlib.contextmanager
def watched(tls: LiveContext | None) -> Iterator[None]:
    """Read the TLS files again when they change or SIGHUP comes."""
    if tls is None:
        yield
        return
    watch = CertificateWatch(tls)
    signal.signal(signal.SIGHUP, lambda *_: watch.ask())
    watch.start()
    try:
        yield
    finally:
        watch.close()
