"""A model's file that was damaged in the store (C15): its own requests fail with the reason, and others are served."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import RedisServer
from tests.queue_kit import Caller, Queue, doubling_model, make_queue, running_slot, serve_model, worker_settings


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o600)
    path.write_bytes(data)


def truncated(path: Path) -> None:
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-1])


def linked(path: Path) -> None:
    path.symlink_to(path.rename(path.with_suffix(".elsewhere")))


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "flipped": (flipped, "does not have the bytes that were stored"),
    "truncated": (truncated, "does not have the bytes that were stored"),
    "deleted": (Path.unlink, "the store has no artifact"),
    "linked": (linked, "symbolic link"),
}


@pytest.fixture
def queue(redis_server: RedisServer, tmp_path: Path) -> Iterator[Queue]:
    settings = worker_settings(redis_server.url, f"sqlite:///{tmp_path / 'sluice.db'}", tmp_path)
    made = make_queue(settings, tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_model_is_refused_with_the_reason_while_others_serve(queue: Queue, tmp_path: Path, damage: str):
    # given a model of its own bytes, which are damaged before any worker has loaded them
    hurt, reason = DAMAGES[damage]
    triple = doubling_model(tmp_path / "triple.onnx", factor=3.0)
    serve_model(queue.sessions, queue.artifacts, triple, "triple")
    hurt(queue.artifacts.path(queue.artifacts.add_file(triple).digest))

    # when both models are asked
    caller = Caller(queue)
    with running_slot(queue) as slot:
        [broken] = caller.ask(queue.lane(model="triple"), (1.0, 2.0))
        [well] = caller.ask(queue.lane(), (1.0, 2.0))
        slot.ring(queue.lane(model="triple"))
        slot.ring(queue.lane())
        answers = caller.collect([broken, well])

    # then only the damaged one is refused
    assert json.loads(answers[well].body) == {"predictions": [[2.0, 4.0]]}
    assert answers[broken].status == 500
    assert reason in json.loads(answers[broken].body)["error"]
