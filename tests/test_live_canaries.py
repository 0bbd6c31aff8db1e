"""Canaries in an installation that serves: promoted or taken back by what callers got of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from auth.audit_tables import AuditEntry
from auth.scopes import Scope
from model_store.database import transaction
from model_store.signature import Signature, TensorSpec
from tests.processes import Cluster, wait_for
from tests.queue_kit import doubling_model, serve_model, slow_model
from tests.serving import paused_workers, table

pytestmark = pytest.mark.long


def start(caller: httpx.Client, model: str, **conditions: float) -> None:
    """A canary of version 2 that asks for ten requests a step, and takes no longer than that."""
    body = {"version": 2, "steps": [50, 100], "step_seconds": 0, "least_requests": 10, "conditions": conditions}
    shown = caller.put(f"/admin/models/{model}/canary", json=body)
    assert shown.status_code == 200, shown.text
    assert (shown.json()["stable"], shown.json()["state"], shown.json()["percent"]) == (1, "running", 50.0)


def ended(caller: httpx.Client, model: str, body: object, *, answers: set[int]) -> dict[str, Any]:
    """What became of a canary while somebody asks all the time, and is answered with these statuses only."""
    found: dict[str, Any] = {}

    def over() -> bool:
        for _ in range(5):
            answer = caller.post(f"/v1/models/{model}:predict", json=body)
            assert answer.status_code in answers, answer.text
        found.update(caller.get(f"/admin/models/{model}/canary").json())
        return bool(found["state"] != "running")

    wait_for(over, 30)
    return found


def version_of(caller: httpx.Client, model: str, body: object) -> set[str]:
    answers = [caller.post(f"/v1/models/{model}:predict", json=body) for _ in range(5)]
    return {answer.headers["sluice-model-version"] for answer in answers}


def test_a_good_version_is_promoted_by_itself(serving: Cluster, tmp_path: Path):
    model, body = "canary-good", {"instances": [[1.0, 2.0]]}
    for factor in (2.0, 2.000001):
        path = doubling_model(tmp_path / f"{factor}.onnx", factor)
        serve_model(serving.sessions, serving.artifacts, path, model)
    caller = serving.caller(model, scopes=frozenset(Scope))
    shadow = {"version": 2, "share": 1}
    caller.put(f"/admin/models/{model}/shadow", json=shadow).raise_for_status()
    start(caller, model, error_rate=0.0, p99_seconds=20.0, disagreement=0.0)
    found = ended(caller, model, body, answers={200})
    assert [move["move"] for move in found["history"]] == ["begun", "stepped", "promoted"]
    assert found["state"] == "promoted"
    wait_for(lambda: version_of(caller, model, body) == {"2"}, 10)
    # and an administrator goes back in one call
    assert caller.post(f"/admin/models/{model}/canary/rollback").json()["state"] == "rolled_back"
    wait_for(lambda: version_of(caller, model, body) == {"1"}, 10)


@pytest.mark.parametrize("bad", ["errors", "wrong", "slow"])
def test_a_bad_version_is_rolled_back_by_itself(serving: Cluster, tmp_path: Path, bad: str):
    # given a version that fails, one that answers something else, one that takes its time
    model, body, answers = f"canary-{bad}", {"instances": [[1.0, 10_000.0]]}, {200}
    conditions = {"errors": {"error_rate": 0.2}, "wrong": {"disagreement": 0.1}, "slow": {"p99_seconds": 0.1}}[bad]
    signature = Signature((TensorSpec("n", "int64", (None,)),), (TensorSpec("y", "float32", (None,)),))
    stable, other = tmp_path / "stable.onnx", tmp_path / "other.onnx"
    if bad == "errors":
        body, answers = {"instances": [3]}, {200, 500}
        serve_model(serving.sessions, serving.artifacts, table(stable), model, signature=signature)
        serve_model(serving.sessions, serving.artifacts, table(other, [0.5, 1.5]), model, signature=signature)
    else:
        serve_model(serving.sessions, serving.artifacts, doubling_model(stable), model)
        made = slow_model(other) if bad == "slow" else doubling_model(other, 3.0)
        serve_model(serving.sessions, serving.artifacts, made, model, batch_seconds=0.05)
    caller = serving.caller(model, scopes=frozenset(Scope))
    if bad == "wrong":
        caller.put(f"/admin/models/{model}/shadow", json={"version": 2, "share": 1}).raise_for_status()
    start(caller, model, **conditions)

    # when callers come, then it is taken back without anybody doing anything, and nobody gets it any more
    found = ended(caller, model, body, answers=answers)
    assert found["state"] == "rolled_back"
    assert found["history"][-1]["automatic"]
    assert {"errors": "failed", "wrong": "disagreed", "slow": "p99"}[bad] in found["history"][-1]["reason"]
    wait_for(lambda: version_of(caller, model, body) == {"1"}, 10)
    with transaction(serving.sessions, write=False) as session:
        rows = session.scalars(select(AuditEntry).where(AuditEntry.model == model)).all()
        assert [row.act for row in rows][-2:] == ["begin_canary", "move_canary"]


def test_callers_who_hang_up_before_they_are_answered_promote_nothing(serving: Cluster, tmp_path: Path):
    # given a canary whose version does not answer, and a caller who is less patient than the gateway
    model = "canary-hangs"
    for factor in (2.0, 3.0):
        serve_model(serving.sessions, serving.artifacts, doubling_model(tmp_path / f"{factor}.onnx", factor), model)
    caller = serving.caller(model, scopes=frozenset(Scope))
    body = {"version": 2, "steps": [50, 100], "step_seconds": 0, "least_requests": 1}
    caller.put(f"/admin/models/{model}/canary", json=body).raise_for_status()
    with paused_workers(serving), pytest.raises(httpx.ReadTimeout):
        caller.post(f"/v1/models/{model}/versions/2:predict", json={"instances": [[1.0, 2.0]]}, timeout=1)

    # then it is known how long that took, and nothing of it is a success
    found: dict[str, Any] = {}

    def timed() -> bool:
        found.update(caller.get(f"/admin/models/{model}/canary").json())
        return found["standing"]["p99_seconds"] is not None

    wait_for(timed, 20)
    assert (found["state"], found["step"]) == ("running", 0)
    assert (found["standing"]["requests"], found["standing"]["awaited"]) == (0, "1 more requests")
