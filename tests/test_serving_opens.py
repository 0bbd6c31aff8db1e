"""What a serving worker reads of the store: variants, and never what was uploaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from model_store import registry
from model_store.database import transaction
from model_store.tables import Variant
from tests.conftest import RedisServer
from tests.opened_files import opened_files
from tests.processes import cluster
from tests.queue_kit import SIGNATURE, doubling_model

pytestmark = pytest.mark.long  # it waits for what takes its time


def test_a_worker_that_serves_a_converted_version_never_opens_the_uploaded_file(
    redis_server: RedisServer, tmp_path: Path
):
    path = tmp_path / "upload.keras"
    path.write_bytes(b"what somebody uploaded")
    with cluster(tmp_path, redis_server.url, f"sqlite:///{tmp_path / 'sluice.db'}") as made:
        upload, variant = (
            made.artifacts.add_file(path),
            made.artifacts.add_file(doubling_model(tmp_path / "made.onnx", 5)),
        )
        with transaction(made.sessions) as session:
            registry.publish(
                session,
                "converted",
                format="keras",
                digest=upload.digest,
                size_bytes=upload.size_bytes,
                uploaded_by="t",
            )
            serves = Variant(
                name="onnx", runtime="onnx", digest=variant.digest, size_bytes=variant.size_bytes, memory_bytes=1000
            )
            registry.make_available(
                session, "converted", 1, signature=SIGNATURE, variant="onnx", variants=[serves], max_batch=8,
                max_parallelism=1, batch_seconds=0.0001, report={},
            )  # fmt: skip

        with opened_files(tmp_path / "store") as opened:
            made.start_worker()
            made.start_gateway()
            made.wait_for_slots(2)
            answer = made.caller("converted").post("/v1/models/converted:predict", json={"instances": [[1.0, 2.0]]})

    assert answer.json() == {"predictions": [[5.0, 10.0]]}
    assert made.artifacts.path(variant.digest) in opened
    assert made.artifacts.path(upload.digest) not in opened
    assert made.artifacts.path(upload.digest).read_bytes() == b"what somebody uploaded"
