"""Failures of gRPC calls: each status of HTTP as one of gRPC's codes, and what goes beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import grpc

from model_store.errors import SluiceError

Trailers = Sequence[tuple[str, str]]

# What a client library waits before it calls again by itself (gRPC's A6, "pushback").
PUSHBACK = "grpc-retry-pushback-ms"
MOST_CHARACTERS = 1000

# google/rpc/code.proto names the status of HTTP beside each code; a 429 and a 413 are both of something used up.
CODES: Mapping[int, grpc.StatusCode] = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    405: grpc.StatusCode.UNIMPLEMENTED,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    409: grpc.StatusCode.ABORTED,
    412: grpc.StatusCode.FAILED_PRECONDITION,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    499: grpc.StatusCode.CANCELLED,
    501: grpc.StatusCode.UNIMPLEMENTED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
    507: grpc.StatusCode.RESOURCE_EXHAUSTED,
}


class CallFailed(Exception):
    """How a call ends that does not succeed; the message is for the caller."""

    def __init__(self, code: grpc.StatusCode, message: str, trailers: Trailers = ()) -> None:
        super().__init__(message)
        self.code = code
        # It may name what was asked for, which has no bound of its own.
        self.message = message[:MOST_CHARACTERS]
        self.trailers = tuple(trailers)


def code_of(status: int) -> grpc.StatusCode:
    """The code of a status of HTTP that is an error."""
    known = CODES.get(status)
    if known is not None:
        return known
    return grpc.StatusCode.INTERNAL if status >= 500 else grpc.StatusCode.INVALID_ARGUMENT


def failure_of(error: SluiceError) -> CallFailed:
    """An error of ours as a call's end."""
    return CallFailed(code_of(error.status), error.message, pushback(error.status, error.retry_after_seconds))


def pushback(status: int, retry_after_seconds: int | None) -> Trailers:
    """When to call again: only where the server says so, and only for what will pass."""
    if retry_after_seconds is None or status not in (429, 503):
        return ()
    return ((PUSHBACK, str(retry_after_seconds * 1000)),)
