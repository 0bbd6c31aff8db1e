"""The gRPC server of a gateway: its services, its bounds, and its start and end beside the HTTP server.

Another protocol adds a module with a function like `open_inference.service`, and a line in `services`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
from starlette.types import ASGIApp

from gateway.certificates import CertificateWatch, LiveContext
from gateway.connections import Occupancy
from gateway.grpc_services import health, open_inference, reflection, tensorflow_serving
from gateway.grpc_services.calls import Application
from gateway.grpc_services.methods import Methods
from gateway.grpc_services.outer_connections import OuterConnections
from gateway.grpc_services.rpcs import Service
from gateway.listening import descriptors, within_descriptors
from gateway.parts import Parts
from gateway.settings import GatewaySettings

log = logging.getLogger(__name__)
# Where gRPC writes metadata that are no text as they are, tokens too.
metadata_log = logging.getLogger("grpc._cython.cygrpc")

BACKLOG = 2048
SHUTDOWN_SECONDS = 10.0
HANDSHAKE_SECONDS = 5.0
# Beside a body as large as it may be, a message has the names and shapes of its tensors.
HEAD_BYTES = 256 * 1024
# A bearer token has at most 8 KiB, and is not all that there is.
METADATA_BYTES = 32 * 1024
# A caller that pings more often than the bound is sent away after so many; gRPC's own number.
MOST_PING_STRIKES = 2
H2 = "h2"


def services(application: Application, parts: Parts, ending: asyncio.Event) -> tuple[Service, ...]:
    """Everything that is served on the port; `ending` is set when the server stops."""
    protocols = (
        open_inference.service(application, parts.settings.body_limit_bytes),
        *tensorflow_serving.services(application, parts),
    )
    found = (*protocols, health.service(parts, tuple(service.name for service in protocols), ending))
    return (*found, *reflection.services(found)) if parts.settings.docs_public else found


@contextlib.asynccontextmanager
async def serving(app: ASGIApp, parts: Parts) -> AsyncIterator[int]:
    """The server while the block runs; the port on which it listens."""
    settings = parts.settings
    metadata_log.addFilter(tells_no_metadata)
    tls = None if settings.tls_files is None else LiveContext(settings.tls_files, H2)
    application = Application(app, "http" if tls is None else "https")
    with tempfile.TemporaryDirectory(prefix="sluice-grpc-") as folder, _watched(tls):
        # The folder is open to this user only, and so is the socket in it.
        inner = str(Path(folder) / "server")
        bounds = within_descriptors(settings.connection_bounds, descriptors(settings))
        connections = OuterConnections(Occupancy(bounds), inner)
        server = grpc.aio.server(options=options(settings), maximum_concurrent_rpcs=settings.grpc_calls)
        ending = asyncio.Event()
        methods = Methods(services(application, parts, ending), parts, connections, ending)
        server.add_generic_rpc_handlers((methods,))
        server.add_insecure_port(f"unix:{inner}")
        await server.start()
        try:
            port = await connections.listen(settings.host, settings.grpc_port, tls, BACKLOG)
            log.info("gRPC is served", extra={"port": port})
            yield port
        finally:
            connections.stop_listening()
            ending.set()
            # Callers are told to go elsewhere; calls under way are finished first.
            await server.stop(SHUTDOWN_SECONDS)
            await application.close()
            connections.close()


def tells_no_metadata(record: logging.LogRecord) -> bool:
    """Whether a line of gRPC's log may be written."""
    return not str(record.msg).startswith("Invalid encoding")


def options(settings: GatewaySettings) -> list[tuple[str, int]]:
    """The bounds of connections and messages, by gRPC's names for them; durations are in milliseconds there."""
    return [
        ("grpc.max_receive_message_length", settings.body_limit_bytes + HEAD_BYTES),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_metadata_size", METADATA_BYTES),
        ("grpc.max_concurrent_streams", settings.grpc_streams_per_connection),
        ("grpc.server_handshake_timeout_ms", int(HANDSHAKE_SECONDS * 1000)),
        # Who is silent for so long is asked whether it is still there, and given up without an answer.
        ("grpc.keepalive_time_ms", int(settings.grpc_keepalive_seconds * 1000)),
        ("grpc.keepalive_timeout_ms", int(settings.grpc_keepalive_seconds * 500)),
        # gRPC waits a minute for any ping's answer, whatever is said of keepalive: only this shortens it.
        ("grpc.http2.ping_timeout_ms", int(settings.grpc_keepalive_seconds * 500)),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", int(settings.grpc_least_ping_seconds * 1000)),
        ("grpc.http2.max_ping_strikes", MOST_PING_STRIKES),
        ("grpc.max_connection_idle_ms", int(settings.grpc_idle_seconds * 1000)),
        ("grpc.max_connection_age_ms", int(settings.grpc_age_seconds * 1000)),
        ("grpc.max_connection_age_grace_ms", int(settings.synchronous_seconds * 1000)),
        ("grpc.so_reuseport", 0),
    ]


@contextlib.contextmanager
def _watched(tls: LiveContext | None) -> Iterator[None]:
    if tls is None:
        yield
        return
    watch = CertificateWatch(tls)
    watch.start()
    try:
        yield
    finally:
        watch.close()
