"""Methods of gRPC services: what each takes, which scopes open it, and how it is answered.

A method is served only as one of these, and each names its scopes: there is none that nobody thought about.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from google.protobuf.message import Message

from auth.scopes import Scope
from gateway.grpc_services.calls import Call
from gateway.grpc_services.messages import Fields

# Health, and what public documents say: open to whoever reaches the port.
PUBLIC: tuple[Scope, ...] = ()
Answer = Callable[[Call, Fields], Awaitable[Message]]
Answers = Callable[[Call, AsyncIterator[Fields]], AsyncGenerator[Message, None]]


@dataclass(frozen=True, slots=True)
class Rpc:
    """A method with one message each way; any of `scopes` will do."""

    name: str
    request: type[Message]
    scopes: tuple[Scope, ...]
    answer: Answer


@dataclass(frozen=True, slots=True)
class StreamRpc:
    """A method whose messages come and go in streams. A stream may be silent for `idle_seconds`, and is ended then."""

    name: str
    request: type[Message]
    scopes: tuple[Scope, ...]
    answer: Answers
    idle_seconds: float


@dataclass(frozen=True, slots=True)
class Service:
    """A service by its full name, such as `inference.GRPCInferenceService`."""

    name: str
    rpcs: tuple[Rpc | StreamRpc, ...]
