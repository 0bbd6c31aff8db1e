"""Environments: what is written down of one, what counts as another, and what a worker does in another."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from model_store import golden
from model_store.database import transaction
from model_store.environment import Environment
from model_store.generation import bump_generation
from model_store.tables import Variant, Version
from model_store.variant_policies import INT8
from monitoring.metrics import ENVIRONMENT_PROOFS
from tests.conftest import RedisServer
from tests.queue_kit import (
    Caller,
    Queue,
    doubling_model,
    make_queue,
    running_slot,
    serve_model,
    wait_until,
    worker_settings,
)
from workers.environment import features, here

ROWS = np.array([[1.0, 2.0], [3.0, 4.0]], np.float32)
X86 = "processor\t: 0\nflags\t\t: fpu sse4_2 smep avx2 avx512f amx_tile fma\n\n"
ARM = "processor\t: 0\nFeatures\t: fp asimd asimddp sve i8mm aes\n"


@pytest.fixture
def queue(redis_server: RedisServer, tmp_path: Path) -> Iterator[Queue]:
    settings = worker_settings(redis_server.url, f"sqlite:///{tmp_path / 'sluice.db'}", tmp_path)
    made = make_queue(settings, tmp_path)
    yield made
    made.close()


def elsewhere() -> Environment:
    """As if the preparation had run on a machine of a bygone year."""
    return replace(here(), libraries={**here().libraries, "onnxruntime": "1.2.3"}, features=("avx", "zz_unit"))


def serve(queue: Queue, folder: Path, model: str, environment: Environment | None, factor: float | None = 2.0) -> None:
    """A model that doubles; its golden samples say that it multiplies by `factor`, None that there are none."""
    # A weight of its own for each model: otherwise all are one artifact, which is no harm, but says less.
    serve_model(queue.sessions, queue.artifacts, doubling_model(folder / f"{model}.onnx"), model)
    with transaction(queue.sessions) as session:
        version = session.get_one(Version, (model, 1))
        version.environment = None if environment is None else environment.to_json()
        if factor is not None:
            samples = folder / f"{model}.npz"
            samples.write_bytes(golden.pack({"x": ROWS}, {"y": ROWS * np.float32(factor)}))
            version.golden = queue.artifacts.add_file(samples).digest


def answer(queue: Queue, model: str) -> tuple[int, str]:
    """What a worker answers, with whose first request the version is loaded."""
    caller = Caller(queue)
    with running_slot(queue) as slot:
        numbers = caller.ask(queue.lane(model=model), (1.0, 2.0))
        slot.ring(queue.lane(model=model))
        found = caller.collect(numbers)[numbers[0]]
    return found.status, found.body.decode()


def proofs() -> dict[str, float]:
    return {outcome: ENVIRONMENT_PROOFS.labels(outcome)._value.get() for outcome in ("proved", "refused", "unproven")}


def test_a_version_from_elsewhere_that_answers_as_it_did_there_serves_and_says_so(
    queue: Queue, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    serve(queue, tmp_path, "moved", elsewhere())
    before = proofs()

    with caplog.at_level(logging.WARNING, "workers.runtimes.reproof"):
        status, body = answer(queue, "moved")

    assert (status, json.loads(body)) == (200, {"predictions": [[2.0, 4.0]]})
    assert proofs() == {**before, "proved": before["proved"] + 1}
    [said] = [record.getMessage() for record in caplog.records]
    assert f"onnxruntime {here().libraries['onnxruntime']} instead of 1.2.3" in said
    assert "without zz_unit" in said
    assert "serves" in said


def test_a_version_that_answers_otherwise_here_is_refused_with_what_to_do(queue: Queue, tmp_path: Path):
    serve(queue, tmp_path, "astray", elsewhere(), factor=2.001)
    before = proofs()

    status, body = answer(queue, "astray")

    said = json.loads(body)["error"]
    assert status == 503
    assert "onnxruntime" in said
    assert "y differs by up to 0.004" in said
    assert "POST /admin/models/astray/versions/1/prepare" in said
    assert proofs() == {**before, "refused": before["refused"] + 1}
    # Others serve on.
    assert answer(queue, "double")[0] == 200


def test_a_refused_version_serves_once_it_was_prepared_here(queue: Queue, tmp_path: Path):
    serve(queue, tmp_path, "astray", elsewhere(), factor=2.001)
    caller, lane = Caller(queue), queue.lane(model="astray")
    with running_slot(queue) as slot:

        def status() -> int:
            numbers = caller.ask(lane, (1.0, 2.0))
            slot.ring(lane)
            return caller.collect(numbers)[numbers[0]].status

        slot.child.watch.look()
        assert [status(), status()] == [503, 503]

        with transaction(queue.sessions) as session:
            session.get_one(Version, ("astray", 1)).environment = here().to_json()
            bump_generation(session)

        wait_until(lambda: status() == 200)


def test_the_tolerance_is_the_one_that_the_version_was_prepared_with(queue: Queue, tmp_path: Path):
    serve(queue, tmp_path, "coarse", replace(elsewhere(), absolute=1e-3, relative=1e-2), factor=2.001)
    assert answer(queue, "coarse")[0] == 200


@pytest.mark.parametrize(("factor", "status"), [(2.2, 200), (-2.0, 503)], ids=["same_classes", "other_classes"])
def test_a_quantised_version_is_proved_by_its_classes(queue: Queue, tmp_path: Path, factor: float, status: int):
    serve(queue, tmp_path, "small", elsewhere(), factor=factor)
    with transaction(queue.sessions) as session:
        session.get_one(Variant, ("small", 1, "onnx")).name = INT8
        session.get_one(Version, ("small", 1)).variant = INT8
    assert answer(queue, "small")[0] == status


@pytest.mark.parametrize("known", [True, False], ids=["the_same", "none_written_down"])
def test_the_same_environment_and_an_older_version_are_not_proved_again(queue: Queue, tmp_path: Path, known: bool):
    serve(queue, tmp_path, "usual", here() if known else None, factor=5.0)
    before = proofs()
    assert answer(queue, "usual")[0] == 200
    assert proofs() == before


def test_without_golden_samples_a_version_from_elsewhere_serves_unproven(queue: Queue, tmp_path: Path):
    serve(queue, tmp_path, "huge", elsewhere(), factor=None)
    before = proofs()
    assert answer(queue, "huge")[0] == 200
    assert proofs() == {**before, "unproven": before["unproven"] + 1}


def test_only_what_the_runtime_computes_with_makes_an_environment_another():
    known = Environment({"onnxruntime": "1", "tensorflow": "2", "keras": "3"}, "3.11.1", "x86_64", ("avx2",))
    newer = replace(known, libraries={"onnxruntime": "1", "tensorflow": "2.1", "keras": "4"}, python="3.12.0")
    assert known.differences(newer, "onnx") == ()
    assert known.differences(newer, "tensorflow") == ("tensorflow 2.1 instead of 2",)
    assert known.differences(replace(known, machine="aarch64", features=("avx512f", "avx2")), "onnx") == (
        "aarch64 instead of x86_64",
        "a processor with avx512f",
    )
    assert known.differences(replace(known, libraries={}), "onnx") == ("onnxruntime missing instead of 1",)
    assert Environment.from_json(known.to_json()) == known


@pytest.mark.parametrize(
    ("cpuinfo", "expected"),
    [
        (X86, ("amx_tile", "avx2", "avx512f", "fma", "sse4_2")),
        (ARM, ("asimd", "asimddp", "i8mm", "sve")),
        (X86 + X86.replace("avx512f ", ""), ("amx_tile", "avx2", "fma", "sse4_2")),
        ("", ()),
    ],
    ids=["x86", "arm", "unequal_processors", "unknown"],
)
def test_of_the_processor_only_what_kernels_are_chosen_by_is_written_down(cpuinfo: str, expected: tuple[str, ...]):
    assert features(cpuinfo) == expected


def test_this_process_knows_its_environment():
    assert {"keras", "numpy", "onnx", "onnxruntime", "tensorflow", "tf2onnx"} <= here().libraries.keys()
    assert here().machine
