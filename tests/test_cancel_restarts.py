"""Canceled jobs while everything of the installation dies and begins again: they stay canceled, and the others run."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from sqlalchemy import Row, select

from model_store.database import transaction
from tests.conftest import RedisServer
from tests.live_gateway import refused
from tests.processes import Cluster, children, cluster, kill, wait_for
from tests.serving import ended, submit
from workers.tables import Job, JobResult

# About half a minute of inference on one quiet core: it does not end before its worker is killed.
MANY_ROUNDS = 200_000.0


@pytest.fixture
def redis_of_ours(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path)
    server.start()
    yield server
    server.kill()


def canceled(caller: httpx.Client, job: str) -> dict[str, object]:
    """Cancel a job; returns its document."""
    answer = caller.post(f"/v1/jobs/{job}/cancel")
    found: dict[str, object] = answer.json()
    assert (answer.status_code, found["state"]) == (200, "canceled"), answer.text
    return found


def rows(made: Cluster) -> dict[str, Row[tuple[str, str, int, int, int | None]]]:
    """What the database says of each job: its id, state, fence, attempts, and the moment at which it ended."""
    query = select(Job.id, Job.state, Job.fence, Job.attempt, Job.finished_at)
    with transaction(made.sessions, write=False) as session:
        return {row.id: row for row in session.execute(query)}


def results(made: Cluster) -> list[str]:
    """Ids of the jobs with a result, as often as they have one."""
    with transaction(made.sessions, write=False) as session:
        return list(session.scalars(select(Job.id).join(JobResult, JobResult.job == Job.number)))


def kill_all_of(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        kill([process.pid, *children(process.pid)])
    for process in processes:
        process.wait()


def test_a_canceled_job_stays_canceled_when_everything_was_killed(redis_of_ours: RedisServer, tmp_path: Path):
    with cluster(tmp_path, redis_of_ours.url, f"sqlite:///{tmp_path / 'sluice.db'}") as made:
        # given jobs that were canceled while they ran, after their worker died, and while they waited for another one
        worker = made.start_worker()
        made.start_gateway()
        made.wait_for_slots(2)
        caller = made.caller("double", "slow")
        running = [submit(caller, "slow", 1.0, MANY_ROUNDS) for _ in range(2)]
        wait_for(lambda: {rows(made)[job].state for job in running} == {"running"}, 20)
        final = [canceled(caller, running[0])]
        kill_all_of([worker])
        final.append(canceled(caller, running[1]))
        final += [canceled(caller, submit(caller, model, 2.0, 1.0)) for model in ("double", "slow")]
        others = [submit(caller, model, 3.0 + place, 1.0) for place, model in enumerate(["double"] * 3 + ["slow"])]
        final += [canceled(caller, submit(caller, model, 2.0, 1.0)) for model in ("double", "slow")]
        assert [document["attempts"] for document in final] == [1, 1, 0, 0, 0, 0]
        before = rows(made)

        # when the gateway is killed too, Redis loses all it has, and everything begins again
        kill_all_of(made.processes[1:])
        redis_of_ours.kill()
        redis_of_ours.start()
        made.start_worker()
        again = made.start_gateway()
        with httpx.Client(base_url=again, headers=caller.headers, timeout=60) as caller:
            # then what was not canceled is done, each once, and so is what comes later
            others.append(submit(caller, "double", 7.0, 1.0))
            done = [ended(caller, job) for job in others]
            assert [(job["state"], job["attempts"]) for job in done] == [("succeeded", 1)] * len(others)
            assert [job["predictions"] for job in done] == [[[6.0 + 2 * place, 2.0]] for place in range(len(others))]
            assert sorted(results(made)) == sorted(others)
            # and what was canceled is as it was, and is answered as before
            after = rows(made)
            for document in final:
                job = str(document["id"])
                assert caller.get(f"/v1/jobs/{job}").json() == document
                assert after[job] == before[job]
                assert refused(caller.post(f"/v1/jobs/{job}/cancel"), 409, "job_ended")
                assert refused(caller.get(f"/v1/jobs/{job}/result"), 409, "job_ended")
