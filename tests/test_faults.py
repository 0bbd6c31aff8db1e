"""What dies in the middle of work: processes, Redis, and everything in it. Nothing accepted is lost."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.conftest import RedisServer
from tests.processes import Cluster, children, cluster, kill, ready, wait_for

# About a second of inference on one quiet core.
SECOND_OF_ROUNDS = 6_000


@pytest.fixture(scope="module")
def redis_of_ours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis-of-ours"))
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def installation(redis_of_ours: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A gateway and a serving worker with two processes: one for all tests, which recovers from each of them."""
    folder = tmp_path_factory.mktemp("installation")
    with cluster(folder, redis_of_ours.url, f"sqlite:///{folder / 'sluice.db'}") as made:
        made.start_worker(hang_limit_seconds=6)
        made.start_gateway()
        made.wait_for_slots(2)
        yield made


def predict(caller: httpx.Client, model: str, *row: float) -> httpx.Response:
    return caller.post(f"/v1/models/{model}:predict", json={"instances": [list(row)]})


def submit(caller: httpx.Client, model: str, *row: float) -> str:
    answer = caller.post(f"/v1/models/{model}:submit", json={"instances": [list(row)]})
    assert answer.status_code == 202, answer.text
    job: str = answer.json()["id"]
    return job


def result(caller: httpx.Client, job: str) -> dict[str, object]:
    found: dict[str, object] = caller.get(f"/v1/jobs/{job}", params={"wait": 30}).json()
    return found


def test_200_jobs_survive_a_wiped_redis(installation: Cluster, redis_of_ours: RedisServer):
    caller = installation.caller("slow", "double")
    # A long one first, so that the others still wait when everything is wiped.
    jobs = [submit(caller, "slow", 1.0, SECOND_OF_ROUNDS / 2)]
    jobs += [submit(caller, "double", float(i), 0.0) for i in range(199)]
    with redis_of_ours.client() as client:
        client.flushall()
    answers = [result(caller, job) for job in jobs]
    assert [answer["state"] for answer in answers] == ["succeeded"] * 200
    assert [answer["predictions"] for answer in answers[1:]] == [[[2.0 * i, 0.0]] for i in range(199)]


def test_waiting_requests_are_answered_by_another_attempt_after_a_kill(installation: Cluster):
    caller = installation.caller("slow")
    predict(caller, "slow", 1.0, 1.0)
    worker = installation.processes[0]
    with ThreadPoolExecutor(4) as threads:
        asked = [threads.submit(predict, caller, "slow", float(i), float(SECOND_OF_ROUNDS)) for i in range(4)]
        time.sleep(0.5)
        killed_at = time.monotonic()
        kill(children(worker.pid))
        answers = [one.result() for one in asked]
    assert time.monotonic() - killed_at < 15
    assert [answer.status_code for answer in answers] == [200] * 4, [answer.text for answer in answers]
    firsts = [answer.json()["predictions"][0][0] for answer in answers]
    assert firsts == pytest.approx([0.0, 2.0, 4.0, 6.0])


@pytest.mark.long  # the lease must end first
def test_jobs_run_again_after_a_kill_in_the_middle_of_a_batch(installation: Cluster):
    caller = installation.caller("slow")
    jobs = [submit(caller, "slow", float(i), float(SECOND_OF_ROUNDS)) for i in range(3)]
    wait_for(lambda: caller.get(f"/v1/jobs/{jobs[0]}").json()["state"] == "running", 10)
    killed_at = time.monotonic()
    kill(children(installation.processes[0].pid))
    wait_for(lambda: caller.get(f"/v1/jobs/{jobs[0]}").json()["state"] in ("succeeded", "failed"), 40)
    assert time.monotonic() - killed_at < 21
    answers = [result(caller, job) for job in jobs]
    assert [answer["state"] for answer in answers] == ["succeeded"] * 3, answers
    assert answers[0]["attempts"] == 2


@pytest.mark.long
def test_an_inference_that_never_ends_is_ended_and_others_go_on(installation: Cluster):
    caller = installation.caller("slow", "double")
    assert predict(caller, "double", 1.0, 0.0).status_code == 200
    with ThreadPoolExecutor(1) as threads:
        endless = threads.submit(predict, caller, "slow", 1.0, 1e9)
        time.sleep(1)
        # The other process, or the loop of the same one, serves meanwhile.
        assert predict(caller, "double", 2.0, 0.0).json() == {"predictions": [[4.0, 0.0]]}
        answer = endless.result()
    assert answer.status_code == 503
    assert "died twice" in answer.json()["error"]
    assert predict(caller, "double", 3.0, 0.0).json() == {"predictions": [[6.0, 0.0]]}


def test_redis_away_is_said_and_service_returns_by_itself(installation: Cluster, redis_of_ours: RedisServer):
    caller = installation.caller("double")
    assert predict(caller, "double", 1.0, 0.0).status_code == 200
    redis_of_ours.kill()
    wait_for(lambda: predict(caller, "double", 1.0, 0.0).status_code == 503, 5)
    refused = predict(caller, "double", 1.0, 0.0)
    assert refused.headers["retry-after"]
    assert "queue" in refused.json()["error"]
    assert ready(installation.gateways[0])["redis"] == "down"
    job = submit(caller, "double", 7.0, 0.0)  # the row is the promise
    redis_of_ours.start()
    returned_at = time.monotonic()
    wait_for(lambda: predict(caller, "double", 1.0, 0.0).status_code == 200, 10)
    assert time.monotonic() - returned_at < 5
    assert result(caller, job)["predictions"] == [[14.0, 0.0]]


def test_a_paused_redis_holds_up_nothing_but_predictions(installation: Cluster, redis_of_ours: RedisServer):
    caller = installation.caller("double")
    predict(caller, "double", 1.0, 0.0)
    assert redis_of_ours.process is not None
    os.kill(redis_of_ours.process.pid, signal.SIGSTOP)
    try:
        assert caller.get("/v1/models/double").status_code == 200
        assert predict(caller, "double", 1.0, 0.0).status_code in (503, 504)
        job = submit(caller, "double", 5.0, 0.0)
    finally:
        os.kill(redis_of_ours.process.pid, signal.SIGCONT)
    wait_for(lambda: predict(caller, "double", 1.0, 0.0).status_code == 200, 10)
    assert result(caller, job)["state"] == "succeeded"


@pytest.mark.parametrize("pool", ["threads", "solo"])
@pytest.mark.long
def test_other_celery_pools_serve_too(redis_of_ours: RedisServer, tmp_path: Path, pool: str):
    with cluster(tmp_path, redis_of_ours.url, f"sqlite:///{tmp_path / 'sluice.db'}") as made:
        made.start_worker(worker_execution=pool)
        made.start_gateway()
        made.wait_for_slots(1)
        caller = made.caller("double", "slow")
        assert predict(caller, "double", 1.0, 2.0).json() == {"predictions": [[2.0, 4.0]]}
        assert result(caller, submit(caller, "slow", 1.0, 5.0))["predictions"] == [[2.0, 10.0]]


def test_a_worker_that_is_told_to_stop_finishes_what_it_began(installation: Cluster):
    # Last in this file: the installation has no worker afterwards.
    caller = installation.caller("slow")
    with ThreadPoolExecutor(1) as threads:
        asked = threads.submit(predict, caller, "slow", 3.0, float(SECOND_OF_ROUNDS))
        time.sleep(0.5)
        installation.processes[0].send_signal(signal.SIGTERM)
        answer = asked.result()
    assert answer.json() == {"predictions": [[6.0, pytest.approx(2.0 * SECOND_OF_ROUNDS)]]}
    installation.processes[0].wait(20)
