"""The stream of one job: what it tells, where it goes on, and when it ends."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from auth import clients
from auth.scopes import Scope
from gateway import event_streams
from model_store.database import transaction
from model_store.generation import bump_generation
from monitoring import metrics
from tests.conftest import RedisServer
from tests.event_kit import Line, hurried, line, reading
from tests.live_gateway import LiveGateway, eventually, live_gateway, refused
from workers import jobs

DONE = ["job.queued", "job.running", "job.succeeded"]


def gateway_at(
    folder: Path, redis_server: RedisServer, **settings: object
) -> contextlib.AbstractContextManager[LiveGateway]:
    settings = {"redis_url": redis_server.url, "key_prefix": f"t{secrets.token_hex(4)}", **settings}
    return live_gateway(folder, **settings)


@pytest.fixture(scope="module")
def gateway(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGateway]:
    with gateway_at(tmp_path_factory.mktemp("gateway"), redis_server, streams_per_client=3) as running:
        yield running


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    hurried(monkeypatch)


@pytest.fixture
def mine(gateway: LiveGateway) -> Iterator[Line]:
    made = line(gateway)
    with made.client:
        yield made


def test_a_job_is_followed_to_its_end_and_the_stream_ends_with_it(mine: Line):
    job = mine.accept()
    with reading(mine.client, f"/v1/jobs/{job}/events") as stream:
        stream.wait(1)
        claimed = mine.start(job)
        stream.wait(2)
        mine.finish(claimed)
        assert stream.over.wait(20)

    assert stream.names == DONE
    assert [event.id for event in stream.events] == ["0.0.0", "1.1.0", "1.2.1"]
    assert stream.ids == [job] * 3
    assert stream.events[-1].job["predictions"] == [[1.0]]
    assert stream.events[-1].job == mine.client.get(f"/v1/jobs/{job}").json()
    assert stream.headers["content-type"].startswith("text/event-stream")
    assert stream.headers["cache-control"] == "no-store"
    assert stream.headers["x-accel-buffering"] == "no"


def test_who_comes_back_is_told_only_what_is_newer_and_after_the_end_not_to_come_again(mine: Line):
    job = mine.accept()
    claimed = mine.start(job)
    path = f"/v1/jobs/{job}/events"
    with reading(mine.client, path, "0.0.0") as stream:
        assert stream.wait(1)[0].name == "job.running"
    with reading(mine.client, path, "1.1.0") as stream:
        mine.finish(claimed)
        assert stream.over.wait(20)
    assert stream.names == ["job.succeeded"]

    over = mine.client.get(path, headers={"last-event-id": stream.last_id})
    assert (over.status_code, over.content) == (204, b"")
    # Who was not told yet is told, however late.
    with reading(mine.client, path, "1.1.0") as stream:
        assert stream.over.wait(20)
    assert stream.names == ["job.succeeded"]


def test_a_job_that_is_tried_again_and_one_that_goes_on_say_so(gateway: LiveGateway, mine: Line):
    job = mine.accept()
    with reading(mine.client, f"/v1/jobs/{job}/events") as stream:
        stream.wait(1)
        claimed = mine.start(job)
        with transaction(gateway.parts.sessions) as session:
            assert jobs.progress(session, claimed.number, claimed.fence, 3, 10)
        eventually(lambda: "job.progress" in stream.names)
        with transaction(gateway.parts.sessions) as session:
            jobs.retry(session, claimed)
        eventually(lambda: "job.retrying" in stream.names)
        assert mine.client.post(f"/v1/jobs/{job}/cancel").status_code == 200
        assert stream.over.wait(20)
    told = [name for name in stream.names if name != "job.running"]
    assert told == ["job.queued", "job.progress", "job.retrying", "job.canceled"]
    assert next(event for event in stream.events if event.name == "job.progress").job["progress"] == {
        "done": 3, "total": 10,
    }  # fmt: skip


def test_a_job_that_is_deleted_ends_its_stream_and_is_gone_for_who_comes_back(mine: Line):
    job = mine.accept()
    with reading(mine.client, f"/v1/jobs/{job}/events") as stream:
        stream.wait(1)
        mine.client.delete(f"/v1/jobs/{job}")
        assert stream.over.wait(20)
    assert stream.names in (["job.queued"], ["job.queued", "job.canceled"])
    again = mine.client.get(f"/v1/jobs/{job}/events", headers={"last-event-id": stream.last_id})
    assert refused(again, 404, "job_not_found")


def test_a_strangers_job_is_answered_as_one_that_never_was(gateway: LiveGateway, mine: Line):
    job = mine.accept()
    with gateway.client([Scope.JOBS]) as stranger, gateway.client([Scope.MODELS_READ]) as other:
        headers = {"x-request-id": "the-same-one"}
        theirs, unknown = (
            stranger.get(f"/v1/jobs/{name}/events", headers=headers) for name in (job, secrets.token_urlsafe(18))
        )
        assert refused(theirs, 404, "job_not_found")
        assert (theirs.content, theirs.headers.multi_items()) == (unknown.content, unknown.headers.multi_items())
        assert refused(other.get(f"/v1/jobs/{job}/events"), 403, "insufficient_scope")


@pytest.mark.parametrize("last_id", ["soon", "1.3.0", "1.1", "-1.0.0", "9" * 60])
def test_an_id_that_nobody_gave_is_refused_instead_of_beginning_anew(mine: Line, last_id: str):
    answer = mine.client.get(f"/v1/jobs/{mine.accept()}/events", headers={"last-event-id": last_id})
    assert refused(answer, 400, "last_event_id_invalid")


def disable(gateway: LiveGateway, client_id: str) -> None:
    with transaction(gateway.parts.sessions) as session:
        clients.set_disabled(session, client_id, True)


def take_scopes(gateway: LiveGateway, client_id: str) -> None:
    with transaction(gateway.parts.sessions) as session:
        clients.get(session, client_id).scopes = str(Scope.MODELS_READ)
        bump_generation(session)


@pytest.mark.parametrize("withdraw", [disable, take_scopes])
def test_a_right_that_is_withdrawn_ends_the_stream_without_a_word_more(
    gateway: LiveGateway, mine: Line, withdraw: Callable[[LiveGateway, str], None]
):
    job = mine.accept()
    claimed = mine.start(job)
    with reading(mine.client, f"/v1/jobs/{job}/events") as stream, reading(mine.client, "/v1/events") as all_jobs:
        stream.wait(1)
        withdraw(gateway, mine.client_id)
        gateway.parts.snapshot.refresh()
        mine.finish(claimed)
        assert stream.over.wait(20)
        assert all_jobs.over.wait(20)
    assert stream.names == ["job.running"]
    assert all_jobs.names == []


def test_a_client_has_so_many_streams_and_gets_the_place_of_one_that_it_closed(mine: Line, gateway: LiveGateway):
    with contextlib.ExitStack() as streams:
        for _ in range(2):
            streams.enter_context(reading(mine.client, "/v1/events"))
        with reading(mine.client, f"/v1/jobs/{mine.accept()}/events") as third:
            assert third.wait(1)
            full = mine.client.get("/v1/events")
            assert refused(full, 429, "too_many_streams")
            assert full.headers["retry-after"] == "5"
        eventually(lambda: mine.client.get("/v1/events", params={"types": "x"}).status_code == 400)
        eventually(lambda: gateway.parts.streams._open[mine.client_id] == 2)
        with reading(mine.client, "/v1/events") as again:
            assert again.status == 200
    eventually(lambda: mine.client_id not in gateway.parts.streams._open)


def test_a_stream_counts_as_one_short_request(mine: Line):
    with reading(mine.client, "/v1/events") as stream:
        eventually(lambda: stream.last_id != "")
        eventually(lambda: metrics.EVENT_STREAMS._value.get() == 1)
        assert not stream.over.wait(5)
    eventually(lambda: metrics.EVENT_STREAMS._value.get() == 0)
    eventually(lambda: ("/v1/events", "", "") in metrics.REQUEST_SECONDS.series)
    longest = metrics.REQUEST_SECONDS.series["/v1/events", "", ""]._sum.get()
    assert longest < 5


def test_streams_say_that_they_live_last_so_long_and_end_with_their_gateway(
    redis_server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(event_streams, "HEARTBEAT_SECONDS", 0.2)
    with gateway_at(tmp_path, redis_server, stream_seconds=4, streams=2) as gateway:
        made = line(gateway)
        path = f"/v1/jobs/{made.accept()}/events"
        with made.client, reading(made.client, path) as stream:
            assert stream.over.wait(20)
            assert stream.comments
            with reading(made.client, path) as one, reading(made.client, "/v1/events"):
                assert refused(made.client.get("/v1/events"), 503, "streams_exhausted")
                gateway.parts.streams.stop()
                assert one.over.wait(20)


def test_a_gateway_that_stops_waits_for_no_stream(redis_server: RedisServer, tmp_path: Path):
    with contextlib.ExitStack() as after, gateway_at(tmp_path, redis_server) as gateway:
        made = line(gateway)
        stream = after.enter_context(reading(made.client, f"/v1/jobs/{made.accept()}/events"))
        stream.wait(1)
        settings = gateway.parts.settings
    # Its end is not the server's patience of ten seconds, after which connections are cut: it was told.
    assert stream.over.wait(5)
    assert stream.clean

    # Another one goes on where it was.
    with (
        gateway_at(tmp_path, redis_server, key_prefix=settings.key_prefix) as gateway,
        httpx.Client(base_url=gateway.url, headers=made.client.headers) as client,
    ):
        again = Line(gateway, client)
        again.end(stream.ids[0])
        with reading(client, f"/v1/jobs/{stream.ids[0]}/events", stream.last_id) as stream:
            assert stream.over.wait(20)
    assert stream.names == ["job.succeeded"]
