"""Metrics of gateway and worker as processes: valid text, and counts that survive the processes that counted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from sluice.listening_ports import free_port
from tests.conftest import RedisServer
from tests.processes import Cluster, children, cluster, kill, ready, wait_for
from tests.serving import ended, submit

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def installation(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory, port: int) -> Iterator[Cluster]:
    """A gateway and a worker that share a folder of metrics; nobody else adds to their counts."""
    folder = tmp_path_factory.mktemp("metrics")
    with cluster(folder, redis_server.url, f"sqlite:///{folder / 'sluice.db'}") as made:
        made.start_worker(worker_metrics_port=port)
        made.start_gateway()
        made.wait_for_slots(2)
        yield made


@pytest.fixture(scope="module")
def caller(installation: Cluster) -> httpx.Client:
    return installation.caller("double")


def samples(text: str) -> Samples:
    """Every sample of an exposition; fails where it is not valid text, or says one thing twice."""
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation
        assert family.type != "unknown", family.name
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in found, key
            found[key] = sample.value
    return found


def scraped(caller: httpx.Client, port: int) -> tuple[Samples, Samples]:
    """What the gateway and what the worker says."""
    answers = [caller.get("/metrics"), httpx.get(f"http://127.0.0.1:{port}/metrics")]
    for answer in answers:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return samples(answers[0].text), samples(answers[1].text)


def value(found: Samples, name: str, **labels: str) -> float:
    """The sum of all samples of a name that have these labels."""
    return sum(
        number for (known, has), number in found.items() if known == name and labels.items() <= dict(has).items()
    )


def test_what_was_asked_is_counted_once_by_gateway_and_worker(caller: httpx.Client, port: int):
    wait_for(lambda: value(scraped(caller, port)[0], "sluice_worker_slots") == 2, 5)
    before = scraped(caller, port)[0]
    for number in range(5):
        body = {"instances": [[float(number), 0.0]] * 2}
        assert caller.post("/v1/models/double:predict", json=body).status_code == 200
    caller.post("/v1/models/double:predict", json={"instances": []})
    caller.post("/v1/models/unknown:predict", json={"instances": []})
    ended(caller, submit(caller, "double", 1.0, 2.0))
    for now in scraped(caller, port):

        def more(name: str, now: Samples = now, **labels: str) -> float:
            return value(now, name, **labels) - value(before, name, **labels)

        predicted = {"route": "/v1/models/{model}:predict", "model": "double", "version": "1"}
        assert more("sluice_requests_total", **predicted, outcome="ok") == 5
        assert more("sluice_request_seconds_count", route=predicted["route"]) == 7
        assert more("sluice_requests_total", route=predicted["route"], model="", outcome="invalid") == 1
        assert more("sluice_requests_total", route="/v1/models/{model}:submit", outcome="ok") == 1
        assert more("sluice_batch_instances_sum", model="double", version="1") == 11
        assert more("sluice_inference_seconds_count", runtime="onnx", model="double") == 6
        assert more("sluice_jobs_total", model="double", outcome="succeeded") == 1
        assert more("sluice_requests_total", outcome="failed") == 0
        assert value(now, "sluice_loaded_predictors") in (1, 2)
        assert value(now, "sluice_dependency_up", dependency="redis") == 1
        assert value(now, "sluice_resident_bytes", process="gateway") > 50_000_000
        assert value(now, "sluice_resident_bytes", process="worker") > 50_000_000


def test_counts_are_right_after_a_worker_process_was_killed_and_replaced(
    installation: Cluster, caller: httpx.Client, port: int
):
    worker = installation.processes[0].pid
    body = {"instances": [[1.0, 2.0]] * 3}
    for _ in range(4):
        assert caller.post("/v1/models/double:predict", json=body).status_code == 200
    before = scraped(caller, port)
    killed = children(worker)
    kill(killed)
    wait_for(lambda: len(set(children(worker)) - set(killed)) == 2, 15)
    for then, now in zip(before, scraped(caller, port), strict=True):
        assert value(now, "sluice_batch_instances_sum") == value(then, "sluice_batch_instances_sum")
        assert value(now, "sluice_inference_seconds_count") == value(then, "sluice_inference_seconds_count")
        assert value(now, "sluice_loaded_predictors") == 0, "a dead process's predictors are not in memory"
    wait_for(lambda: ready(installation.gateways[0])["slots"] == 2, 15)
    assert caller.post("/v1/models/double:predict", json=body).json() == {"predictions": [[2.0, 4.0]] * 3}
    for then, now in zip(before, scraped(caller, port), strict=True):
        assert value(now, "sluice_batch_instances_sum") == value(then, "sluice_batch_instances_sum") + 3
        assert value(now, "sluice_loaded_predictors") == 1
    assert not [file for file in metric_files(installation) if any(f"_{pid}-" in file for pid in killed)]


def metric_files(installation: Cluster) -> list[str]:
    return [file.name for file in (Path(installation.folder) / "metrics").glob("*.db")]


def test_metrics_want_their_scope(installation: Cluster, caller: httpx.Client):
    assert httpx.get(f"{installation.gateways[0]}/metrics").status_code == 401
    assert caller.get("/metrics").status_code == 200
