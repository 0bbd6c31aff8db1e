"""How much a request for explanations may ask for: its copies and the model's answers to them, and how jobs run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from model_store.database import transaction
from model_store.signature import Signature, TensorSpec
from monitoring import metrics
from tests.conftest import RedisServer
from tests.dialect_kit import signature_of
from tests.job_kit import numbers_of, state
from tests.queue_kit import Queue, make_queue, running_slot, wait_until, worker_settings
from workers import jobs
from workers.errors import InputInvalid
from workers.lanes import JOB_FIELD, Priority
from workers.protocols.body import Body, Dialect
from workers.protocols.contract import Contract
from workers.protocols.explain import ExplainRequest, parse

VALUE = (TensorSpec("y", "float32", (None, 1)),)
TEXT = signature_of(TensorSpec("text", "string", (None, 1)), outputs=VALUE)


@pytest.fixture
def queue(redis_server: RedisServer, tmp_path: Path) -> Iterator[Queue]:
    made = make_queue(worker_settings(redis_server.url, f"sqlite:///{tmp_path / 'sluice.db'}", tmp_path), tmp_path)
    yield made
    made.close()


def asked(signature: Signature, body: object) -> ExplainRequest:
    return parse(Body(json.dumps(body).encode(), Dialect.EXPLAIN), Contract("m", 1, signature, 100_000))


def answering(*shape: int) -> Signature:
    return signature_of(
        TensorSpec("image", "uint8", (None, 64, 64)), outputs=(TensorSpec("y", "float32", (None, *shape)),)
    )


WORD = {"instances": [["a " * 150]], "explain": {"baseline": "w" * 2**20}}
LONGEST = {"instances": [[("a" * 3300 + " ") * 300], *[[""]] * 5000]}


@pytest.mark.parametrize(
    ("signature", "body", "words"),
    [
        pytest.param(TEXT, WORD, "would take 157332908 bytes", id="a-long-word-in-many-places"),
        pytest.param(TEXT, LONGEST, "would take 298122708 bytes", id="one-long-text-among-short-ones"),
        pytest.param(
            signature_of(TensorSpec("t", "string", (None, None)), outputs=VALUE),
            {"instances": [[""] * 5000], "explain": {"patch": 1}},
            "would take 200040000 bytes",
            id="empty-texts",
        ),
        pytest.param(
            answering(512, 512, 21), {"instances": [[[0] * 64] * 64]}, "answers to 65 instances", id="large-answers"
        ),
    ],
)
def test_a_small_request_does_not_become_large_copies_or_answers(signature: Signature, body: object, words: str):
    with pytest.raises(InputInvalid, match=words):
        asked(signature, body)


def test_copies_are_counted_for_the_instance_that_has_them():
    texts = [["a b c"], ["d " * 40], [""]]
    request = asked(TEXT, {"instances": texts, "explain": {"baseline": "word"}})
    assert request.starts == (0, 4, 45)
    assert [len(text) for text in request.tensors["text"].reshape(-1).tolist()][:5] == [5, 8, 8, 8, 80]


def test_explanations_run_alone_whatever_their_batches_might_hold(queue: Queue):
    lane, body = queue.lane(Priority.BULK), b'{"instances":[[1.0,2.0]]}'
    drafts = [jobs.Draft(jobs.new_id(), lane, "explain", 3, body, 60) for _ in range(4)]
    with transaction(queue.sessions) as session:
        jobs.accept(session, drafts, 100)
        numbers = numbers_of(session, drafts)
    for number in numbers:
        queue.client.xadd(queue.keys.lane(lane), {JOB_FIELD: number})
    inferences, instances = inferences_of("double")
    with running_slot(queue) as slot:
        slot.ring(lane)
        wait_until(lambda: all(state(queue.sessions, number) == "succeeded" for number in numbers))
    # Together they would be nine after the first, of which the version takes eight at once.
    assert inferences_of("double") == (inferences + 4, instances + 12)


def inferences_of(model: str) -> tuple[float, float]:
    """How many inferences this process made for a model, and with how many instances in all."""
    [family] = metrics.BATCH_INSTANCES.labels(model, "1").collect()
    samples = {sample.name: sample.value for sample in family.samples}
    return samples["sluice_batch_instances_count"], samples["sluice_batch_instances_sum"]
