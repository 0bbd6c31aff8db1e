"""gRPC's health protocol (grpc.health.v1), overall and for each service; it says what `/health/ready` says."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator

import grpc
from grpc_health.v1 import health_pb2

from gateway.grpc_services.calls import Call
from gateway.grpc_services.failures import CallFailed
from gateway.grpc_services.messages import Fields
from gateway.grpc_services.rpcs import PUBLIC, Rpc, Service, StreamRpc
from gateway.health import Health
from gateway.parts import Parts

NAME = "grpc.health.v1.Health"
# The whole server's name.
OVERALL = ""
LOOK_SECONDS = 1.0
# Who watches for longer comes again.
WATCH_SECONDS = 3600.0

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


def service(parts: Parts, names: tuple[str, ...], ending: asyncio.Event) -> Service:
    """The health of the server and of the services with these names: all depend on the same things, until `ending`."""
    states = States(parts.health, (OVERALL, NAME, *names), ending)
    request = health_pb2.HealthCheckRequest
    return Service(
        NAME,
        (
            Rpc("Check", request, PUBLIC, states.check),
            Rpc("List", health_pb2.HealthListRequest, PUBLIC, states.list_all),
            StreamRpc("Watch", request, PUBLIC, states.watch, WATCH_SECONDS),
        ),
    )


class States:
    """Whether each service can serve, as of now."""

    def __init__(self, health: Health, names: tuple[str, ...], ending: asyncio.Event) -> None:
        self._health = health
        self._names = names
        self._ending = ending

    async def check(self, _: Call, request: Fields) -> Fields:
        state = self._state(request.service)
        if state == SERVICE_UNKNOWN:
            raise CallFailed(grpc.StatusCode.NOT_FOUND, "there is no such service here")
        return health_pb2.HealthCheckResponse(status=state)

    async def list_all(self, _: Call, __: Fields) -> Fields:
        statuses = {name: health_pb2.HealthCheckResponse(status=self._state(name)) for name in self._names}
        return health_pb2.HealthListResponse(statuses=statuses)

    async def watch(self, _: Call, requests: AsyncIterator[Fields]) -> AsyncGenerator[Fields, None]:
        """The state now, and each other one when it comes to be; also of a service that is not there."""
        request = await anext(requests, None)
        if request is None:
            raise CallFailed(grpc.StatusCode.INVALID_ARGUMENT, "the call has no message")
        told = None
        for _number in range(int(WATCH_SECONDS / LOOK_SECONDS)):
            state = self._state(request.service)
            if state != told:
                told = state
                yield health_pb2.HealthCheckResponse(status=state)
            if self._ending.is_set():
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), LOOK_SECONDS)

    def _state(self, name: str) -> int:
        if name not in self._names:
            return int(SERVICE_UNKNOWN)
        up = not self._ending.is_set() and all(self._health.dependencies().values())
        return int(SERVING if up else NOT_SERVING)
