"""Versions in a database, without their files: what tests of the registry and of the catalog begin with."""

from __future__ import annotations

from model_store.catalog import Catalog, load_catalog
from model_store.database import Sessions, transaction
from model_store.registry import make_available, publish
from model_store.signature import Signature, TensorSpec
from model_store.tables import Variant

DIGITS = Signature((TensorSpec("image", "float32", (None, 28, 28)),), (TensorSpec("digit", "float32", (None, 10)),))


def upload(sessions: Sessions, model: str = "mnist", content: int = 1) -> tuple[int, bool]:
    """Publishes bytes that differ by `content`; the version's number, and whether it is new."""
    with transaction(sessions) as session:
        version, new = publish(
            session, model, format="keras", digest=f"{content:064x}", size_bytes=10, uploaded_by="admin"
        )
        return version.number, new


def prepare(sessions: Sessions, number: int, model: str = "mnist") -> bool:
    onnx = Variant(name="onnx", runtime="onnx", digest=f"{number:e>64}", size_bytes=9, memory_bytes=5_000_000)
    savedmodel = Variant(name="savedmodel", runtime="tensorflow", digest="f" * 64, size_bytes=20, memory_bytes=9)
    with transaction(sessions) as session:
        return make_available(
            session,
            model,
            number,
            signature=DIGITS,
            variant="onnx",
            variants=[onnx, savedmodel],
            max_batch=32,
            max_parallelism=3,
            batch_seconds=0.001,
            report={"steps": []},
        )


def catalog(sessions: Sessions) -> Catalog:
    with transaction(sessions, write=False) as session:
        return load_catalog(session)
