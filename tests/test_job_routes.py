"""Jobs over HTTP: waiting for them, listing, canceling and forgetting them; and that they are their client's alone."""

from __future__ import annotations

import base64
import secrets
from pathlib import Path

import httpx
import pytest

from auth.grants import GrantSpec
from auth.scopes import Scope
from tests.conftest import RedisServer
from tests.live_gateway import EVERY_MODEL, live_gateway, refused
from tests.processes import Cluster, wait_for
from tests.serving import ended, paused_workers, submit

UNKNOWN = "there is no such job, or not any more"


def listed(caller: httpx.Client, **query: str | int) -> list[str]:
    """Ids of one page of the list."""
    answer = caller.get("/v1/jobs", params=query)
    assert answer.status_code == 200, answer.text
    return [job["id"] for job in answer.json()["jobs"]]


def state_of(caller: httpx.Client, job: str) -> str:
    return str(caller.get(f"/v1/jobs/{job}").json()["state"])


def test_jobs_that_wait_know_their_place_and_who_asks_with_patience_gets_the_result(
    serving: Cluster, caller: httpx.Client
):
    with paused_workers(serving):
        jobs = [submit(caller, "double", float(number), 0.0) for number in range(3)]
        found = [caller.get(f"/v1/jobs/{job}").json() for job in jobs]
        assert [job["queue_position"] for job in found] == [1, 2, 3]
        assert {job["state"] for job in found} == {"queued"}
        waited = caller.get(f"/v1/jobs/{jobs[0]}", params={"wait": 0.2})
        assert (waited.status_code, waited.json()["state"]) == (200, "queued")
        early = caller.get(f"/v1/jobs/{jobs[0]}/result")
        assert refused(early, 409, "job_not_ended")
    assert [ended(caller, job)["predictions"] for job in jobs] == [[[0.0, 0.0]], [[2.0, 0.0]], [[4.0, 0.0]]]


def test_the_list_has_ones_own_jobs_the_newest_first_a_page_at_a_time(serving: Cluster):
    caller = serving.caller("double", "times")
    assert caller.get("/v1/jobs").json() == {"jobs": [], "next_page_token": None}
    jobs = [submit(caller, model, 1.0, 2.0) for model in ("double", "times", "double", "double", "times")]
    for job in jobs:
        ended(caller, job)
    newest_first = jobs[::-1]
    assert listed(caller) == newest_first
    assert listed(caller, model="times") == [newest_first[0], newest_first[3]]
    assert listed(caller, state="succeeded") == newest_first
    assert listed(caller, state="queued") == []
    assert listed(caller, model="double", state="succeeded", limit=2) == newest_first[1:3]

    pages, token = [], ""
    while token is not None:
        query = {"limit": 2, **({"page_token": token} if token else {})}
        page = caller.get("/v1/jobs", params=query).json()
        pages.append([job["id"] for job in page["jobs"]])
        token = page["next_page_token"]
    assert pages == [newest_first[:2], newest_first[2:4], newest_first[4:]]
    assert "predictions" not in caller.get("/v1/jobs").text
    assert [job["state"] for job in caller.get("/v1/jobs").json()["jobs"]] == ["succeeded"] * 5


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ({"limit": "0"}, 422, "request_invalid"),
        ({"limit": "101"}, 422, "request_invalid"),
        ({"limit": "all"}, 422, "request_invalid"),
        ({"state": "done"}, 422, "request_invalid"),
        ({"model": "no name"}, 422, "request_invalid"),
        ({"model": "\0"}, 422, "request_invalid"),
        ({"page_token": "x" * 65}, 422, "request_invalid"),
        ({"page_token": "é"}, 400, "page_token_invalid"),
        ({"page_token": "AAAA"}, 400, "page_token_invalid"),
        ({"page_token": base64.urlsafe_b64encode(b"-1").decode()}, 400, "page_token_invalid"),
        ({"page_token": base64.urlsafe_b64encode(b"9" * 40).decode()}, 400, "page_token_invalid"),
    ],
)
def test_a_query_that_makes_no_sense_is_refused(caller: httpx.Client, query: dict[str, str], status: int, code: str):
    assert refused(caller.get("/v1/jobs", params=query), status, code)


@pytest.mark.parametrize("wait", ["-1", "61", "NaN", "inf", "soon"])
def test_nobody_waits_for_ever(caller: httpx.Client, wait: str):
    assert refused(caller.get("/v1/jobs/any", params={"wait": wait}), 422, "request_invalid")


def test_a_canceled_job_never_runs_and_the_others_do(serving: Cluster, caller: httpx.Client):
    with paused_workers(serving):
        before, job, after = (submit(caller, "double", float(number), 0.0) for number in range(3))
        canceled = caller.post(f"/v1/jobs/{job}/cancel")
        assert (canceled.status_code, canceled.json()["state"]) == (200, "canceled")
        assert canceled.json()["error"] == {"code": "canceled", "message": "its client canceled it"}
        assert caller.get(f"/v1/jobs/{after}").json()["queue_position"] == 2
    assert [ended(caller, other)["predictions"] for other in (before, after)] == [[[0.0, 0.0]], [[4.0, 0.0]]]
    final = ended(caller, job)
    assert (final["state"], final["attempts"], final["started_at"]) == ("canceled", 0, None)
    assert final == canceled.json()
    assert refused(caller.post(f"/v1/jobs/{job}/cancel"), 409, "job_ended")
    late = caller.get(f"/v1/jobs/{job}/result")
    assert refused(late, 409, "job_ended")
    assert late.json()["detail"] == "the job is canceled and has no result: its client canceled it"


def test_a_canceled_jobs_result_is_dropped_if_it_ran_already(serving: Cluster, caller: httpx.Client):
    job = submit(caller, "slow", 1.0, 20_000.0)
    wait_for(lambda: state_of(caller, job) == "running", 10)
    with paused_workers(serving):
        assert caller.post(f"/v1/jobs/{job}/cancel").json()["state"] == "canceled"
    # The next one of the same lane waits for the end of the canceled one, or runs beside it in the other process.
    assert ended(caller, submit(caller, "slow", 2.0, 20_000.0))["state"] == "succeeded"
    final = ended(caller, job)
    assert (final["state"], final["attempts"]) == ("canceled", 1)
    assert "predictions" not in final
    assert refused(caller.get(f"/v1/jobs/{job}/result"), 409, "job_ended")


def test_a_job_that_ended_cannot_be_canceled(caller: httpx.Client):
    job = submit(caller, "double", 1.0, 2.0)
    done = ended(caller, job)
    late = caller.post(f"/v1/jobs/{job}/cancel")
    assert refused(late, 409, "job_ended")
    assert late.json()["detail"] == "the job is succeeded already"
    assert ended(caller, job) == done


def test_a_deleted_job_is_gone_whatever_its_state(serving: Cluster, caller: httpx.Client):
    done = submit(caller, "double", 1.0, 2.0)
    ended(caller, done)
    with paused_workers(serving):
        waiting = submit(caller, "double", 3.0, 4.0)
        for job in (done, waiting):
            assert (deleted := caller.delete(f"/v1/jobs/{job}")).status_code == 204
            assert deleted.content == b""
    following = submit(caller, "double", 5.0, 6.0)
    assert ended(caller, following)["predictions"] == [[10.0, 12.0]]
    for job in (done, waiting):
        assert refused(caller.get(f"/v1/jobs/{job}"), 404, "job_not_found")
        assert job not in listed(caller, limit=100)


@pytest.mark.parametrize("path", ["{}", "{}?wait=1", "{}/result", "{}/cancel", "DELETE {}"])
def test_somebody_elses_job_does_not_exist(serving: Cluster, caller: httpx.Client, path: str):
    job = submit(caller, "double", 1.0, 2.0)
    ended(caller, job)
    method = "DELETE" if path.startswith("DELETE") else "POST" if path.endswith("cancel") else "GET"
    address, headers = f"/v1/jobs/{path.removeprefix('DELETE ')}", {"x-request-id": "the-same-one"}
    with httpx.Client(base_url=caller.base_url, headers=serving.caller("double").headers) as stranger:
        theirs = stranger.request(method, address.format(job), headers=headers)
        unknown = stranger.request(method, address.format(secrets.token_urlsafe(18)), headers=headers)
        assert job not in stranger.get("/v1/jobs").text
    assert refused(theirs, 404, "job_not_found")
    assert theirs.json()["detail"] == UNKNOWN
    assert theirs.content == unknown.content
    assert theirs.headers.multi_items() == unknown.headers.multi_items()
    assert state_of(caller, job) == "succeeded"


def test_whoever_may_submit_or_has_the_scope_may_look_and_nobody_else(redis_server: RedisServer, tmp_path: Path):
    prefix = f"t{secrets.token_hex(4)}"
    with live_gateway(tmp_path, redis_url=redis_server.url, key_prefix=prefix) as gateway:
        for scope, expected in ((Scope.JOBS, 200), (Scope.PREDICT, 200), (Scope.MODELS_READ, 403)):
            with gateway.client([scope], [GrantSpec("double")]) as client:
                answer = client.get("/v1/jobs")
                assert answer.status_code == expected, scope
        assert refused(answer, 403, "insufficient_scope")
        assert 'scope="jobs"' in answer.headers["www-authenticate"]


def test_addresses_that_no_job_and_no_model_can_have_are_refused_on_every_database(
    redis_server: RedisServer, database_url: str, tmp_path: Path
):
    prefix, scopes = f"t{secrets.token_hex(4)}", [Scope.JOBS, Scope.MODELS_WRITE]
    settings = {"redis_url": redis_server.url, "key_prefix": prefix, "database_url": database_url}
    with live_gateway(tmp_path, **settings) as gateway, gateway.client(scopes, [EVERY_MODEL]) as client:
        for job in ("%00", "a%00b", "%ff", "%ed%a0%80", "x" * 5000, "..%2f", "a%20b"):
            answers = [client.get(f"/v1/jobs/{job}"), client.delete(f"/v1/jobs/{job}")]
            answers += [client.post(f"/v1/jobs/{job}/cancel"), client.get(f"/v1/jobs/{job}/result")]
            assert {answer.status_code for answer in answers} <= {400, 404, 405}, job
        for path in ("%00", "%00/versions/1", "m/versions/9223372036854775808", "m/labels/%00", "%ff"):
            method = "DELETE" if "labels" in path else "GET"
            assert client.request(method, f"/admin/models/{path}").status_code in (400, 404, 422), path
        assert client.get("/v1/jobs", params={"page_token": "OTk5OTk5OTk5OTk5OTk5OTk5OTk="}).status_code == 400
