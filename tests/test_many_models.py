"""Many models in little memory: real workers load on demand, spread the models, and serve those of their pool."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import pytest

from auth.scopes import Scope
from model_store.database import transaction
from model_store.model_settings import ModelSettings, Serving, replace_settings
from tests.conftest import RedisServer
from tests.processes import Cluster, cluster, wait_for
from tests.queue_kit import doubling_model, serve_model
from tests.serving import ended, submit

MODELS = [f"many-{number}" for number in range(40)]
# As serve_model says of each.
MODEL_BYTES = 100_000


@pytest.fixture(scope="module")
def installation(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Forty models and a gateway; each test starts workers of its own, with one prediction process each."""
    folder = tmp_path_factory.mktemp("many")
    with cluster(folder, redis_server.url, f"sqlite:///{folder / 'sluice.db'}") as made:
        for number, model in enumerate(MODELS):
            serve_model(made.sessions, made.artifacts, doubling_model(folder / "m.onnx", float(number)), model)
        made.start_gateway()
        yield made


@pytest.fixture(scope="module")
def caller(installation: Cluster) -> httpx.Client:
    return installation.caller(*MODELS, scopes=frozenset(Scope))


@contextlib.contextmanager
def workers(installation: Cluster, caller: httpx.Client, **by_name: dict[str, object]) -> Iterator[None]:
    """Within this context there are these workers, and no others."""
    started = []
    for name, settings in by_name.items():
        environment = {"worker_name": name, "worker_processes": 1, **settings}
        started.append(installation.start("worker", **environment))
    try:
        wait_for(lambda: [one["name"] for one in listed(caller)] == sorted(by_name), 30)
        yield
    finally:
        for process in started:
            process.send_signal(signal.SIGTERM)
        for process in started:
            process.wait(20)


def listed(caller: httpx.Client) -> list[dict[str, Any]]:
    """What the gateway says of its workers, of each when it has told about itself."""
    found: list[dict[str, Any]] = caller.get("/admin/workers").json()["workers"]
    return found


def ask(caller: httpx.Client, model: str) -> None:
    """One prediction, whose answer has to be that model's."""
    answer = caller.post(f"/v1/models/{model}:predict", json={"instances": [[1.0, 2.0]]})
    assert answer.status_code == 200, answer.text
    factor = float(model.rpartition("-")[2])
    assert answer.json() == {"predictions": [[factor, 2 * factor]]}


def skewed(requests: int, exponent: float) -> list[str]:
    """Models as callers ask for them: the few first ones nearly always (Zipf's law)."""
    shares = 1.0 / np.arange(1, len(MODELS) + 1) ** exponent
    chosen = np.random.default_rng(7).choice(len(MODELS), requests, p=shares / shares.sum())
    return [MODELS[number] for number in chosen.tolist()]


def uses(worker: dict[str, Any]) -> int:
    return int(worker["hits"] + worker["misses"])


def settled(caller: httpx.Client, asked: int) -> list[dict[str, Any]]:
    """The workers, once they have told of so many batches."""
    wait_for(lambda: sum(map(uses, listed(caller))) >= asked, 10)
    return listed(caller)


def test_forty_models_are_served_in_the_memory_of_eight_and_first_requests_at_once_load_one_once(
    installation: Cluster, caller: httpx.Client
):
    with workers(installation, caller, alone={"predictor_budget_bytes": 8 * MODEL_BYTES}):
        with ThreadPoolExecutor(16) as threads:
            list(threads.map(lambda _: ask(caller, "many-39"), range(32)))
        [alone] = settled(caller, 1)
        assert (alone["versions"], alone["loads"]) == (["many-39:1"], 1)
        before = uses(alone)

        for model in [*MODELS, *skewed(200, exponent=1.4)]:
            ask(caller, model)

        [alone] = settled(caller, before + 240)

        assert alone["memory_bytes"] <= alone["budget_bytes"] == 8 * MODEL_BYTES
        assert len(alone["versions"]) == 8
        assert uses(alone) == before + 240
        assert alone["evictions"] == alone["loads"] - 8
        # By chance, it would be a fifth.
        assert alone["hits"] > 0.6 * 200
        assert "many-0:1" in alone["versions"]


@pytest.mark.long
def test_two_workers_spread_the_models_and_a_third_makes_no_request_wait_for_a_load(
    installation: Cluster, caller: httpx.Client
):
    # Neither has room for all.
    room = {"predictor_budget_bytes": 30 * MODEL_BYTES}
    load = skewed(500, exponent=1.1)
    with workers(installation, caller, one=room, two=room):
        for model in load:
            ask(caller, model)
        both = settled(caller, 500)

        assert sum(worker["hits"] for worker in both) >= 0.9 * 500
        assert sum(worker["evictions"] for worker in both) == 0
        one, two = (set(worker["versions"]) for worker in both)
        assert one
        assert two
        assert not one & two
        assert one | two == {f"{model}:1" for model in load}

        third = installation.start("worker", worker_name="zwei", worker_processes=1, **room)
        wait_for(lambda: len(listed(caller)) == 3, 30)
        for model in load[:200]:
            ask(caller, model)
        all_three = settled(caller, 700)
        assert sum(worker["misses"] for worker in all_three) == sum(worker["misses"] for worker in both)
        third.send_signal(signal.SIGTERM)
        third.wait(20)


@pytest.mark.long
def test_a_model_that_moves_to_another_pool_is_served_there_and_no_job_is_lost(
    installation: Cluster, caller: httpx.Client
):
    def name_pool(pool: str | None) -> None:
        with transaction(installation.sessions) as session:
            replace_settings(session, "many-3", ModelSettings(Serving(pool=pool)))

    def loaded() -> list[str]:
        return [worker["name"] for worker in listed(caller) if "many-3:1" in worker["versions"]]

    with workers(installation, caller, plain={}):
        ask(caller, "many-3")
        wait_for(lambda: loaded() == ["plain"], 10)
        name_pool("gpu")
        wait_for(lambda: loaded() == [], 10)
        # Nobody of that pool is there yet: jobs wait for somebody, and other models go on.
        jobs = [submit(caller, "many-3", float(number), 0.0) for number in range(20)]
        ask(caller, "many-4")
        assert caller.get(f"/v1/jobs/{jobs[0]}").json()["state"] == "queued"

        special = installation.start("worker", worker_name="special", worker_processes=1, pool="gpu")
        assert {ended(caller, job)["state"] for job in jobs} == {"succeeded"}
        wait_for(lambda: loaded() == ["special"], 10)
        assert {worker["name"]: worker["pool"] for worker in listed(caller)} == {"plain": "default", "special": "gpu"}

        # Back again, with jobs under way and requests coming in.
        jobs = [submit(caller, "many-3", float(number), 0.0) for number in range(50)]
        name_pool(None)
        for _ in range(20):
            ask(caller, "many-3")
        assert {ended(caller, job)["state"] for job in jobs} == {"succeeded"}
        wait_for(lambda: ask(caller, "many-3") is None and "plain" in loaded(), 10)
        special.send_signal(signal.SIGTERM)
        special.wait(20)
