"""What tests of versions share: an installation that serves, versions with golden samples, an administrator."""

from __future__ import annotations

from pathlib import Path

import httpx
import numpy as np
from sqlalchemy.orm import Session

from auth import clients
from auth.grants import ADMINISTRATION, USE, GrantSpec, set_grants
from auth.scopes import Scope
from model_store import golden, registry
from model_store.artifacts import Artifacts
from model_store.database import Sessions, transaction
from model_store.tables import State, Variant, Version
from tests.processes import PEPPER, Cluster
from tests.queue_kit import SIGNATURE, doubling_model, wait_until
from workers.settings import WorkerSettings

INPUTS = {"x": np.array([[1, 2], [3, 4], [-5, 0.5]], np.float32)}


def publish(
    sessions: Sessions,
    artifacts: Artifacts,
    folder: Path,
    model: str,
    factor: float,
    *,
    golden_factor: float | None = None,
    warming: bool = False,
) -> int:
    """A version with y = factor * x, prepared, and AVAILABLE unless it is `warming`; its golden samples say
    y = `golden_factor` * x, the same where that is not given. The version's number."""
    path = doubling_model(folder / f"{model}-{factor}.onnx", factor)
    stored = artifacts.add_file(path)
    samples = folder / "samples.npz"
    samples.write_bytes(golden.pack(INPUTS, {"y": INPUTS["x"] * np.float32(golden_factor or factor)}))
    kept = artifacts.add_file(samples)
    variant = Variant(
        name="onnx", runtime="onnx", digest=stored.digest, size_bytes=stored.size_bytes, memory_bytes=100_000
    )
    with transaction(sessions) as session:
        version, _ = registry.publish(
            session, model, format="onnx", digest=stored.digest, size_bytes=stored.size_bytes, uploaded_by="test"
        )
        _write_down(session, version, variant, kept.digest, warming=warming)
        return version.number


def let_serve(sessions: Sessions, model: str, number: int) -> None:
    """What preparation does with a version that is warm."""
    with transaction(sessions) as session:
        version = session.get_one(Version, (model, number))
        found = session.get_one(Variant, (model, number, "onnx"))
        variant = Variant(
            name="onnx", runtime="onnx", digest=found.digest, size_bytes=found.size_bytes, memory_bytes=100_000
        )
        _write_down(session, version, variant, version.golden, warming=False)


def _write_down(session: Session, version: Version, variant: Variant, samples: str | None, *, warming: bool) -> None:
    assert registry.make_available(
        session, version.model, version.number, signature=SIGNATURE, variant="onnx", variants=[variant], max_batch=8,
        max_parallelism=2, batch_seconds=0.0001, report={}, golden=samples, warming=warming,
    )  # fmt: skip


def serve(cluster: Cluster, model: str, *factors: float) -> None:
    """AVAILABLE versions of a model, from the first number on."""
    for factor in factors:
        publish(cluster.sessions, cluster.artifacts, cluster.folder, model, factor)


def states(sessions: Sessions, model: str) -> dict[int, str]:
    """The states of a model's versions."""
    with transaction(sessions, write=False) as session:
        found = session.query(Version).filter_by(model=model).order_by(Version.number)
        return {version.number: version.state for version in found}


def wait_for_end(sessions: Sessions, model: str, number: int) -> None:
    """Until the sweep has ended a version that is leaving."""
    wait_until(lambda: states(sessions, model)[number] == State.END, 20, message="the version does not end")


def administrator(cluster: Cluster) -> httpx.Client:
    """An HTTP client that may use and administer every model, once the gateway knows it."""
    with transaction(cluster.sessions) as session:
        made, secret = clients.create(
            session, f"administrator-{len(cluster.clients)}", [Scope.MODELS_WRITE, Scope.PREDICT, Scope.JOBS],
            PEPPER.encode(),
        )  # fmt: skip
        set_grants(session, made.id, [GrantSpec("*", actions=USE | ADMINISTRATION)])
    url = cluster.gateways[0]
    form = {"grant_type": "client_credentials"}
    wait_until(lambda: httpx.post(f"{url}/oauth/token", data=form, auth=(made.id, secret)).status_code == 200)
    token = httpx.post(f"{url}/oauth/token", data=form, auth=(made.id, secret)).json()["access_token"]
    client = httpx.Client(base_url=url, headers={"authorization": f"Bearer {token}"}, timeout=60)
    cluster.clients.append(client)
    return client


def worker_settings_of(cluster: Cluster) -> WorkerSettings:
    """The settings of the cluster's workers, for what a test runs in its own process."""
    return WorkerSettings(
        redis_url=cluster.redis_url,  # type: ignore[arg-type] # pydantic makes a secret of it
        database_url=cluster.database_url,
        store_dir=cluster.folder / "store",
        scratch_dir=cluster.folder / "scratch",
        key_prefix=cluster.key_prefix,
    )
