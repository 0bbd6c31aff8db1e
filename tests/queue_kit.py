"""What tests of the queue share: served models with one weight, a slot that runs in a thread, a caller."""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import redis
from onnx import TensorProto, helper, numpy_helper

from auth import clients
from auth.grants import Action, GrantSpec, set_grants
from auth.scopes import Scope
from model_store import registry
from model_store.artifacts import Artifacts
from model_store.database import Sessions, connect, sessions_of, transaction
from model_store.signature import Signature, TensorSpec
from model_store.tables import Variant
from tests.databases import make_tables
from workers import redis_link
from workers.bells import ring
from workers.broker import broker
from workers.child import Child, make_child
from workers.drain import Slot
from workers.lanes import GROUP, RING_FIELD, Answer, Keys, Lane, Priority, pack_bundle, unpack_answers
from workers.protocols.body import Body
from workers.publisher import Publisher
from workers.redis_link import Wire
from workers.ringer import Ringer
from workers.session import run_session
from workers.settings import WorkerSettings

SIGNATURE = Signature((TensorSpec("x", "float32", (None, 2)),), (TensorSpec("y", "float32", (None, 2)),))


def doubling_model(path: Path, factor: float = 2.0) -> Path:
    """An ONNX file with y = factor * x for rows of two numbers."""
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "factor"], ["y"])],
        "doubling",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 2])],
        [helper.make_tensor("factor", TensorProto.FLOAT, [1], [factor])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path


def slow_model(path: Path) -> Path:
    """An ONNX file with y = 2 * x after as many rounds of multiplying matrices as the largest x[:, 1] says.

    A round takes about a tenth of a millisecond: the caller chooses how long an inference takes, and whether it ends.
    """
    side = 128
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["keep"], ["keep_out"]),
            helper.make_node("MatMul", ["matrix", "eye"], ["matrix_out"]),
        ],
        "round",
        [
            helper.make_tensor_value_info("round_number", TensorProto.INT64, []),
            helper.make_tensor_value_info("keep", TensorProto.BOOL, []),
            helper.make_tensor_value_info("matrix", TensorProto.FLOAT, [side, side]),
        ],
        [
            helper.make_tensor_value_info("keep_out", TensorProto.BOOL, []),
            helper.make_tensor_value_info("matrix_out", TensorProto.FLOAT, [side, side]),
        ],
    )
    eye = np.eye(side, dtype=np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["x", "second"], ["rounds_column"], axis=1),
            helper.make_node("ReduceMax", ["rounds_column"], ["rounds_float"], keepdims=0),
            helper.make_node("Cast", ["rounds_float"], ["rounds"], to=TensorProto.INT64),
            helper.make_node("Loop", ["rounds", "go_on", "eye"], ["last"], body=body),
            helper.make_node("ReduceSum", ["last"], ["total"], keepdims=0),
            helper.make_node("Div", ["total", "side"], ["one"]),
            helper.make_node("Mul", ["x", "factor"], ["doubled"]),
            helper.make_node("Mul", ["doubled", "one"], ["y"]),
        ],
        "slow",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 2])],
        [
            numpy_helper.from_array(np.array([1], np.int64), "second"),
            numpy_helper.from_array(np.array(True), "go_on"),
            numpy_helper.from_array(eye, "eye"),
            numpy_helper.from_array(np.array(float(side), np.float32), "side"),
            numpy_helper.from_array(np.array(2.0, np.float32), "factor"),
        ],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def serve_model(
    sessions: Sessions,
    artifacts: Artifacts,
    path: Path,
    model: str = "double",
    *,
    batch_seconds: float = 0.0001,
    signature: Signature = SIGNATURE,
    report: Mapping[str, Any] | None = None,
    runtime: str = "onnx",
) -> int:
    """Register a model's file as an AVAILABLE version; a `batch_seconds` over 2 ms makes its batches run in threads."""
    stored = artifacts.add_file(path)
    with transaction(sessions) as session:
        version, _ = registry.publish(
            session, model, format=runtime, digest=stored.digest, size_bytes=stored.size_bytes, uploaded_by="test"
        )
        variant = Variant(
            model=model,
            version=version.number,
            name=runtime,
            runtime=runtime,
            digest=stored.digest,
            size_bytes=stored.size_bytes,
            memory_bytes=100_000,
        )
        registry.make_available(
            session, model, version.number, signature=signature, variant=runtime, variants=[variant], max_batch=8,
            max_parallelism=2, batch_seconds=batch_seconds, report=report or {},
        )  # fmt: skip
        return version.number


def worker_settings(redis_url: str, database_url: str, folder: Path, **more: object) -> WorkerSettings:
    values: dict[str, object] = {
        "redis_url": redis_url,
        "database_url": database_url,
        "store_dir": folder / "store",
        "scratch_dir": folder / "scratch",
        "key_prefix": f"t{secrets.token_hex(4)}",
        "worker_name": f"w{secrets.token_hex(3)}",
        "worker_execution": "threads",  # a watchdog that ends processes would end the tests
    }
    return WorkerSettings(**{**values, **more})  # type: ignore[arg-type]


@dataclass
class Queue:
    """A database, a store with the model `double`, and the queue's names."""

    settings: WorkerSettings
    sessions: Sessions
    artifacts: Artifacts
    client: redis.Redis
    client_id: str
    version: int
    keys: Keys = field(init=False)
    opened: list[Child] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.keys = Keys(self.settings.key_prefix)

    def lane(
        self, priority: Priority = Priority.INTERACTIVE, client_id: str | None = None, model: str = "double"
    ) -> Lane:
        return Lane(model, self.version, priority, client_id or self.client_id)

    def child(self) -> Child:
        child = make_child(self.settings, Publisher(broker(self.settings)))
        self.opened.append(child)
        return child

    def close(self) -> None:
        for child in self.opened:
            child.publisher.close()
            child.client.close()
            child.sessions.kw["bind"].dispose()
        self.client.close()
        self.sessions.kw["bind"].dispose()


def make_queue(settings: WorkerSettings, folder: Path) -> Queue:
    make_tables(settings)
    sessions = sessions_of(connect(settings))
    artifacts = Artifacts.of(settings)
    version = serve_model(sessions, artifacts, doubling_model(folder / "double.onnx"))
    with transaction(sessions) as session:
        client, _ = clients.create(session, "tester", frozenset({Scope.PREDICT, Scope.JOBS}), b"p" * 32)
        set_grants(session, client.id, [GrantSpec("double", actions=frozenset(Action))])
        client_id = client.id
    return Queue(settings, sessions, artifacts, redis_link.connect(settings), client_id, version)


class RunningSlot:
    """One slot whose sessions run in a thread of the test, begun by rings as Celery would."""

    def __init__(self, queue: Queue, name: str = "slot", child: Child | None = None) -> None:
        self.queue = queue
        self.name = name
        self.child = child or queue.child()
        self.stopping = threading.Event()
        self.endings: list[str] = []
        self._threads: list[threading.Thread] = []
        self._wire = Wire(queue.client)

    def ring(self, lane: Lane, weight: float = 1.0) -> bool:
        """Ring for a lane as a gateway does; starts a session where the ring set the slot's key."""
        new = ring(self.queue.keys, self.queue.settings.pool, lane.name, self.name, weight)
        try:
            replies = self._wire.execute(new.commands)
        except redis.ConnectionError:
            replies = self._wire.execute(new.commands)  # Redis was restarted since
        if not new.started(replies):
            return False
        self.start(new.token)
        return True

    def start(self, token: str) -> None:
        slot = Slot(self.queue.settings.pool, self.name, token)
        thread = threading.Thread(
            target=lambda: self.endings.append(run_session(self.child, slot, self.stopping.is_set)), daemon=True
        )
        thread.start()
        self._threads.append(thread)

    def stop(self) -> None:
        self.stopping.set()
        if any(thread.is_alive() for thread in self._threads):
            # A session that waits for its bell would look up within a second.
            with contextlib.suppress(redis.RedisError):
                bell = self.queue.keys.bell(self.queue.settings.pool, self.name)
                self.queue.client.xadd(bell, {RING_FIELD: self.queue.lane(client_id="nobody").name})
        for thread in self._threads:
            thread.join(timeout=10)


class Caller:
    """Lays out predictions and collects answers, as a gateway does."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self.reply_to = queue.keys.replies(f"caller-{secrets.token_hex(3)}")
        self._number = 0
        self.answers: dict[int, list[Answer]] = {}

    def ask(
        self, lane: Lane, *rows: tuple[float, float], limit_ms: int = 20_000, through: redis.Redis | None = None
    ) -> list[int]:
        """One bundle with a prediction for each row; returns their numbers. `through` may be a pipeline."""
        bodies = [Body(b'{"instances": [[%r, %r]]}' % row) for row in rows]
        return self.send(lane, *bodies, limit_ms=limit_ms, through=through)

    def send(self, lane: Lane, *bodies: Body, limit_ms: int = 20_000, through: redis.Redis | None = None) -> list[int]:
        """The same with bodies of any dialect."""
        numbers = list(range(self._number + 1, self._number + 1 + len(bodies)))
        self._number += len(bodies)
        bundle = b"".join(pack_bundle(self.reply_to, limit_ms, zip(numbers, bodies, strict=True)))
        client = self.queue.client if through is None else through
        client.xadd(self.queue.keys.lane(lane), {"b": bundle})
        return numbers

    def take(self, packed: bytes) -> None:
        for answer in unpack_answers(packed):
            self.answers.setdefault(answer.number, []).append(answer)

    def collect(self, numbers: list[int], seconds: float = 10) -> dict[int, Answer]:
        """Wait until each number has an answer."""
        until = time.monotonic() + seconds
        while not all(number in self.answers for number in numbers):
            left = until - time.monotonic()
            assert left > 0, f"no answer for {[n for n in numbers if n not in self.answers]}"
            popped = self.queue.client.blpop([self.reply_to], timeout=1)
            if popped:
                self.take(popped[1])
        return {number: self.answers[number][0] for number in numbers}


def in_hand(queue: Queue, lane: Lane) -> int:
    """Entries of a lane that were read and are not answered to their end."""
    return int(queue.client.xpending(queue.keys.lane(lane), GROUP)["pending"])


def tell_slots(ringer: Ringer, *slots: str, loaded: Mapping[str, str] | None = None) -> None:
    """Let a ringer of one pool learn these slots, and what some of them have loaded, as names with commas."""
    for _ in range(2):  # who has what loaded is asked of slots that are known
        asked = len(ringer.question()) - 3
        told = [(loaded or {}).get(slot, "").replace(",", "\n").encode() for slot in sorted(slots)]
        scores = [word for slot in slots for word in (slot.encode(), b"0")]
        ringer.learn([[0, 0], [], scores, *told[:asked]])


def wait_until(condition: object, seconds: float = 10, *, message: str = "it did not happen") -> None:
    """Poll a condition; fails the test with `message` after `seconds`."""
    until = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < until, message
        time.sleep(0.02)


@contextlib.contextmanager
def running_slot(queue: Queue, name: str = "slot") -> Iterator[RunningSlot]:
    slot = RunningSlot(queue, name)
    try:
        yield slot
    finally:
        slot.stop()
