"""A gateway that serves gRPC with small bounds, in the tests' own process, and clients of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from auth.grants import ADMINISTRATION, GrantSpec
from auth.scopes import Scope
from gateway.grpc_services.messages import Fields
from model_store.signature import Signature, TensorSpec
from sluice.listening_ports import free_port
from tests.grpc_kit import GrpcCaller, Refused, token_of
from tests.live_gateway import DIGITS, LiveGateway, live_gateway, upload

# Its description is more than a caller has room for at first.
LONG = Signature(
    (TensorSpec("x", "float32", (None, 1)),),
    tuple(TensorSpec(f"{place}-{'o' * 200}", "float32", (None, 1)) for place in range(1000)),
)
LIMIT_BYTES = 64 * 1024
ZEROS = np.zeros((1, 28, 28), np.float32)


@contextlib.contextmanager
def grpc_gateway(folder: Path, redis_url: str, **bounds: object) -> Iterator[LiveGateway]:
    """With version 1 of `digits`, `moved` and `long`, and nobody to answer predictions."""
    port, prefix = free_port(), f"grpc-{folder.name}"
    with live_gateway(
        folder, redis_url=redis_url, key_prefix=prefix, grpc_port=port, body_limit_bytes=LIMIT_BYTES, **bounds
    ) as made:
        with made.client([Scope.MODELS_WRITE], [GrantSpec("*", actions=ADMINISTRATION)]) as admin:
            for model, signature in (("digits", DIGITS), ("moved", DIGITS), ("long", LONG)):
                assert upload(admin, model).status_code == 202
                made.make_available(model, 1, signature)
        yield made


def token_for(gateway: LiveGateway, *models: str) -> str:
    """A token of a new client that may do everything with these models."""
    found = [GrantSpec(model) for model in models] + [GrantSpec(model, actions=ADMINISTRATION) for model in models]
    with gateway.client([Scope.PREDICT, Scope.MODELS_READ, Scope.MODELS_WRITE], found) as made:
        return token_of(made)


def address(gateway: LiveGateway) -> str:
    return f"127.0.0.1:{gateway.parts.settings.grpc_port}"


def code_of(caller: GrpcCaller, name: str, request: Fields = None, *metadata: tuple[str, str]) -> str:
    """The code with which a call fails."""
    with pytest.raises(Refused) as caught:
        caller.call(name, request, *metadata)
    return caught.value.code
