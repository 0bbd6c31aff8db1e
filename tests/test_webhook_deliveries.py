"""Deliveries from the job's end to the receiver: written with the end, handed over in turn, tried again, given up."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from sqlalchemy import event, func, select, update
from standardwebhooks import Webhook, WebhookVerificationError

from auth import clients
from auth.audit_tables import AuditEntry
from model_store.database import now_ms, transaction
from model_store.sealing import SealingKeys
from tests.conftest import RedisServer
from tests.job_kit import BODY, claim, finish, numbers_of
from tests.webhook_kit import Receiver, receiving, status
from tests.webhook_office import Office, an_office
from workers import jobs
from workers.erasure import erase
from workers.lanes import Priority
from workers.tables import Job
from workers.webhooks import deliveries
from workers.webhooks import endpoints as webhook_endpoints
from workers.webhooks import secrets as webhook_secrets
from workers.webhooks.delivering import deliver
from workers.webhooks.sending import Outcome
from workers.webhooks.tables import JobWebhook, WebhookDelivery, WebhookEndpoint

# Where SQL is the same in both databases.
ON_SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Receiver, Path]]:
    folder = tmp_path_factory.mktemp("deliveries")
    with receiving(folder) as made:
        yield made, folder / "hooks" / "ca.pem"


@pytest.fixture
def office(
    redis_server: RedisServer, database_url: str, tmp_path: Path, receiver: tuple[Receiver, Path]
) -> Iterator[Office]:
    with an_office(redis_server.url, database_url, tmp_path, receiver) as made:
        yield made


def master_keys_of(text: str) -> list[bytes]:
    return [base64.urlsafe_b64decode(text + "=")]


def test_an_end_is_told_once_with_a_signature_that_the_reference_library_verifies(office: Office):
    _, secret = office.endpoint()
    number = office.ended_job()

    office.turn()
    office.turn()

    (got,) = office.receiver.received
    told = Webhook(secret).verify(got.body, got.fields)
    row = office.row()
    assert (row.state, row.attempt, row.id) == ("delivered", 1, got.id)
    assert (told["type"], told["data"]["state"]) == ("job.succeeded", "succeeded")
    with transaction(office.queue.sessions, write=False) as session:
        assert told["data"]["id"] == session.scalars(select(Job.id).where(Job.number == number)).one()
    assert "predictions" not in told["data"]
    assert "." not in got.id


@ON_SQLITE
def test_a_changed_message_or_another_secret_is_not_verified(office: Office):
    _, secret = office.endpoint()
    office.ended_job()
    office.turn()
    (got,) = office.receiver.received

    for changed in ({"webhook-id": "msg_2"}, {"webhook-timestamp": str(int(got.fields["webhook-timestamp"]) + 1)}):
        with pytest.raises(WebhookVerificationError):
            Webhook(secret).verify(got.body, got.fields | changed)
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(got.body + b" ", got.fields)
    with pytest.raises(WebhookVerificationError):
        Webhook("whsec_" + "A" * 43 + "=").verify(got.body, got.fields)


@ON_SQLITE
def test_both_secrets_sign_while_the_old_one_is_good(office: Office):
    endpoint, old = office.endpoint()
    keys, client = office.settings.master_keys, office.queue.client_id
    with transaction(office.queue.sessions) as session:
        new = webhook_secrets.rotate(session, keys, endpoint, client, overlap_seconds=3600)
    office.ended_job()
    office.turn()
    with transaction(office.queue.sessions) as session:
        newest = webhook_secrets.rotate(session, keys, endpoint, client, overlap_seconds=0)
    office.ended_job()
    office.turn()

    during, after = office.receiver.received
    assert Webhook(old).verify(during.body, during.fields) == Webhook(new).verify(during.body, during.fields)
    assert Webhook(newest).verify(after.body, after.fields)
    with pytest.raises(WebhookVerificationError):
        Webhook(new).verify(after.body, after.fields)


@ON_SQLITE
def test_secrets_are_sealed_again_under_a_new_master_key(office: Office):
    endpoint, old = office.endpoint()
    keys, client = office.settings.master_keys, office.queue.client_id
    changed = SealingKeys([b"n" * 32, *master_keys_of("m" * 43)])
    with transaction(office.queue.sessions) as session:
        new = webhook_secrets.rotate(session, keys, endpoint, client, overlap_seconds=3600)
        assert webhook_secrets.reseal(session, changed) == 1
        assert webhook_secrets.reseal(session, changed) == 0
        good = webhook_secrets.good_secrets(session, SealingKeys([b"n" * 32]), endpoint, client, 0)

    assert [webhook_secrets.text_of(secret) for secret in good] == [new, old]


@ON_SQLITE
def test_only_events_that_the_endpoint_wants_are_told(office: Office):
    office.endpoint("job.failed", "job.canceled")
    office.ended_job()
    number = office.job()
    with transaction(office.queue.sessions) as session:
        assert jobs.cancel(session, session.get_one(Job, number))

    assert [row.type for row in office.rows()] == ["job.canceled"]


def test_an_address_that_the_submit_named_is_told_under_the_clients_secret_and_forgotten(office: Office):
    office.ended_job(office.receiver.url)
    office.turn()

    client = office.queue.client_id
    with transaction(office.queue.sessions) as session:
        secret = webhook_secrets.ensure(session, office.settings.master_keys, client, client)
        assert session.execute(select(func.count()).select_from(JobWebhook)).scalar_one() == 0
    (got,) = office.receiver.received
    assert Webhook(secret).verify(got.body, got.fields)
    assert office.row().target == client


@ON_SQLITE
def test_an_end_that_is_not_committed_is_not_told(office: Office):
    office.endpoint()
    number = office.job()
    (claimed,) = claim(office.queue, [number])
    with office.queue.sessions() as session:
        assert jobs.finish(session, [jobs.Ending(number, claimed.fence, b"{}")])
        session.rollback()

    assert office.rows() == []


def test_a_failed_attempt_is_repeated_with_the_same_id_and_body_and_a_new_signature(office: Office):
    _, secret = office.endpoint()
    office.receiver.answers[:] = [status(500), status(204)]
    office.ended_job()
    office.turn()
    waiting = office.row()
    office.turn()
    office.make_due()
    office.turn()

    first, second = office.receiver.received
    assert (waiting.state, waiting.attempt) == ("waiting", 1)
    assert 4_000 < (waiting.next_at or 0) - waiting.schedule_from < 60_000
    assert (first.id, first.body) == (second.id, second.body)
    assert Webhook(secret).verify(second.body, second.fields)
    row = office.row()
    assert (row.state, row.attempt) == ("delivered", 2)
    assert [(one["status"], one["error"]) for one in json.loads(row.attempts)] == [(500, "status"), (204, None)]


@ON_SQLITE
def test_a_message_that_comes_twice_or_is_made_up_sends_nothing(office: Office):
    office.endpoint()
    office.ended_job()
    office.dispatch.turn()
    (row,) = office.in_flight()

    for number, fence in ((row.number, row.fence - 1), (row.number, 99), (12345, row.fence)):
        deliver(office.queue.sessions, office.sender, office.settings, number, fence)
    assert office.receiver.received == []
    with transaction(office.queue.sessions) as session:
        assert deliveries.claim(session, row.number, row.fence) is not None
    # Whoever claimed it is at it.
    deliver(office.queue.sessions, office.sender, office.settings, row.number, row.fence)
    assert office.receiver.received == []


@ON_SQLITE
def test_a_hundred_messages_that_are_repeated_or_made_up_while_one_is_sent_send_nothing_more(office: Office):
    office.endpoint()
    office.ended_job()
    office.dispatch.turn()
    row = office.row()
    told: list[object] = []

    def meanwhile(handler: BaseHTTPRequestHandler) -> None:
        fences = [*[row.fence] * 20, *range(row.fence - 20, row.fence + 60), 2**31, 2**70]
        for fence in (*fences, "1", None, True, 1.0):
            deliver(office.queue.sessions, office.sender, office.settings, row.number, fence)  # type: ignore[arg-type] # forged
            told.append(fence)
        status(204)(handler)

    office.receiver.answers[:] = [meanwhile, status(204)]
    office.send()
    office.turn()

    assert len(told) > 100
    assert [got.id for got in office.receiver.received] == [row.id]
    ended = office.row()
    assert (ended.state, ended.attempt, len(json.loads(ended.attempts))) == ("delivered", 1, 1)


def test_what_was_handed_over_and_lost_is_due_again_without_an_attempt(office: Office):
    office.endpoint()
    office.ended_job()
    office.dispatch.turn()
    (lost,) = office.in_flight()
    office.change(lease_until=0)
    # Its own message is outdated: the signature grows old with it.
    deliver(office.queue.sessions, office.sender, office.settings, lost.number, lost.fence)
    assert office.receiver.received == []

    with transaction(office.queue.sessions) as session:
        assert deliveries.take_back(session) == 1
    office.turn()

    assert (office.row().state, office.row().attempt) == ("delivered", 1)


@ON_SQLITE
def test_a_worker_that_wakes_up_after_its_lease_writes_nothing(office: Office):
    office.endpoint()
    office.ended_job()
    office.dispatch.turn()
    (row,) = office.in_flight()
    with transaction(office.queue.sessions) as session:
        stale = deliveries.claim(session, row.number, row.fence)
    office.change(lease_until=0)
    with transaction(office.queue.sessions) as session:
        deliveries.take_back(session)
    office.dispatch.turn()

    assert stale is not None
    with transaction(office.queue.sessions) as session:
        assert deliveries.conclude(session, stale, Outcome(None, 204), 1) is None
    assert (office.row().state, office.row().attempt) == ("sending", 0)


@ON_SQLITE
def test_410_disables_the_endpoint_and_ends_what_waits_for_it(office: Office):
    endpoint, _ = office.endpoint()
    office.receiver.answers[:] = [status(410)]
    office.ended_job()
    office.turn()
    office.ended_job()

    with transaction(office.queue.sessions, write=False) as session:
        found = session.get_one(WebhookEndpoint, endpoint)
        assert (found.disabled, found.disabled_reason) == (True, "gone")
        entry = session.scalars(select(AuditEntry).where(AuditEntry.act == "webhook_disabled")).one()
        assert entry.reason == "gone"
    assert [row.state for row in office.rows()] == ["given_up"]


@ON_SQLITE
def test_an_endpoint_that_took_nothing_for_days_is_disabled_and_one_that_recovers_is_not(office: Office):
    endpoint, _ = office.endpoint()

    def failing_since() -> int | None:
        with transaction(office.queue.sessions, write=False) as session:
            return session.get_one(WebhookEndpoint, endpoint).failing_since

    office.receiver.answers[:] = [status(500), status(204), status(500)]
    office.ended_job()
    office.turn()
    assert failing_since() is not None
    office.make_due()
    office.turn()
    assert failing_since() is None

    with transaction(office.queue.sessions) as session:
        session.execute(update(WebhookEndpoint).values(failing_since=now_ms() - 6 * DAY_MS))
    office.ended_job()
    office.turn()

    with transaction(office.queue.sessions, write=False) as session:
        assert session.get_one(WebhookEndpoint, endpoint).disabled_reason == "failing"


@ON_SQLITE
@pytest.mark.parametrize("end", ["disable client", "delete client", "disable endpoint", "delete endpoint"])
def test_what_nobody_should_get_any_more_is_given_up(office: Office, end: str):
    endpoint, _ = office.endpoint()
    office.ended_job()
    with transaction(office.queue.sessions) as session:
        if end == "disable client":
            clients.set_disabled(session, office.queue.client_id, True)
        elif end == "delete client":
            clients.delete(session, office.queue.client_id)
        elif end == "disable endpoint":
            webhook_endpoints.change(session, session.get_one(WebhookEndpoint, endpoint), disabled=True)
        else:
            webhook_endpoints.remove(session, session.get_one(WebhookEndpoint, endpoint))

    office.turn()

    assert office.receiver.received == []
    assert office.row().state == "given_up"


@ON_SQLITE
def test_the_end_of_a_job_that_is_not_kept_any_more_is_told_all_the_same(office: Office):
    # Given a job that was kept for less long than its webhook waited
    _, secret = office.endpoint()
    number = office.ended_job()
    with transaction(office.queue.sessions) as session:
        job_id = session.scalars(select(Job.id).where(Job.number == number)).one()
        jobs.forget(session, [number])

    office.turn()

    (got,) = office.receiver.received
    told = Webhook(secret).verify(got.body, got.fields)
    assert (told["type"], told["data"]) == ("job.succeeded", {"id": job_id, "state": "succeeded"})
    assert office.row().state == "delivered"


@ON_SQLITE
def test_nothing_is_told_of_a_job_that_was_erased(office: Office):
    office.endpoint()
    number = office.ended_job()
    with transaction(office.queue.sessions) as session:
        erase(session, [number], untold=True)

    office.turn()

    assert (office.receiver.received, office.rows()) == ([], [])


@ON_SQLITE
def test_a_replay_sends_the_same_message_again(office: Office):
    office.endpoint()
    office.ended_job()
    office.turn()
    with transaction(office.queue.sessions) as session:
        deliveries.replay(session, session.scalars(select(WebhookDelivery)).one())
    office.turn()

    first, second = office.receiver.received
    assert (first.id, first.body) == (second.id, second.body)
    assert len(json.loads(office.row().attempts)) == 2


def test_the_log_is_purged_when_it_was_kept_long_enough(office: Office):
    office.endpoint()
    office.ended_job()
    with transaction(office.queue.sessions) as session:
        assert deliveries.purge(session, 0) == 0
    office.turn()
    with transaction(office.queue.sessions) as session:
        assert deliveries.purge(session, 3600) == 0
        assert deliveries.purge(session, -1) == 1
    assert office.rows() == []


@ON_SQLITE
def test_jobs_that_tell_nobody_cost_their_end_no_statement(office: Office):
    draft = jobs.Draft(jobs.new_id(), office.queue.lane(Priority.BULK), "tensorflow_serving", 1, BODY, 60)
    with transaction(office.queue.sessions) as session:
        jobs.accept(session, [draft], 100)
        (number,) = numbers_of(session, [draft])
    (claimed,) = claim(office.queue, [number])
    statements: list[str] = []
    engine = office.queue.sessions.kw["bind"]
    event.listen(engine, "before_cursor_execute", lambda *given: statements.append(given[2]))
    finish(office.queue, claimed)

    assert statements
    assert not [text for text in statements if "webhook" in text]
