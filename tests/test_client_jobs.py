"""Jobs in the Python client: submitted once whatever the network does, waited for, followed over breaks."""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from auth import clients
from auth.grants import GrantSpec, set_grants
from auth.scopes import DEFAULT
from model_store.database import transaction
from sluice import (
    AsyncClient,
    Client,
    Forbidden,
    JobCanceled,
    JobFailed,
    JobNotEnded,
    NoGateway,
    RateLimited,
    Refused,
    SluiceFailed,
    Unavailable,
    Unreachable,
)
from sluice.calls import Calls
from sluice.event_reading import EventParser, Reading, Seen
from sluice.exchange import Asked
from sluice.listening_ports import free_port
from tests import client_kit
from tests.client_kit import CLIENTS
from tests.conftest import RedisServer
from tests.event_kit import finished, hurried, questions, started
from tests.hazard import hazard
from tests.live_gateway import LiveGateway, live_gateway
from tests.processes import Cluster
from tests.rights_kit import serve


@pytest.fixture(scope="module")
def gateway(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGateway]:
    prefix = f"t{secrets.token_hex(4)}"
    with live_gateway(tmp_path_factory.mktemp("gateway"), redis_url=redis_server.url, key_prefix=prefix) as running:
        serve(running.parts, "double")
        yield running


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    hurried(monkeypatch)


@pytest.fixture
def login(gateway: LiveGateway) -> tuple[str, str]:
    """Id and secret of a new client."""
    with transaction(gateway.parts.sessions) as session:
        made, secret = clients.create(session, f"c-{secrets.token_hex(4)}", DEFAULT, gateway.parts.settings.pepper)
        set_grants(session, made.id, [GrantSpec("double")])
    gateway.parts.snapshot.refresh()
    return made.id, secret


@pytest.fixture
def sluice(gateway: LiveGateway, login: tuple[str, str]) -> Iterator[Client]:
    with Client(gateway.url, *login) as made:
        yield made


def test_a_submit_whose_answer_was_lost_is_sent_again_and_is_one_job(gateway: LiveGateway, login: tuple[str, str]):
    with hazard(gateway, {b":submit": 2}) as way, Client(way.url, *login) as sluice:
        job = sluice.submit("double", [[1.0, 2.0]], priority="interactive", deadline=60.0)
        assert way.broken == 2
        assert [found["id"] for found in sluice.get("/v1/jobs")["jobs"]] == [job.id]
    assert job.document["state"] == "queued"
    assert job.document["priority"] == "interactive"


def test_a_file_whose_answer_was_lost_is_sent_again_and_is_one_job(
    gateway: LiveGateway, login: tuple[str, str], tmp_path: Path
):
    file = tmp_path / "rows.jsonl"
    file.write_text("[1.0, 2.0]\n")
    with hazard(gateway, {b":batch": 2}) as way, Client(way.url, *login) as sluice:
        job = sluice.submit_file("double", file)
        assert way.broken == 2
        assert [found["id"] for found in sluice.get("/v1/jobs")["jobs"]] == [job.id]


def test_a_key_of_ones_own_names_the_job_for_later(sluice: Client):
    first, again = (sluice.submit("double", [[1.0, 2.0]], idempotency_key="order-7") for _ in range(2))
    assert first.id == again.id
    with pytest.raises(Refused) as refused:
        sluice.submit("double", [[3.0, 4.0]], idempotency_key="order-7")
    assert refused.value.status == 422


def test_a_file_has_lines_and_no_result():
    steps = Calls(30.0, 60.0).result({"id": "j", "model": "m", "state": "succeeded"}, None)
    next(steps)
    with pytest.raises(SluiceFailed, match="its answers are its `lines`"):
        steps.send(httpx.Response(200, headers={"Content-Type": "application/jsonl"}, content=b"{}\n{}\n"))


def test_a_misspelt_option_is_told_before_anything_is_sent(sluice: Client):
    with pytest.raises(TypeError, match="no option 'dead_line', but idempotency_key, deadline"):
        sluice.submit("double", [[1.0, 2.0]], **{"dead_line": 5})
    with pytest.raises(ValueError, match="Idempotency-Key takes printable ASCII"):
        sluice.submit("double", [[1.0, 2.0]], idempotency_key="größe")
    assert sluice.get("/v1/jobs")["jobs"] == []


def test_a_question_is_answered_before_it_is_given_up():
    asked = next(Calls(30.0, 4.0).waited("j", None, None))
    assert isinstance(asked, Asked)
    assert asked.query == {"wait": "2.000"}


def test_a_stream_is_asked_for_again_where_that_may_help():
    reading = Reading(None, 60.0)
    for passing in (Unavailable(502, None, "no"), RateLimited(429, None, "no"), Unreachable("no")):
        assert reading.pause_after(passing) > 0
    for lasting in (Forbidden(403, None, "no"), NoGateway("no")):
        with pytest.raises(type(lasting)):
            reading.pause_after(lasting)


def test_what_is_refused_is_not_sent_again(sluice: Client):
    with pytest.raises(Refused) as refused:
        sluice.submit("nothing", [[1.0]])
    assert refused.value.status == 404
    with pytest.raises(Refused) as refused:
        sluice.job("no-such-job")
    assert refused.value.status == 404


def test_a_job_is_waited_for_and_canceled(gateway: LiveGateway, sluice: Client):
    job = sluice.submit("double", [[1.0, 2.0]])
    assert job.wait(0)["state"] == "queued"
    finished(gateway.parts, started(gateway.parts, job.id, "double"))
    assert job.wait()["predictions"] == [[1.0]]
    assert job.ended
    with pytest.raises(Refused):
        job.cancel()
    other = sluice.submit("double", [[1.0, 2.0]])
    assert sluice.job(other.id).cancel()["state"] == "canceled"
    assert other.look()["state"] == "canceled"


def test_a_job_is_waited_for_over_breaks_of_the_connection(
    gateway: LiveGateway, login: tuple[str, str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("sluice.patience.FIRST_PAUSE_SECONDS", 0.01)
    with hazard(gateway, {b"wait=": 4}) as way, Client(way.url, *login) as sluice:
        job = sluice.submit("double", [[1.0, 2.0]])
        finished(gateway.parts, started(gateway.parts, job.id, "double"))
        assert job.wait(0)["state"] == "succeeded"
        assert way.broken == 4
        with hazard(gateway, {b"wait=": 1000}) as lost, Client(lost.url, *login) as other, pytest.raises(Unreachable):
            other.job(job.id).wait(patience_seconds=0)


def test_who_waits_for_less_than_a_second_asks_as_seldom_as_others(gateway: LiveGateway, sluice: Client):
    job = sluice.submit("double", [[1.0, 2.0]])
    with questions(gateway, "WHERE jobs.id = ") as looks:
        assert job.wait(0.5)["state"] == "queued"
    # Each request looks twice at most: when it comes and when its time is over.
    assert len(looks) <= 6


def test_a_job_is_followed_over_breaks_of_the_connection(
    gateway: LiveGateway, login: tuple[str, str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("gateway.event_streams.BEGINNING", b"retry: 10\n\n")
    monkeypatch.setattr("sluice.event_reading.RETRY_SECONDS", 0.01)
    with hazard(gateway, {b"/events": 1}) as way, Client(way.url, *login) as sluice:
        job = sluice.submit("double", [[1.0, 2.0]])
        told = []
        for event in job.events():
            told.append(event.name)
            if event.name == "job.queued":
                claimed = started(gateway.parts, job.id, "double")
            if event.name == "job.running":
                finished(gateway.parts, claimed)
        assert way.broken == 1
    assert told == ["job.queued", "job.running", "job.succeeded"]
    assert job.document["predictions"] == [[1.0]]


def test_all_jobs_are_followed_from_an_event_on(gateway: LiveGateway, sluice: Client):
    done, canceled, last = (sluice.submit("double", [[1.0, 2.0]]) for _ in range(3))
    finished(gateway.parts, started(gateway.parts, done.id, "double"))
    canceled.cancel()
    began = str(gateway.parts.snapshot.now_ms() - 5000)
    events = sluice.events(last_event=began)
    told = list(itertools.islice(events, 2))
    assert [(event.name, event.job["id"]) for event in told] == [
        ("job.succeeded", done.id), ("job.canceled", canceled.id),
    ]  # fmt: skip
    last.cancel()
    assert next(events).job["id"] == last.id
    following = sluice.events(last_event=told[-1].id, types=["job.succeeded"], model="double")
    assert next(following).job["id"] == done.id


def test_a_gateway_that_stays_away_is_said_so(gateway: LiveGateway, login: tuple[str, str]):
    with Client(f"http://127.0.0.1:{free_port()}", *login) as sluice, pytest.raises(Unreachable):
        next(sluice.events(patience_seconds=0))
    with Client(gateway.url, *login) as sluice, pytest.raises(Refused) as refused:
        next(sluice.events(types=["job.done"]))
    assert refused.value.code == "event_type_unknown"


def test_events_are_read_as_the_specification_says():
    lines = [
        ":a comment", "retry: 50", "retry: soon", "id: 1", "", "event: job.failed", 'data: {"id":', 'data:"a"}',
        "id: 2", "", "data: {}", "id: 3\0", "", "event: nothing", "id: 4", "", 'data: {"cut": "off"}', "id: 5",
    ]  # fmt: skip
    seen = Seen(None)
    events = [event for event in map(EventParser(seen).feed, lines) if event is not None]
    assert [(event.name, event.id, event.job) for event in events] == [
        ("job.failed", "2", {"id": "a"}), ("message", "2", {}),
    ]  # fmt: skip
    # What was cut off has not been seen.
    assert seen == Seen("4", 0.05)


@pytest.fixture(params=CLIENTS, ids=("threads", "asyncio"))
def submitter(request: pytest.FixtureRequest, serving: Cluster) -> Iterator[Any]:
    """A client of either kind at an installation that works."""
    with request.param(*client_kit.login(serving, "double", "slow", "table", "words")) as made:
        yield made


def test_a_job_of_whatever_is_given_has_the_result_that_a_prediction_has(submitter: Any):  # noqa: ANN401 - of two kinds
    for given in (np.array([[0.1, 2.0]]), [[0.1, 2.0]]):
        job = submitter.submit("double", given, priority="interactive")
        found = job.result(60)
        assert found.dtype == np.float32
        assert found.tobytes() == submitter.predict("double", given).tobytes()
        assert (job.state, job.ended) == ("succeeded", True)
        assert submitter.job(job.id).result(outputs=["y"])["y"].tolist() == found.tolist()
    assert submitter.submit("words", "größe").result(60).tolist() == [["größe"]]


def test_the_events_of_a_job_are_iterated_over(submitter: Any):  # noqa: ANN401 - of two kinds
    job = submitter.submit("slow", [[1.0, 3000.0]])
    assert [event.name for event in job][-1] == "job.succeeded"
    assert job.state == "succeeded"


def test_a_job_without_a_result_is_told_by_its_kind(submitter: Any):  # noqa: ANN401 - of two kinds
    failed = submitter.submit("table", [7])
    with pytest.raises(JobFailed) as error:
        failed.result(60)
    assert error.value.code == "prediction_failed"
    assert failed.id in str(error.value)
    waiting = submitter.submit("slow", [[1.0, 3000.0]])
    with pytest.raises(JobNotEnded, match="after 0 seconds"):
        waiting.result(0)
    canceled = submitter.submit("slow", [[1.0, 3000.0]])
    canceled.cancel()
    with pytest.raises(JobCanceled):
        canceled.result(60)


def test_all_jobs_are_followed_by_tasks_as_well(gateway: LiveGateway, login: tuple[str, str]):
    async def follow() -> list[str]:
        async with AsyncClient(gateway.url, *login) as sluice:
            jobs = [await sluice.submit("double", [[1.0, 2.0]]) for _ in range(2)]
            began = str(gateway.parts.snapshot.now_ms() - 5000)
            found: list[str] = []
            for job in jobs:
                await job.cancel()
            async for event in sluice.events(last_event=began):
                found.append(event.job["id"])
                if len(found) == 2:
                    break
            assert sorted(found) == sorted(job.id for job in jobs)
            assert [piece async for piece in sluice.download("/v1/models")] == [b'{"models":["double"]}']
            return [(await sluice.job(job_id)).state for job_id in found]

    assert asyncio.run(follow()) == ["canceled"] * 2
