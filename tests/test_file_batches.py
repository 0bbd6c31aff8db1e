"""Requests with files among those that run together: how much is read before it runs, and where it is read."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from model_store.database import transaction
from model_store.model_settings import Metadata, ModelSettings, replace_settings
from model_store.signature import Signature, Tensor, Tensors, TensorSpec
from tests.conftest import RedisServer
from tests.file_kit import image
from tests.job_kit import end_back_off, numbers_of
from tests.onnx_models import digits
from tests.queue_kit import Queue, make_queue, serve_model, worker_settings
from workers import batches, jobs
from workers.answering import Answering
from workers.batches import Loaded, predict_all
from workers.child import Child
from workers.decoding import file_runner
from workers.decoding.file_runner import FileRunner
from workers.entries import Entry, Group
from workers.errors import DecodingUnavailable, InputInvalid
from workers.heart import Heart
from workers.job_batches import JobBatches
from workers.lanes import Answer, Bundle, Priority, unpack_answers
from workers.outbox import Outbox, Parcel
from workers.predictor_cache import PredictorCache
from workers.protocols.body import Body
from workers.protocols.contract import Contract
from workers.protocols.file_reading import FileReader, Given
from workers.protocols.files import body_of
from workers.running import Running
from workers.runtimes.onnx import OnnxPredictor
from workers.settings import RunnerSettings
from workers.tables import Job
from workers.watchdog import Record, Watchdog

SIGNATURE = Signature(
    (TensorSpec("image", "float32", (None, 28, 28)),), (TensorSpec("output_0", "float32", (None, 10)),)
)
SPECIFICATION = '{"kind":"image","height":28,"width":28,"channels":1,"resize":"none","range":[0,1]}'
BLANK = image(np.zeros((28, 28), np.uint8))
NUMBERS = Body(b'{"instances": %s}' % str(np.zeros((1, 28, 28)).tolist()).encode())
CODED = Body(b'{"instances": [{"b64": "%s"}]}' % base64.b64encode(BLANK))


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[FileRunner]:
    made = FileRunner(RunnerSettings(scratch_dir=tmp_path))
    yield made
    made.close()


def loaded(folder: Path, files: FileReader) -> Loaded:
    predictor = OnnxPredictor(digits(folder / "digits.onnx"), SIGNATURE, 0)
    contract = Contract("m", 1, SIGNATURE, 100, input_specification=SPECIFICATION, files=files)
    return Loaded(contract, predictor, 64, 1, 0.0001)


def test_no_more_is_read_than_may_wait_for_one_inference(
    tmp_path: Path, reader: FileRunner, monkeypatch: pytest.MonkeyPatch
):
    version = loaded(tmp_path, reader)
    sizes: list[int] = []

    def run(tensors: Tensors) -> Tensors:
        sizes.append(len(tensors["image"]))
        return version.run(tensors)

    bodies = [body_of([(None, data)]) for data in (BLANK, BLANK, b"none", BLANK, BLANK, BLANK)]
    whole = predict_all(version, bodies, run)
    assert sizes == [5]
    # two images of 3,136 bytes of numbers
    monkeypatch.setattr(batches, "BATCH_BYTES", 6000)
    assert predict_all(version, bodies, run)[:2] == whole[:2]
    assert sizes == [5, 2, 2, 1]
    assert [type(outcome) for outcome in whole] == [Body, Body, InputInvalid, Body, Body, Body]


@pytest.fixture
def queue(redis_server: RedisServer, tmp_path: Path) -> Iterator[Queue]:
    made = make_queue(worker_settings(redis_server.url, f"sqlite:///{tmp_path / 'sluice.db'}", tmp_path), tmp_path)
    yield made
    made.close()


@contextlib.contextmanager
def answering_in(queue: Queue, cache: PredictorCache[Loaded], child: Child) -> Iterator[Answering]:
    """What runs groups in a slot of this child, with these predictors."""
    watchdog = Watchdog(Record(queue.settings.scratch_dir, "slot"), 30.0, deadly=False)
    running = Running(cache, watchdog, child.pools)
    heart = Heart(child.client, queue.keys, (queue.settings.pool, "slot"), "token", child.sessions)
    outbox = Outbox(child.client)
    batches_of_jobs = JobBatches(queue.settings, child.sessions, child.artifacts, running, heart, lambda: False)
    try:
        yield Answering(running, batches_of_jobs, outbox, "consumer", lambda: False)
    finally:
        outbox.close()
        watchdog.close()


def asked(model: str, *bodies: Body) -> Group:
    bundle = Bundle(b"replies", 20_000, tuple(enumerate(bodies)))
    return Group((model, 1), Priority.INTERACTIVE, bundles=[Entry(b"lane", b"1-1", bundle, None)])


def sent_to_replies(child: Child) -> list[Answer]:
    packed = child.client.lrange("replies", 0, -1)
    child.client.delete("replies")
    return [answer for some in packed for answer in unpack_answers(some)]


def test_the_loop_answers_numbers_and_leaves_files_to_a_thread(queue: Queue, tmp_path: Path):
    serve_model(queue.sessions, queue.artifacts, digits(tmp_path / "digits.onnx"), "digits", signature=SIGNATURE)
    with transaction(queue.sessions) as session:
        replace_settings(session, "digits", ModelSettings(metadata=Metadata(input_specification=SPECIFICATION)))
    child = queue.child()
    with answering_in(queue, child.cache, child) as answering, child.cache.lease("digits", 1):
        assert answering.inline(asked("digits", NUMBERS), Parcel())
        assert not answering.inline(asked("digits", NUMBERS, body_of([(None, BLANK)])), Parcel())
        assert not answering.inline(asked("digits", CODED), Parcel())


def test_numbers_are_answered_before_files_that_came_before_them(queue: Queue, tmp_path: Path, reader: FileRunner):
    child = queue.child()
    cache = PredictorCache[Loaded](2**30, lambda _model, _version: loaded(tmp_path, reader))
    with answering_in(queue, cache, child) as answering:
        answering.slowly(
            asked("digits", body_of([(None, BLANK)]), CODED, NUMBERS, body_of([(None, b"none")])), answering.all_files
        )
    assert [(answer.number, answer.status) for answer in sent_to_replies(child)] == [
        (2, 200),
        (3, 400),
        (0, 200),
        (1, 200),
    ]


def test_who_sends_many_files_waits_behind_who_sends_one(queue: Queue, tmp_path: Path, reader: FileRunner):
    child = queue.child()
    cache = PredictorCache[Loaded](2**30, lambda _model, _version: loaded(tmp_path, reader))
    group = asked("digits", *[CODED] * 4)
    other = Bundle(b"replies", 20_000, ((9, CODED),))
    group.bundles.append(Entry(b"another lane", b"1-1", other, None))
    with answering_in(queue, cache, child) as answering:
        answering.slowly(group, answering.all_files)
    assert [answer.number for answer in sent_to_replies(child)] == [0, 9, 1, 2, 3]


def test_files_for_which_nobody_waits_any_more_are_not_read(queue: Queue, tmp_path: Path, reader: FileRunner):
    child = queue.child()
    cache = PredictorCache[Loaded](2**30, lambda _model, _version: loaded(tmp_path, reader))
    bundle = Bundle(b"replies", 0, ((0, CODED), (1, NUMBERS)))
    with answering_in(queue, cache, child) as answering:
        answering.slowly(
            Group(("digits", 1), Priority.INTERACTIVE, bundles=[Entry(b"lane", b"1-1", bundle, None)]),
            answering.all_files,
        )
    assert [answer.number for answer in sent_to_replies(child)] == [1]
    assert reader.pid is None


class NoPackage:
    """A reader where Pillow is missing."""

    def read(self, _given: Given) -> Tensor:
        raise DecodingUnavailable("images need Pillow")


def test_a_job_waits_for_a_runner_and_loses_no_attempt_but_is_a_dead_letter_where_a_package_is_missing(
    queue: Queue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    # given no room for a runner's folder
    folder = tmp_path / "no-folder"
    folder.touch()
    monkeypatch.setattr(file_runner, "REST_SECONDS", 0.0)
    reader = FileRunner(RunnerSettings(scratch_dir=folder))
    child, lane = queue.child(), queue.lane(Priority.BULK)
    drafts = [jobs.Draft(jobs.new_id(), lane, "tensorflow_serving", 1, CODED.data, 60, max_attempts=2) for _ in "ab"]
    with transaction(queue.sessions) as session:
        jobs.accept(session, drafts, 100)
        first, second = numbers_of(session, drafts)

    def run(number: int, files: FileReader) -> tuple[str, int, str | None, bool]:
        end_back_off(queue)
        cache = PredictorCache[Loaded](2**30, lambda _model, _version: loaded(tmp_path, files))
        with answering_in(queue, cache, child) as answering:
            entry = Entry(queue.keys.lane(lane), b"1-1", None, number)
            answering.slowly(Group(("double", queue.version), Priority.BULK, jobs=[entry]), answering.all_files)
        with transaction(queue.sessions, write=False) as session:
            row = session.get_one(Job, number)
            return row.state, row.attempt, row.error_code, row.dead

    assert run(first, reader) == ("queued", 0, None, False)
    folder.unlink()
    folder.mkdir()
    assert run(first, reader) == ("succeeded", 1, None, False)
    assert run(second, NoPackage()) == ("queued", 1, None, False)
    assert run(second, NoPackage()) == ("failed", 2, "decoding_unavailable", True)
    reader.close()
