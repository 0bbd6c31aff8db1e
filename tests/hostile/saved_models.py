"""M66: SavedModels, which are programs; as a file of their own, and packed."""

from __future__ import annotations

import io
import tarfile

from tests.hostile.bait import Bait, Case
from tests.hostile.graphs import field
from tests.hostile.zips import Entry, pack

OPERATIONS = ("Identity", "WriteFile", "DatasetFromGraph", "DebugIdentity", "PrintV2", "ImmutableConst")


def saved_model(operation: str, bait: Bait) -> bytes:
    """A SavedModel whose graph has one operation, with the mark's path as its constant."""
    nodes = [
        field(1, b"path")
        + field(2, b"Const")
        + field(5, field(1, b"value") + field(2, field(2, str(bait.mark).encode()))),
        field(1, b"run") + field(2, operation.encode()) + field(3, b"path"),
    ]
    graph = b"".join(field(1, node) for node in nodes)
    return b"\x08\x01" + field(2, field(2, graph))  # schema version 1; MetaGraphDef.graph_def


def tarred(content: bytes) -> bytes:
    """As a folder in a tar archive."""
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w") as tar:
        member = tarfile.TarInfo("model/saved_model.pb")
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    return held.getvalue()


def _zipped(operation: str, bait: Bait) -> bytes:
    return pack([Entry("saved_model.pb", saved_model(operation, bait))])


CASES = (
    *(
        Case(
            "M66",
            f"a zipped SavedModel with {operation}",
            "zip_member",
            "saved_model.pb",
            lambda bait, operation=operation: _zipped(operation, bait),
        )
        for operation in OPERATIONS
    ),
    Case("M66", "a SavedModel named keras", "zip_structure", "no zip", lambda bait: saved_model("WriteFile", bait)),
    Case("M66", "a SavedModel named onnx", "onnx_structure", "ONNX", lambda bait: saved_model("WriteFile", bait),
         format="onnx"),
)  # fmt: skip
