"""Hundreds of models on one prediction process with a gigabyte for them: what loads on demand cost, and who waits.

The models are alike but for their weights, 4 MB each, so that each has answers of its own. The first goes through
preparation, which measures the memory that one takes; the others are published with what it found.
"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from auth.grants import GrantSpec, set_grants
from benchmarks.bench import Bench
from benchmarks.experiment import Experiment
from benchmarks.failures import BenchmarkFailed
from benchmarks.load import Load, post
from benchmarks.machine import ROOT
from benchmarks.outcome import Outcome
from benchmarks.processes import peak_megabytes, resident_megabytes
from benchmarks.system import HOST, Options, System, read_clients
from model_store.artifacts import Artifacts
from model_store.database import transaction
from model_store.generation import bump_generation
from model_store.settings import StoreSettings
from model_store.tables import Model, Variant, Version
from sluice.client import Client
from sluice.preparation import follow

GIBIBYTE = 1024**3
MEGABYTE = 1_000_000
WIDTH = 1000
INPUTS = 4
EXPONENT = 1.0
CONNECTIONS = 8
WARM_REQUESTS = 500
TOLERANCE = 1e-3
LEARNING_SECONDS = 10.0
PATIENCE_SECONDS = 35.0
# Written beside the installation: a folder for temporary files may be memory.
BUILD = ROOT / "build"

Weights = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Many:
    """The models by name, each with the answer to the one instance that is asked of all."""

    answers: dict[str, float]

    @property
    def names(self) -> list[str]:
        return list(self.answers)


def run(bench: Bench) -> Outcome:
    outcome = Outcome()
    budget_bytes = GIBIBYTE * bench.sizes.models // 500
    with bench.system("many-models", Options(settings={"predictor_budget_bytes": str(budget_bytes)})) as system:
        system.start_both()
        many = _publish(bench, system, outcome)
        token = bench.token(system)
        before = resident_megabytes(system.predicting())
        _wait_until_known(system, token, many.names)
        cold = _ask_each(system, token, many)
        last = many.names[-1]
        warm = _ask_each(system, token, Many({last: many.answers[last]}), WARM_REQUESTS)
        _note_latency(outcome, "cold", cold)
        _note_latency(outcome, "warm", warm)
        start = _figures(bench, system)
        requests = _skewed(many.names, token, bench.sizes.skewed)
        bench.once("Zipf's law", Load(HOST, system.port, requests, CONNECTIONS, 600.0, count=len(requests)), outcome)
        _note_uses(outcome, start, _figures(bench, system), outcome.rounds[-1].measured.seconds)
        _ask_each(system, token, many)  # under all that coming and going, each still answers for itself
        outcome.facts["memory, MB: budget"] = budget_bytes / MEGABYTE
        outcome.facts["memory, MB: process before the first model"] = before
        outcome.facts["memory, MB: most that the process took"] = peak_megabytes(system.predicting())
        outcome.facts["memory beyond the start to budget"] = (
            (peak_megabytes(system.predicting()) - before) * MEGABYTE / budget_bytes
        )
    return outcome


def _publish(bench: Bench, system: System, outcome: Outcome) -> Many:
    names = [f"many-{number}" for number in range(bench.sizes.models)]
    started = time.monotonic()
    with TemporaryDirectory(dir=BUILD) as folder:
        first, answer = _model(Path(folder) / "model.onnx", 0)
        answers = {names[0]: answer}
        memory_bytes = _prepare_first(bench, system, names[0], first)
        store = Artifacts.of(StoreSettings(store_dir=system.folder.root / "store"))
        digests = []
        for number, name in enumerate(names[1:], start=1):
            path, answers[name] = _model(first, number)
            digests.append(store.add_file(path).digest)
    client_id = read_clients(bench.installation.clients_file)["caller"]["client_id"]
    with transaction(system.sessions) as session:
        version = session.get_one(Version, (names[0], 1))
        variant = session.get_one(Variant, (names[0], 1, version.variant))
        session.add_all(Model(name=name, last_version=1) for name in names[1:])
        session.flush()
        session.add_all(
            Version(**_values(version) | {"model": name, "digest": digest})
            for name, digest in zip(names[1:], digests, strict=True)
        )
        session.flush()
        session.add_all(
            Variant(**_values(variant) | {"model": name, "digest": digest})
            for name, digest in zip(names[1:], digests, strict=True)
        )
        bump_generation(session)
        set_grants(session, client_id, [GrantSpec(name) for name in names])
    outcome.facts["models"] = len(names)
    outcome.facts["memory, MB: one model, by its preparation"] = memory_bytes / MEGABYTE
    outcome.notes["published in"] = f"{time.monotonic() - started:.0f} s"
    return Many(answers)


def _prepare_first(bench: Bench, system: System, name: str, path: Path) -> int:
    system.start_preparing()
    with _administrator(bench, system) as sluice:
        follow(sluice, name, sluice.upload(name, path)["version"], lambda _: None)
    with transaction(system.sessions, write=False) as session:
        version = session.get_one(Version, (name, 1))
        return session.get_one(Variant, (name, 1, version.variant)).memory_bytes


def _values(row: Version | Variant) -> dict[str, Any]:
    return {column.key: getattr(row, column.key) for column in row.__mapper__.columns}


def _model(path: Path, seed: int) -> tuple[Path, float]:
    """y = (x·up)·W·down for rows of four numbers, and y where all four are 1."""
    random = np.random.default_rng(seed)
    up = random.random((INPUTS, WIDTH), np.float32)
    square = random.random((WIDTH, WIDTH), np.float32) / WIDTH
    down = random.random((WIDTH, 1), np.float32) / WIDTH
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "up"], ["wide"]),
            helper.make_node("MatMul", ["wide", "square"], ["mixed"]),
            helper.make_node("MatMul", ["mixed", "down"], ["y"]),
        ],
        "many",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", INPUTS])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 1])],
        [numpy_helper.from_array(array, name) for name, array in (("up", up), ("square", square), ("down", down))],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path, float((np.ones((1, INPUTS), np.float32) @ up @ square @ down)[0, 0])


def _request(name: str, token: str) -> bytes:
    return post(f"/v1/models/{name}:predict", json.dumps({"instances": [[1.0] * INPUTS]}).encode(), token=token)


def _skewed(names: Sequence[str], token: str, count: int) -> list[bytes]:
    """Requests as Zipf's law has it: the model of rank r is asked for in proportion to 1/r."""
    shares = 1.0 / np.arange(1, len(names) + 1) ** EXPONENT
    chosen = np.random.default_rng(7).choice(len(names), count, p=shares / shares.sum())
    by_name = {name: _request(name, token) for name in names}
    return [by_name[names[number]] for number in chosen.tolist()]


def _ask_each(system: System, token: str, many: Many, times: int = 1) -> list[float]:
    """Ask each model, one after the other, and compare its answer; seconds of each. Raises BenchmarkFailed."""
    taken = []
    connection = http.client.HTTPConnection(HOST, system.port, timeout=PATIENCE_SECONDS)
    for name in many.names * times:
        started = time.perf_counter()
        status, body = _ask(connection, name, token)
        taken.append(time.perf_counter() - started)
        if status != 200:
            raise BenchmarkFailed(f"{name} was answered with {status} {body[:200]!r}")
        [[found]] = json.loads(body)["predictions"]
        if abs(found - many.answers[name]) > TOLERANCE * abs(many.answers[name]):
            raise BenchmarkFailed(f"{name} answers {found}, not {many.answers[name]}")
    connection.close()
    return taken


def _ask(connection: http.client.HTTPConnection, name: str, token: str) -> tuple[int, bytes]:
    body, headers = json.dumps({"instances": [[1.0] * INPUTS]}), {"Authorization": f"Bearer {token}"}
    connection.request("POST", f"/v1/models/{name}:predict", body, headers)
    answer = connection.getresponse()
    return answer.status, answer.read()


def _wait_until_known(system: System, token: str, names: Sequence[str]) -> None:
    """Gateways learn of new versions and grants within half a second; looking does not load."""
    connection = http.client.HTTPConnection(HOST, system.port, timeout=PATIENCE_SECONDS)
    until = time.monotonic() + LEARNING_SECONDS
    while True:
        connection.request("GET", f"/v1/models/{names[-1]}", headers={"Authorization": f"Bearer {token}"})
        answer = connection.getresponse()
        answer.read()
        if answer.status == 200:
            connection.close()
            return
        if time.monotonic() > until:
            raise BenchmarkFailed("the gateway does not know the models")
        time.sleep(0.1)


def _administrator(bench: Bench, system: System) -> Client:
    known = read_clients(bench.installation.clients_file)["administrator"]
    return Client(system.address, known["client_id"], known["client_secret"])


def _figures(bench: Bench, system: System) -> dict[str, float]:
    """What the worker says of its predictors, once it has told of all until now."""
    time.sleep(2.5)
    with _administrator(bench, system) as sluice:
        [worker] = sluice.get("/admin/workers")["workers"]
    return {name: worker[name] for name in ("hits", "misses", "loads", "load_seconds", "evictions", "memory_bytes")}


def _note_latency(outcome: Outcome, what: str, seconds: Sequence[float]) -> None:
    for name, value in _percentiles(seconds):
        outcome.facts[f"{what}, ms: {name}"] = value * 1000


def _percentiles(seconds: Sequence[float]) -> Iterator[tuple[str, float]]:
    yield "p50", float(np.percentile(seconds, 50))
    yield "p99", float(np.percentile(seconds, 99))


def _note_uses(outcome: Outcome, start: dict[str, float], end: dict[str, float], seconds: float) -> None:
    grown = {name: end[name] - start[name] for name in start}
    outcome.facts["hit rate"] = grown["hits"] / (grown["hits"] + grown["misses"])
    outcome.facts["loads/s"] = grown["loads"] / seconds
    outcome.facts["a load, ms"] = grown["load_seconds"] / max(1.0, grown["loads"]) * 1000
    outcome.facts["evictions"] = grown["evictions"]
    outcome.facts["memory, MB: loaded models at the end"] = end["memory_bytes"] / MEGABYTE


MANY_MODELS = Experiment("many-models", "500 models, asked for by Zipf's law, in the memory of a part of them.", run)
