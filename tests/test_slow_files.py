"""Files that take long to decode hold up their own client: not the numbers, and not the files, of others."""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from model_store.database import transaction
from model_store.model_settings import Metadata, ModelSettings, replace_settings
from model_store.signature import Signature, TensorSpec
from tests.conftest import RedisServer
from tests.file_kit import image
from tests.onnx_models import digits
from tests.queue_kit import (
    Caller,
    Queue,
    RunningSlot,
    in_hand,
    make_queue,
    running_slot,
    serve_model,
    worker_settings,
)
from workers import batch_threads
from workers.batch_threads import BatchThreads
from workers.entries import Entry
from workers.files_aside import FilesLeft
from workers.protocols.body import Body

SIGNATURE = Signature(
    (TensorSpec("image", "float32", (None, 28, 28)),), (TensorSpec("output_0", "float32", (None, 10)),)
)
SPECIFICATION = '{"kind":"image","height":28,"width":28,"channels":1,"resize":"stretch","range":[0,1]}'
NUMBERS = Body(b'{"instances": %s}' % str(np.zeros((1, 28, 28)).tolist()).encode())


def coded(side: int) -> Body:
    """A request with an image of so many pixels a side."""
    return Body(b'{"instances": [{"b64": "%s"}]}' % base64.b64encode(image(np.zeros((side, side), np.uint8))))


SMALL, LARGE = coded(28), coded(4096)
FLOOD = 8


@pytest.fixture
def queue(redis_server: RedisServer, tmp_path: Path) -> Iterator[Queue]:
    made = make_queue(worker_settings(redis_server.url, f"sqlite:///{tmp_path / 'sluice.db'}", tmp_path), tmp_path)
    serve_model(made.sessions, made.artifacts, digits(tmp_path / "digits.onnx"), "digits", signature=SIGNATURE)
    with transaction(made.sessions) as session:
        replace_settings(session, "digits", ModelSettings(metadata=Metadata(input_specification=SPECIFICATION)))
    yield made
    made.close()


@pytest.fixture
def slot(queue: Queue) -> Iterator[RunningSlot]:
    with running_slot(queue) as running:
        yield running


def test_who_floods_large_images_delays_no_other_clients_numbers_or_files(queue: Queue, slot: RunningSlot):
    flood, other = (queue.lane(model="digits", client_id=name) for name in ("flood", "other"))
    theirs, mine = Caller(queue), Caller(queue)
    # given a client whose images are being read, and who sends more
    images = theirs.send(flood, *[LARGE] * FLOOD)
    slot.ring(flood)
    theirs.collect(images[:1])
    images += theirs.send(flood, LARGE)
    # when another client asks, again and again
    for body in (*[NUMBERS] * 5, SMALL, NUMBERS):
        asked = mine.send(other, body)
        slot.ring(other)
        assert mine.collect(asked)[asked[0]].status == 200
    # then it has its answers before the first of these requests is through, and the second one is not begun
    assert in_hand(queue, flood) == 1
    assert queue.client.xlen(queue.keys.lane(flood)) == 2
    # and nothing of it is lost
    assert {answer.status for answer in theirs.collect(images, 60).values()} == {200}


def left_of(lane: bytes, size_bytes: int) -> FilesLeft:
    asked = [(b"replies", 1, Body(b"x" * size_bytes), 0)]
    return FilesLeft(("digits", 1), asked, [Entry(lane, b"1-1", None, None)], 0.0)


def test_files_beyond_what_may_wait_for_their_turn_hold_up_their_version(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(batch_threads, "ASIDE_BYTES", 99)
    gate, threads = threading.Event(), dict[FilesLeft, str]()

    def go_on(left: FilesLeft) -> bool:
        threads[left] = threading.current_thread().name
        assert left.size_bytes < 100 or gate.wait(20)
        return False

    batches = BatchThreads(lambda _lanes: None, go_on)
    with ThreadPoolExecutor(1, thread_name_prefix="group") as group:
        large, small = left_of(b"one", 100), left_of(b"two", 1)
        group.submit(batches.set_aside, large).result()
        assert batches.has_files_of(b"one")
        assert batches.in_hand() == {(b"one", b"1-1")}
        group.submit(batches.set_aside, small).result()
        assert threads[small].startswith("group")
        assert not batches.has_files_of(b"two")
        gate.set()
        batches.close()
    assert threads[large].startswith("files")
    assert (batches.has_files_of(b"one"), batches.in_hand(), bool(batches)) == (False, set(), False)
