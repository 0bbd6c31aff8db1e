"""A canary while its gateways die and others begin: it goes on where it stood."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from auth.scopes import Scope
from tests.conftest import RedisServer
from tests.processes import Cluster, cluster, wait_for
from tests.queue_kit import doubling_model, serve_model

MODEL = "tried"
BODY = {"instances": [[1.0, 2.0]]}


def moves(caller: httpx.Client, gateway: str) -> list[str]:
    found = caller.get(f"{gateway}/admin/models/{MODEL}/canary").raise_for_status().json()
    return [move["move"] for move in found["history"]]


def ask(caller: httpx.Client, gateway: str, user: str = "ann") -> str:
    answer = caller.post(f"{gateway}/v1/models/{MODEL}:predict", json=BODY, headers={"x-user": user})
    assert answer.status_code == 200, answer.text
    return answer.headers["sluice-model-version"]


def two_versions(made: Cluster) -> None:
    for factor in (2.0, 3.0):
        serve_model(made.sessions, made.artifacts, doubling_model(made.folder / f"{factor}.onnx", factor), MODEL)


@pytest.mark.long
def test_a_canary_goes_on_after_every_gateway_was_killed(redis_server: RedisServer, tmp_path: Path):
    with cluster(tmp_path, redis_server.url, f"sqlite:///{tmp_path / 'sluice.db'}") as made:
        # given a canary at its second step, by what one gateway saw
        two_versions(made)
        made.start_worker()
        first = made.start_gateway()
        made.wait_for_slots(1)
        caller = made.caller(MODEL, scopes=frozenset(Scope))
        plan = {
            "version": 2,
            "steps": [50, 75, 100],
            "step_seconds": 0,
            "least_requests": 10,
            "sticky": "header:X-User",
        }
        caller.put(f"/admin/models/{MODEL}/canary", json=plan).raise_for_status()
        users = [f"user-{number}" for number in range(30)]
        before = {user: ask(caller, first, user) for user in users}
        assert set(before.values()) == {"1", "2"}
        wait_for(lambda: moves(caller, first) == ["begun", "stepped"], 20)

        # when that one is killed, and another begins
        made.processes[-1].kill()
        made.processes[-1].wait()
        second = made.start_gateway()
        wait_for(lambda: httpx.get(f"{second}/health/ready", timeout=5).status_code == 200, 20)

        # then callers are where they were, or with the version whose share grew, and the canary goes on to its end
        after = {user: ask(caller, second, user) for user in users}
        assert all(after[user] in (before[user], "2") for user in users)

        def promoted() -> bool:
            for user in users[:15]:
                ask(caller, second, user)
            return moves(caller, second) == ["begun", "stepped", "stepped", "promoted"]

        wait_for(promoted, 40)
        wait_for(lambda: {ask(caller, second, user) for user in users} == {"2"}, 10)
