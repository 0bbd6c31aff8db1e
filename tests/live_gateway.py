"""A whole gateway for tests: real HTTP on a port of its own, real Redis and SQL; nothing of it is replaced."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import httpx
import uvicorn
from starlette.types import ASGIApp

from auth import clients, grants
from auth.grants import ADMINISTRATION, GrantSpec
from auth.scopes import Scope
from gateway.app import create_app
from gateway.certificates import LiveContext
from gateway.connections import ConnectionBounds
from gateway.listening import server_config
from gateway.parts import Parts
from gateway.settings import GatewaySettings
from model_store import registry
from model_store.artifacts import Artifacts
from model_store.database import transaction
from model_store.further_signatures import NO_FURTHER, FurtherSignatures
from model_store.signature import Signature, TensorSpec
from model_store.tables import Variant
from tests.databases import make_tables
from tests.plain_http import NO_TLS

KERAS = b"PK\x03\x04 and what else belongs to an archive"
# Of who administers every model, but no clients.
EVERY_MODEL = GrantSpec("*", actions=ADMINISTRATION)
BOUNDS = ConnectionBounds(connections=1000, per_address=0, least_bytes_per_second=4096)
DIGITS = Signature((TensorSpec("image", "float32", (None, 28, 28)),), (TensorSpec("digit", "float32", (None, 10)),))


class LiveGateway:
    """A gateway that listens, and shortcuts to what a test has to bring about in it."""

    def __init__(self, url: str, parts: Parts) -> None:
        self.url = url
        self.parts = parts
        self._count = 0

    @property
    def artifacts(self) -> Artifacts:
        return self.parts.artifacts

    def client(self, scopes: Sequence[Scope], grants_of: Sequence[GrantSpec] = ()) -> httpx.Client:
        """An HTTP client with a token of a new client that has these scopes and grants."""
        self._count += 1
        with transaction(self.parts.sessions) as session:
            made, secret = clients.create(session, f"c{self._count}", scopes, self.parts.settings.pepper)
            grants.set_grants(session, made.id, grants_of)
        self.parts.snapshot.refresh()
        form = {"grant_type": "client_credentials"}
        answer = httpx.post(f"{self.url}/oauth/token", data=form, auth=(made.id, secret), verify=NO_TLS)
        headers = {"authorization": f"Bearer {answer.raise_for_status().json()['access_token']}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=30, verify=NO_TLS)

    def make_available(
        self, model: str, number: int, signature: Signature = DIGITS, further: FurtherSignatures = NO_FURTHER
    ) -> None:
        """What the preparation of a good model ends with."""
        variant = Variant(name="onnx", runtime="onnx", digest="e" * 64, size_bytes=9, memory_bytes=1_000_000)
        with transaction(self.parts.sessions) as session:
            made = registry.make_available(
                session,
                model,
                number,
                signature=signature,
                variant="onnx",
                variants=[variant],
                max_batch=64,
                max_parallelism=2,
                batch_seconds=0.001,
                report={"steps": [{"step": "inspect", "outcome": "passed"}]},
                further=further,
            )
        assert made
        self.parts.snapshot.refresh()

    def refuse(self, model: str, number: int, code: str, message: str) -> None:
        """What the preparation of a bad one ends with."""
        with transaction(self.parts.sessions) as session:
            assert registry.refuse(session, model, number, code=code, message=message, report={"steps": []})
        self.parts.snapshot.refresh()


@contextlib.contextmanager
def live_gateway(folder: Path, **settings: object) -> Iterator[LiveGateway]:
    """A gateway with all its files in `folder`; `settings` name at least the Redis."""
    made = GatewaySettings(
        **{
            "database_url": f"sqlite:///{folder / 'sluice.db'}",
            "store_dir": folder / "store",
            "keys_dir": folder / "keys",
            "client_secret_key": "k" * 32,
            "master_key": "m" * 43,
            **settings,
        }
    )
    make_tables(made)
    app = create_app(made)
    with listening(app) as url:
        yield LiveGateway(url, app.state.parts)


@contextlib.contextmanager
def listening(
    app: ASGIApp,
    lifespan: Literal["on", "off"] = "on",
    *,
    tls: LiveContext | None = None,
    bounds: ConnectionBounds = BOUNDS,
) -> Iterator[str]:
    """The application under the gateway's own server in a thread, on a port of its own; its address."""
    config = server_config(app, ("127.0.0.1", 0), bounds, tls)
    config.lifespan = lifespan
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        until = time.monotonic() + 20
        while not server.started:
            assert thread.is_alive()
            assert time.monotonic() < until
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"{'http' if tls is None else 'https'}://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(20)


def upload(admin: httpx.Client, model: str, data: bytes = KERAS) -> httpx.Response:
    """Sends a new version's file; `admin` has the scope."""
    return admin.put(f"/admin/models/{model}/versions", content=data)


def eventually(holds: Callable[[], bool]) -> None:
    """Waits for what happens in a process or thread of its own."""
    until = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < until, "it did not happen within 20 seconds"
        time.sleep(0.02)


def refused(answer: httpx.Response, status: int, code: str) -> bool:
    """Whether an answer is the error with this status and code, as RFC 9457 wants it."""
    assert answer.headers["content-type"] == "application/problem+json"
    return (answer.status_code, answer.json()["status"], answer.json()["code"]) == (status, status, code)
