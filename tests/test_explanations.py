"""`:explain` through gateway, queue and worker: who may ask, what is answered, and that it is a job."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from auth.scopes import Scope
from tests.processes import Cluster
from tests.serving import ended

ROW = {"instances": [[1.5, -2.0]]}


@pytest.mark.parametrize(("path", "factor"), [("times", 3.0), ("times/versions/1", 2.0), ("times/labels/stable", 2.0)])
def test_an_explanation_is_of_the_version_that_the_path_names(caller: httpx.Client, path: str, factor: float):
    answer = caller.post(f"/v1/models/{path}:explain", json=ROW)
    assert answer.status_code == 200
    assert "preference-applied" not in answer.headers
    assert answer.headers["sluice-model-version"] == ("2" if path == "times" else "1")
    assert answer.json() == {
        "predictions": [[factor * 1.5, factor * -2.0]],
        "explanations": [
            {
                "method": "occlusion",
                "output": "y",
                "class": 0,
                "score": factor * 1.5,
                "attributions": {"x": [factor * 1.5, 0.0]},
            }
        ],
    }


def test_an_explanation_is_a_job_at_bulk_priority_whatever_was_asked_for(caller: httpx.Client):
    asked = {"prefer": "respond-async", "sluice-priority": "interactive"}
    accepted = caller.post("/v1/models/double:explain", json=ROW, headers=asked)
    assert (accepted.status_code, accepted.headers["preference-applied"]) == (202, "respond-async")
    document = ended(caller, accepted.json()["id"])
    assert (document["priority"], document["progress"]) == ("bulk", {"done": 3, "total": 3})
    result: dict[str, Any] = caller.get(f"{accepted.headers['location']}/result").json()
    assert document["result"] == result == caller.post("/v1/models/double:explain", json=ROW).json()


def test_one_key_makes_one_explanation_and_no_prediction(caller: httpx.Client):
    keyed = {"idempotency-key": "explained-once"}
    first = caller.post("/v1/models/double:explain", json=ROW, headers=keyed)
    again = caller.post("/v1/models/double:explain", json=ROW, headers=keyed)
    assert (again.status_code, again.json()) == (200, first.json())
    assert again.headers["idempotent-replayed"] == "true"
    assert caller.post("/v1/models/double:submit", json=ROW, headers=keyed).status_code == 422


def test_a_scope_of_its_own_is_needed_and_is_enough(serving: Cluster):
    predicting = serving.caller("double", scopes=[Scope.PREDICT])
    refused = predicting.post("/v1/models/double:explain", json=ROW)
    assert (refused.status_code, 'scope="explain"' in refused.headers["www-authenticate"]) == (403, True)
    explaining = serving.caller("double", scopes=[Scope.EXPLAIN, Scope.MODELS_READ])
    assert explaining.post("/v1/models/double:explain", json=ROW).status_code == 200
    assert explaining.post("/v1/models/double:predict", json=ROW).status_code == 403
    assert explaining.post("/v1/models/times:explain", json=ROW).status_code == 404


def test_what_cannot_be_explained_is_refused_at_once(caller: httpx.Client):
    answer = caller.post("/v1/models/double:explain", json={**ROW, "explain": {"class": 2}})
    assert (answer.status_code, "'y' has 2 values" in answer.json()["error"]) == (400, True)


def test_what_only_the_worker_finds_wrong_is_a_refusal_too_unless_a_job_was_asked_for(caller: httpx.Client):
    body = {**ROW, "explain": {"class": "a name"}}
    answer = caller.post("/v1/models/double:explain", json=body)
    assert (answer.status_code, "classes have none" in answer.json()["error"]) == (400, True)
    job = caller.post("/v1/models/double:explain", json=body, headers={"prefer": "wait=30"})
    assert (job.status_code, job.json()["state"]) == (202, "failed")
    # A model that fails is no fault of the request.
    broken = caller.post("/v1/models/table:explain", json={"instances": [99]})
    assert broken.status_code == 500
