"""Predictions as callers ask for them, through gateway, queue and worker as processes of their own."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest

from auth import clients
from auth.grants import GrantSpec, set_grants
from auth.scopes import DEFAULT
from model_store.database import transaction
from tests.processes import Cluster, wait_for
from tests.serving import client_id_of, ended, paused_workers, submit

ROWS = {"instances": [[1.0, 2.0], [3.0, -4.5]]}
DOUBLED = {"predictions": [[2.0, 4.0], [6.0, -9.0]]}
COLUMNS = {"inputs": [[1.0, 2.0], [3.0, -4.5]]}


def predict(caller: httpx.Client, model: str = "double", **headers: str) -> httpx.Response:
    return caller.post(f"/v1/models/{model}:predict", json=ROWS, headers=headers)


@pytest.mark.parametrize(
    ("path", "version", "factor"),
    [
        ("times", "2", 3),
        ("times/versions/1", "1", 2),
        ("times/versions/2", "2", 3),
        ("times/labels/stable", "1", 2),
    ],
)
def test_a_path_names_a_version_and_the_answer_says_which(caller: httpx.Client, path: str, version: str, factor: float):
    answer = predict(caller, path)
    assert (answer.status_code, answer.headers["sluice-model-version"]) == (200, version)
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {"predictions": [[factor * value for value in row] for row in ROWS["instances"]]}
    job = caller.post(f"/v1/models/{path}:submit", json=ROWS)
    assert (job.json()["version"], job.headers["sluice-model-version"]) == (version, version)
    assert ended(caller, job.json()["id"])["predictions"] == answer.json()["predictions"]


def test_rows_are_answered_with_predictions_and_columns_with_outputs(caller: httpx.Client):
    path = "/v1/models/double:predict"
    assert caller.post(path, json=ROWS).json() == DOUBLED
    assert caller.post(path, json=COLUMNS).json() == {"outputs": DOUBLED["predictions"]}
    assert caller.post(path, json={"instances": [{"x": [1, 2]}]}).json() == {"predictions": [[2.0, 4.0]]}
    assert caller.post(path, json={"inputs": {"x": [[1, 2]]}}).json() == {"outputs": [[2.0, 4.0]]}
    assert caller.post("/v1/models/whole:predict", json={"instances": [[1, 2, 2**40]]}).text == (
        '{"predictions":[[2,4,2199023255552]]}'
    )


def test_a_request_id_comes_back_if_it_is_a_sane_one(caller: httpx.Client):
    assert predict(caller, **{"X-Request-Id": "order-0815"}).headers["x-request-id"] == "order-0815"
    assert predict(caller, "unknown", **{"X-Request-Id": "order-0816"}).headers["x-request-id"] == "order-0816"
    for insane in ("short", "a" * 65, "order 0815", "order_0815"):
        own = predict(caller, **{"X-Request-Id": insane}).headers["x-request-id"]
        assert re.fullmatch("[0-9a-f]{16}", own)


def test_the_list_has_the_models_of_ones_grants(serving: Cluster, caller: httpx.Client):
    assert caller.get("/v1/models").json() == {"models": ["double", "slow", "table", "times", "unready", "whole"]}
    assert serving.caller("times", scopes=DEFAULT).get("/v1/models").json() == {"models": ["times"]}


def test_a_submitted_prediction_becomes_a_job_with_the_same_answer(caller: httpx.Client):
    accepted = caller.post("/v1/models/double:submit", json=ROWS)
    assert accepted.status_code == 202
    assert "preference-applied" not in accepted.headers
    document = accepted.json()
    assert accepted.headers["location"] == f"/v1/jobs/{document['id']}"
    assert (document["state"], document["attempts"], document["error"]) == ("queued", 0, None)
    assert document["progress"] == {"done": 0, "total": 2}

    done = caller.get(accepted.headers["location"], params={"wait": 30})
    assert (done.status_code, done.headers["sluice-model-version"]) == (200, "1")
    assert done.json() == {
        **document,
        "state": "succeeded",
        "attempts": 1,
        "queue_position": None,
        "progress": {"done": 2, "total": 2},
        "started_at": done.json()["started_at"],
        "finished_at": done.json()["finished_at"],
        "receipt": done.json()["receipt"],
        **DOUBLED,
    }
    times = [done.json()[name] for name in ("created_at", "started_at", "finished_at")]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", time) for time in times)
    assert times == sorted(times)

    bare = caller.get(f"/v1/jobs/{document['id']}/result")
    assert (bare.status_code, bare.headers["content-type"]) == (200, "application/json")
    assert bare.content == predict(caller).content


def test_columns_are_answered_with_outputs_by_a_job_too(caller: httpx.Client):
    job = ended(caller, caller.post("/v1/models/double:submit", json=COLUMNS).json()["id"])
    assert job["outputs"] == DOUBLED["predictions"]
    assert "predictions" not in job


def test_a_preference_makes_a_prediction_a_job(caller: httpx.Client):
    accepted = predict(caller, Prefer="respond-async")
    assert (accepted.status_code, accepted.headers["preference-applied"]) == (202, "respond-async")
    assert accepted.headers["location"] == f"/v1/jobs/{accepted.json()['id']}"
    assert ended(caller, accepted.json()["id"])["predictions"] == DOUBLED["predictions"]


@pytest.mark.parametrize(
    ("prefer", "applied"),
    [("wait=5", "wait=5"), ("respond-async, wait=5", "respond-async, wait=5"), ("wait=99999", "wait=60")],
)
def test_a_job_that_ends_while_its_caller_waits_is_answered_at_once(caller: httpx.Client, prefer: str, applied: str):
    answer = predict(caller, Prefer=prefer)
    assert (answer.status_code, answer.headers["preference-applied"]) == (200, applied)
    assert answer.json() == DOUBLED
    assert caller.get(f"{answer.headers['location']}/result").content == answer.content


def test_who_waited_long_enough_is_told_where_the_job_is(serving: Cluster, caller: httpx.Client):
    with paused_workers(serving):
        answer = predict(caller, Prefer="wait=1")
    assert (answer.status_code, answer.headers["preference-applied"]) == (202, "wait=1")
    assert answer.headers["location"] == f"/v1/jobs/{answer.json()['id']}"
    assert (answer.json()["state"], answer.json()["queue_position"]) == ("queued", 1)
    assert ended(caller, answer.json()["id"])["predictions"] == DOUBLED["predictions"]


def test_preferences_that_nobody_knows_change_nothing(caller: httpx.Client):
    answer = predict(caller, Prefer="handling=lenient, wait=soon")
    assert (answer.status_code, answer.json()) == (200, DOUBLED)
    assert "preference-applied" not in answer.headers


def test_what_is_not_finite_is_read_and_written_as_bare_tokens(caller: httpx.Client):
    body, expected = b'{"instances": [[NaN, -Infinity], [1e400, 3e38]]}', "[[NaN,-Infinity],[Infinity,Infinity]]"
    answer = caller.post("/v1/models/double:predict", content=body)
    assert (answer.status_code, answer.text) == (200, f'{{"predictions":{expected}}}')
    job = caller.post("/v1/models/double:submit", content=body).json()["id"]
    assert f'"predictions":{expected}' in caller.get(f"/v1/jobs/{job}", params={"wait": 30}).text
    assert caller.get(f"/v1/jobs/{job}/result").content == answer.content


def test_bodies_and_answers_too_large_for_a_row_of_sql_go_the_same_way(caller: httpx.Client):
    rows = np.arange(40_000, dtype=float).reshape(20_000, 2)
    body = {"instances": rows.tolist()}
    answer = caller.post("/v1/models/double:predict", json=body)
    np.testing.assert_array_equal(answer.json()["predictions"], 2 * rows)
    job = caller.post("/v1/models/double:submit", json=body).json()["id"]
    document = ended(caller, job)
    assert "predictions" not in document
    assert caller.get(str(document["result_url"])).content == answer.content
    assert caller.get(f"/v1/jobs/{job}/result").content == answer.content
    assert caller.delete(f"/v1/jobs/{job}").status_code == 204


def test_a_model_that_fails_on_an_input_fails_that_request_alone(caller: httpx.Client):
    def ask(number: int) -> httpx.Response:
        return caller.post("/v1/models/table:predict", json={"instances": [number]})

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(ask, [number % 5 for number in range(40)]))
    for number, answer in enumerate(answers):
        if number % 5 == 4:
            assert (answer.status_code, list(answer.json())) == (500, ["error"])
            assert "out of data bounds" in answer.json()["error"]
            assert len(answer.content) < 1024
        else:
            assert (answer.status_code, answer.json()) == (200, {"predictions": [number % 5 + 0.5]})

    failed = caller.post("/v1/models/table:submit", json={"instances": [4]}, headers={"Prefer": "wait=30"})
    assert (failed.status_code, failed.json()["state"], failed.json()["attempts"]) == (202, "failed", 1)
    assert failed.json()["error"] == {"code": "prediction_failed", "message": answers[4].json()["error"]}
    ended_without = caller.get(f"{failed.headers['location']}/result")
    assert (ended_without.status_code, ended_without.json()["code"]) == (409, "job_ended")


def test_a_disabled_client_is_out_within_a_second(serving: Cluster):
    caller = serving.caller("double")
    assert predict(caller).status_code == 200
    with transaction(serving.sessions) as session:  # as another gateway would
        clients.set_disabled(session, client_id_of(caller), True)
    wait_for(lambda: predict(caller).status_code == 401, 1)
    refused = predict(caller)
    assert refused.json() == {"error": "the access token is not valid"}
    assert refused.headers["www-authenticate"] == 'Bearer realm="sluice", error="invalid_token"'


def test_a_model_whose_grant_is_withdrawn_is_unknown_and_its_waiting_jobs_never_run(serving: Cluster):
    caller = serving.caller("double", "times", scopes=DEFAULT)
    unknown = predict(caller, "whole").json()["error"]
    with paused_workers(serving):
        job = submit(caller, "double", 1.0, 2.0)
        with transaction(serving.sessions) as session:
            set_grants(session, client_id_of(caller), [GrantSpec("times")])
        wait_for(lambda: predict_status(caller) == 404, 1)
    refused = predict(caller)
    assert (refused.status_code, refused.json()["error"]) == (404, unknown.replace("whole", "double"))
    assert predict(caller, "times").status_code == 200
    canceled = ended(caller, job)
    assert (canceled["state"], canceled["error"]) == (
        "canceled",
        {"code": "grant_withdrawn", "message": "the right to this model was withdrawn"},
    )


def predict_status(caller: httpx.Client) -> int:
    """By way of the status of the model, which needs no worker."""
    return caller.get("/v1/models/double").status_code
