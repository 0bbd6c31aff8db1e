"""An installation in use: a gateway and a serving worker as processes, and models for every kind of request."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx
import onnx
import pytest
from onnx import TensorProto, helper

from model_store.database import transaction
from model_store.model_settings import Metadata, ModelSettings, replace_settings
from model_store.registry import publish, set_label
from model_store.signature import Signature, TensorSpec
from sluice.listening_ports import free_port
from tests.conftest import RedisServer
from tests.forgery import decoded
from tests.processes import Cluster, children, cluster
from tests.queue_kit import doubling_model, serve_model

LOOKED_UP = Signature((TensorSpec("n", "int64", (None,)),), (TensorSpec("y", "float32", (None,)),))
# Models that give what they are given: dtype, shape of an instance, input specification.
DESCRIBED: dict[str, tuple[str, tuple[int, ...], str]] = {
    "picture": (
        "float32",
        (4, 6, 3),
        '{"kind":"image","height":4,"width":6,"channels":3,"resize":"stretch","range":[-1,1],"mean":[0.1,0.2,0.3]}',
    ),
    "sound": ("float32", (80,), '{"kind":"audio","sample_rate":800,"channels":1,"seconds":0.1,"range":[-1,1]}'),
    "words": ("string", (1,), '{"kind":"text","lowercase":true,"max_characters":20}'),
}
WHOLE = Signature((TensorSpec("n", "int64", (None, 3)),), (TensorSpec("doubled", "int64", (None, 3)),))


@pytest.fixture(scope="session")
def serving(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """With `double` and `slow`; `times` 1 (times 2, label `stable`) and 2 (times 3); `whole` and `table` for integers;
    `unready`, which nobody prepares; and `DESCRIBED`, which answer with what files became.

    Nobody changes what it has: tests that disable a client or withdraw a grant make a client of their own for it.
    """
    folder = tmp_path_factory.mktemp("serving")
    with cluster(folder, redis_server.url, f"sqlite:///{folder / 'sluice.db'}") as made:
        for factor in (2.0, 3.0):
            serve_model(made.sessions, made.artifacts, doubling_model(folder / f"{factor}.onnx", factor), "times")
        serve_model(made.sessions, made.artifacts, whole_numbers(folder / "whole.onnx"), "whole", signature=WHOLE)
        serve_model(made.sessions, made.artifacts, table(folder / "table.onnx"), "table", signature=LOOKED_UP)
        for name, described in DESCRIBED.items():
            serve_model(
                made.sessions, made.artifacts, unchanged(folder / f"{name}.onnx", name), name, signature=taking(name)
            )
            with transaction(made.sessions) as session:
                replace_settings(session, name, ModelSettings(metadata=Metadata(input_specification=described[2])))
        with transaction(made.sessions) as session:
            set_label(session, "times", "stable", 1)
            publish(session, "unready", format="onnx", digest="0" * 64, size_bytes=1, uploaded_by="test")
        made.start_worker(worker_metrics_port=free_port())
        made.start_gateway(packing_bytes=64 * 1024, grpc_port=free_port())
        made.wait_for_slots(2)
        yield made


@pytest.fixture(scope="session")
def caller(serving: Cluster) -> httpx.Client:
    """A client with every scope and grants on every model."""
    return serving.caller("double", "slow", "table", "times", "unready", "whole")


def taking(name: str) -> Signature:
    """What a model of `DESCRIBED` takes, and gives as it is."""
    dtype, shape, _ = DESCRIBED[name]
    return Signature((TensorSpec("x", dtype, (None, *shape)),), (TensorSpec("y", dtype, (None, *shape)),))


def unchanged(path: Path, name: str) -> Path:
    """An ONNX file that answers with what it is given."""
    dtype, shape, _ = DESCRIBED[name]
    kind = TensorProto.STRING if dtype == "string" else TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "unchanged",
        [helper.make_tensor_value_info("x", kind, ["batch", *shape])],
        [helper.make_tensor_value_info("y", kind, ["batch", *shape])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def whole_numbers(path: Path) -> Path:
    """An ONNX file with doubled = 2 * n for rows of three integers."""
    graph = helper.make_graph(
        [helper.make_node("Add", ["n", "n"], ["doubled"])],
        "whole",
        [helper.make_tensor_value_info("n", TensorProto.INT64, ["batch", 3])],
        [helper.make_tensor_value_info("doubled", TensorProto.INT64, ["batch", 3])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def table(path: Path, values: Sequence[float] = (0.5, 1.5, 2.5, 3.5)) -> Path:
    """An ONNX file that looks n up in a table of these values, and fails for what is not in it."""
    graph = helper.make_graph(
        [helper.make_node("Gather", ["values", "n"], ["y"])],
        "table",
        [helper.make_tensor_value_info("n", TensorProto.INT64, ["batch"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch"])],
        [helper.make_tensor("values", TensorProto.FLOAT, [len(values)], list(values))],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def submit(caller: httpx.Client, model: str, *row: float) -> str:
    """The id of a new job with one instance."""
    answer = caller.post(f"/v1/models/{model}:submit", json={"instances": [list(row)]})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def ended(caller: httpx.Client, job: str) -> dict[str, object]:
    """The job's document once it has ended."""
    found: dict[str, object] = caller.get(f"/v1/jobs/{job}", params={"wait": 30}).json()
    assert found["finished_at"] is not None, found
    return found


def client_id_of(caller: httpx.Client) -> str:
    """Who a client is, by its token."""
    payload = json.loads(decoded(caller.headers["authorization"].split(".")[1]))
    return str(payload["client_id"])


@contextlib.contextmanager
def paused_workers(serving: Cluster) -> Iterator[None]:
    """Within this context no prediction process does anything: what is submitted stays queued."""
    held = children(serving.processes[0].pid)
    for pid in held:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in held:
            os.kill(pid, signal.SIGCONT)
