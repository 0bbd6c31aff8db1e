"""How gRPC's server serves our methods: who may call is asked first, then the message is read, and all has its time.

The caller is let in before a byte of its message is read, so a stranger costs no more than a connection.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message

from auth.errors import ScopeMissing
from gateway.errors import unforeseen
from gateway.grpc_services.calls import Call, Peer, headers_of
from gateway.grpc_services.failures import CallFailed, failure_of
from gateway.grpc_services.rpcs import Rpc, Service, StreamRpc
from gateway.middleware import request_id_of
from gateway.parts import Parts
from model_store.errors import SluiceError
from monitoring import logs
from monitoring.metrics import GRPC_CALLS

log = logging.getLogger(__name__)

T = TypeVar("T")

# A message has to come, and an answer to be taken, within so many seconds; HTTP looks at bodies as often.
READ_SECONDS = 60.0
# What anybody may send is a name at most.
STRANGERS_READ_SECONDS = 5.0
# Who does not take an answer loses the connection: the answer lies in our memory until then, and gRPC has no way to
# give up one call whose caller leaves it no room.
WRITE_SECONDS = 60.0
# Decoding a longer message on the event loop would hold up the others.
INLINE_BYTES = 256 * 1024
# The longest message of a stranger; packed, it may have come in a few bytes.
STRANGERS_BYTES = 64 * 1024

REQUEST_ID = b"x-request-id"
# All callers without a token count as one.
STRANGER = ""


class Peers(Protocol):
    """The other ends of connections, by what gRPC calls them."""

    def peer(self, name: str) -> Peer: ...

    def trust(self, name: str) -> None:
        """Somebody known calls on the connection."""

    def cut(self, name: str) -> None:
        """End a connection at once, and all calls on it."""


@dataclass(frozen=True, slots=True)
class _Called:
    """What the audit log calls a route."""

    name: str
    path: str


class Shares:
    """How many calls are under way for each client, so that none has them all. Used from one event loop."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._open: Counter[str] = Counter()

    @contextmanager
    def one(self, client_id: str) -> Iterator[None]:
        """A call while it is under way; raises CallFailed."""
        if self._open[client_id] >= self._most:
            raise CallFailed(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many of your calls are under way")
        self._open[client_id] += 1
        try:
            yield
        finally:
            self._open[client_id] -= 1
            if not self._open[client_id]:
                del self._open[client_id]


class Methods(grpc.GenericRpcHandler):  # type: ignore[misc] # grpc carries no annotations
    """All methods of all services, as gRPC's server asks for them."""

    def __init__(self, services: tuple[Service, ...], parts: Parts, peers: Peers, ending: asyncio.Event) -> None:
        """`ending` is set when the server stops: streams end at their next message, for they would last for hours."""
        self._parts = parts
        self._peers = peers
        self._served: Mapping[str, object] = {
            (path := f"/{service.name}/{rpc.name}"): self._served_as(rpc, path)
            for service in services
            for rpc in service.rpcs
        }
        self._names = {service.name for service in services}
        self._shares = Shares(parts.settings.grpc_calls_per_client)
        self._ending = ending

    def service(self, details: grpc.HandlerCallDetails) -> object:
        """What serves a method; None, which is UNIMPLEMENTED, where there is none."""
        found = self._served.get(details.method)
        if found is None and details.method[1:].partition("/")[0] in self._names:
            return _NOT_OFFERED
        return found

    def _served_as(self, rpc: Rpc | StreamRpc, path: str) -> object:
        # gRPC itself would read the only message of a method before it asks anybody who sent it. On the wire a stream
        # of one message is the same.
        if isinstance(rpc, StreamRpc):
            return grpc.stream_stream_rpc_method_handler(partial(self._serve_stream, rpc, path))
        return grpc.stream_unary_rpc_method_handler(partial(self._serve_one, rpc, path))

    async def _serve_one(self, rpc: Rpc, path: str, _: object, context: grpc.aio.ServicerContext) -> bytes:
        call = self._call(path, context)

        async def answered() -> bytes:
            with self._shares.one(self._admit(rpc, call, context)):
                answer = await rpc.answer(call, await _one(rpc, context))
            written: bytes = answer.SerializeToString()
            return written

        found: bytes = await self._ended(rpc, call, context, answered())
        # The answer goes out with the end of the call, after this.
        late = asyncio.get_running_loop().call_later(WRITE_SECONDS, self._peers.cut, context.peer())
        context.add_done_callback(lambda _: late.cancel())
        return found

    async def _serve_stream(self, rpc: StreamRpc, path: str, _: object, context: grpc.aio.ServicerContext) -> None:
        call = self._call(path, context)

        async def answered() -> None:
            with self._shares.one(self._admit(rpc, call, context)):
                await streamed()

        async def streamed() -> None:
            async with (
                aclosing(self._each(rpc, context)) as requests,
                aclosing(rpc.answer(call, requests)) as answers,
            ):
                async for answer in answers:
                    await self._write(context, answer)

        await self._ended(rpc, call, context, answered())

    def _call(self, path: str, context: grpc.aio.ServicerContext) -> Call:
        """The call, with a request id among its headers whatever the caller sent."""
        sent = headers_of(context.invocation_metadata() or ())
        request_id = request_id_of(sent)
        headers = [field for field in sent if field[0] != REQUEST_ID]
        headers.append((REQUEST_ID, request_id))
        return Call(path, request_id.decode(), headers, self._peers.peer(context.peer()))

    async def _ended(
        self, rpc: Rpc | StreamRpc, call: Call, context: grpc.aio.ServicerContext, answered: Awaitable[T]
    ) -> T:
        """What the call is answered, if it is; whatever goes wrong becomes its code."""
        failed: CallFailed
        try:
            found = await answered
        except asyncio.CancelledError:
            GRPC_CALLS.labels(rpc.name, grpc.StatusCode.CANCELLED.name).inc()
            raise
        except CallFailed as stated:
            # Kept here, its own traceback would hold this frame, and the message with it, until the next collection.
            failed = CallFailed(stated.code, stated.message, stated.trailers)
        except SluiceError as error:
            failed = failure_of(error)
        except Exception:  # the process's edge: one call's unforeseen failure is its own
            with logs.bind(request_id=call.request_id):
                log.exception("a call failed unexpectedly")
            failed = failure_of(unforeseen())
        else:
            GRPC_CALLS.labels(rpc.name, grpc.StatusCode.OK.name).inc()
            context.set_trailing_metadata(_trailers(call))
            return found
        GRPC_CALLS.labels(rpc.name, failed.code.name).inc()
        await context.abort(failed.code, failed.message, (*_trailers(call), *failed.trailers))
        raise failed

    def _admit(self, rpc: Rpc | StreamRpc, call: Call, context: grpc.aio.ServicerContext) -> str:
        """Whose call it is, or STRANGER where anybody may; models are looked at behind it.

        Raises a SluiceError where the caller may not call this at all.
        """
        if not rpc.scopes:
            return STRANGER
        scope: dict[str, Any] = {}
        try:
            caller = self._parts.admission.caller(call.headers, b"", call.extensions)
            scope["caller"] = caller
            if caller.scopes.isdisjoint(rpc.scopes):
                raise ScopeMissing(rpc.scopes[0])
        except SluiceError as error:
            scope |= {"method": "POST", "path": call.method, "route": _Called(_act(rpc.name), call.method)}
            scope |= {"client": call.peer.client, "state": {"request_id": call.request_id, "refusal": error.code}}
            self._parts.audit.conclude(scope, error.status)
            challenge = getattr(error, "challenge", None)
            if challenge:
                call.trailers["www-authenticate"] = challenge
            raise
        self._peers.trust(context.peer())
        return caller.client_id

    async def _write(self, context: grpc.aio.ServicerContext, answer: Message) -> None:
        """Hand an answer over."""
        late = asyncio.get_running_loop().call_later(WRITE_SECONDS, self._peers.cut, context.peer())
        try:
            await context.write(answer.SerializeToString())
        finally:
            late.cancel()

    async def _each(self, rpc: StreamRpc, context: grpc.aio.ServicerContext) -> AsyncGenerator[Message, None]:
        """The messages of a stream until it ends, from either side."""
        ending = asyncio.ensure_future(self._ending.wait())
        try:
            while True:
                reading = asyncio.ensure_future(context.read())
                done, _ = await asyncio.wait(
                    (reading, ending), timeout=rpc.idle_seconds, return_when=asyncio.FIRST_COMPLETED
                )
                if reading not in done:
                    reading.cancel()
                    raise _stopping() if ending in done else _silent()
                data = reading.result()
                if data is grpc.aio.EOF:
                    return
                yield await _read(rpc, data)
        finally:
            ending.cancel()


async def _one(rpc: Rpc, context: grpc.aio.ServicerContext) -> Message:
    """The only message of a call; raises CallFailed."""
    try:
        async with asyncio.timeout(READ_SECONDS if rpc.scopes else STRANGERS_READ_SECONDS):
            data = await context.read()
    except TimeoutError:
        raise CallFailed(grpc.StatusCode.DEADLINE_EXCEEDED, "the message comes too slowly") from None
    if data is grpc.aio.EOF:
        raise CallFailed(grpc.StatusCode.INVALID_ARGUMENT, "the call has no message")
    return await _read(rpc, data)


async def _read(rpc: Rpc | StreamRpc, data: bytes) -> Message:
    if not rpc.scopes and len(data) > STRANGERS_BYTES:
        raise CallFailed(grpc.StatusCode.RESOURCE_EXHAUSTED, f"the message is larger than {STRANGERS_BYTES} bytes")
    kind = rpc.request
    try:
        if len(data) <= INLINE_BYTES:
            return kind.FromString(data)
        return await asyncio.to_thread(kind.FromString, data)
    except DecodeError:
        raise CallFailed(grpc.StatusCode.INVALID_ARGUMENT, f"the message is no {kind.DESCRIPTOR.full_name}") from None


def _stopping() -> CallFailed:
    return CallFailed(grpc.StatusCode.UNAVAILABLE, "the server is ending: open the stream again")


def _silent() -> CallFailed:
    return CallFailed(grpc.StatusCode.DEADLINE_EXCEEDED, "the stream was silent for too long")


def _trailers(call: Call) -> tuple[tuple[str, str], ...]:
    return tuple({"x-request-id": call.request_id, **call.trailers}.items())


def _act(name: str) -> str:
    # As the audit log names acts: in lower case, `ModelInfer` is `model_infer`.
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("_")


async def _not_offered(_: object, context: grpc.aio.ServicerContext) -> None:
    await context.abort(grpc.StatusCode.UNIMPLEMENTED, "this server does not offer the method; see docs/grpc.md")


_NOT_OFFERED = grpc.stream_stream_rpc_method_handler(_not_offered)
