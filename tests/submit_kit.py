"""What tests of submits share: a gateway without a queue, a model that it would serve, and callers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import httpx
from sqlalchemy import select

from auth.grants import GrantSpec, set_grants
from auth.limits import EVERYTHING, Bounds, set_limits
from model_store import registry
from model_store.database import Sessions, transaction
from model_store.signature import Signature, TensorSpec
from model_store.tables import Variant
from tests.quiet_gateway import QuietGateway, bearer, quiet_gateway
from workers.tables import Job

MODEL = "double"
SUBMIT = f"/v1/models/{MODEL}:submit"
ROWS = {"instances": [[1.0, 2.0]]}
SIGNATURE = Signature((TensorSpec("x", "float32", (None, 2)),), (TensorSpec("y", "float32", (None, 2)),))


@contextlib.contextmanager
def submitting(folder: Path, **settings: object) -> Iterator[QuietGateway]:
    """A gateway that accepts jobs for `double`; nobody lays them out or runs them."""
    folder.mkdir(exist_ok=True)
    with quiet_gateway(folder, **settings) as gateway:
        make_available(gateway.parts.sessions)
        gateway.parts.snapshot.refresh()
        yield gateway


def make_available(sessions: Sessions, model: str = MODEL) -> None:
    """The model's first version, unless there is one."""
    variant = Variant(name="onnx", runtime="onnx", digest="e" * 64, size_bytes=9, memory_bytes=1000)
    with transaction(sessions) as session:
        version, new = registry.publish(
            session, model, format="onnx", digest="d" * 64, size_bytes=9, uploaded_by="test"
        )
        if new:
            registry.make_available(
                session, model, version.number, signature=SIGNATURE, variant="onnx", variants=[variant], max_batch=64,
                max_parallelism=2, batch_seconds=0.001, report={"steps": []},
            )  # fmt: skip


def caller(gateway: QuietGateway, name: str = "caller", *models: str, bounds: Bounds | None = None) -> dict[str, str]:
    """The headers of a new client that may use these models, or `double`."""
    client_id, secret = gateway.client(name)
    with transaction(gateway.parts.sessions) as session:
        set_grants(session, client_id, [GrantSpec(model) for model in models or (MODEL,)])
        if bounds is not None:
            set_limits(session, client_id, {EVERYTHING: bounds})
    gateway.parts.snapshot.refresh()
    return bearer(gateway.token(client_id, secret))


def submit(http: httpx.Client, headers: dict[str, str], rows: object = ROWS, **options: str) -> httpx.Response:
    """Submit with options, whose names are written with underscores."""
    named = {name.replace("_", "-"): value for name, value in options.items()}
    return http.post(SUBMIT, json=rows, headers={**headers, **named})


def jobs_of(sessions: Sessions) -> list[Job]:
    """All jobs, in the order in which they were accepted."""
    with transaction(sessions, write=False) as session:
        return list(session.scalars(select(Job).order_by(Job.number)))
