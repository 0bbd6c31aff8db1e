"""What tests of rights share: clients with grants and their tokens, and models that are served, without a worker."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence

from auth import clients
from auth.grants import GrantSpec, set_grants
from auth.scopes import Scope
from auth.tokens import Issuer
from gateway.parts import Parts
from model_store import registry
from model_store.database import transaction
from model_store.signature import Signature, TensorSpec
from model_store.tables import Variant
from workers import jobs
from workers.lanes import Lane, Priority

SIGNATURE = Signature((TensorSpec("x", "float32", (None, 2)),), (TensorSpec("y", "float32", (None, 1)),))


def add_client(parts: Parts, name: str, scopes: Collection[Scope], grants: Sequence[GrantSpec] = ()) -> str:
    """The id of a new client."""
    with transaction(parts.sessions) as session:
        made, _ = clients.create(session, name, scopes, parts.settings.pepper)
        set_grants(session, made.id, grants)
    parts.snapshot.refresh()
    return made.id


def token(
    parts: Parts, client_id: str, scopes: Collection[Scope], *, audience: str = "", age_seconds: int = 0
) -> dict[str, str]:
    """The Authorization header of a token signed with the gateway's own key."""
    settings = parts.settings
    issuer = Issuer(
        parts.keys, issuer=settings.issuer, audience=audience or settings.audience, seconds=settings.token_seconds
    )
    text, _ = issuer.issue(client_id, scopes, issued_at=int(time.time()) - age_seconds)
    return {"authorization": f"Bearer {text}"}


def serve(parts: Parts, model: str, versions: int = 1, labels: Collection[str] = ()) -> None:
    """Further versions of a model, all AVAILABLE; the labels point to the last one."""
    with transaction(parts.sessions) as session:
        for _ in range(versions):
            version, _ = registry.publish(
                session, model, format="onnx", digest=f"{time.monotonic_ns():064x}", size_bytes=9, uploaded_by="cli_x"
            )
            variant = Variant(name="onnx", runtime="onnx", digest="e" * 64, size_bytes=9, memory_bytes=1)
            registry.make_available(
                session, model, version.number, signature=SIGNATURE, variant="onnx", variants=[variant], max_batch=8,
                max_parallelism=1, batch_seconds=0.001, report={"steps": []},
            )  # fmt: skip
        for label in labels:
            registry.set_label(session, model, label, version.number)
    parts.snapshot.refresh()


def queue_job(parts: Parts, client_id: str, model: str, job_id: str | None = None) -> str:
    """The id of a job that waits."""
    draft = jobs.Draft(
        job_id or jobs.new_id(), Lane(model, 1, Priority.BULK, client_id), "tensorflow_serving", 1, b"{}", 60
    )
    with transaction(parts.sessions) as session:
        jobs.accept(session, [draft], 1)
    return draft.id
