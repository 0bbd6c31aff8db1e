"""Handing deliveries over: what is due, in fair turns, by indexes, and only so much at once."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import redis
from sqlalchemy import delete, event, insert, update

from auth import clients
from auth.scopes import Scope
from gateway.webhook_dispatch import MOST_MESSAGES, PAGES_A_RUN
from gateway.webhook_room import (
    IN_FLIGHT,
    IN_FLIGHT_FAILING,
    IN_FLIGHT_OF_CLIENT,
    IN_FLIGHT_OF_SUSPECT,
    Room,
    Standing,
)
from model_store.database import now_ms, transaction
from sluice.listening_ports import free_port
from tests.conftest import RedisServer
from tests.job_kit import claim, finish
from tests.webhook_kit import Receiver, receiving, status
from tests.webhook_office import Office, an_office, dispatcher, waiting
from workers.broker import BACKGROUND_QUEUE
from workers.tables import Lease
from workers.webhooks import deliveries
from workers.webhooks import endpoints as webhook_endpoints
from workers.webhooks import secrets as webhook_secrets
from workers.webhooks.endpoints import ENDPOINTS_OF_A_CLIENT
from workers.webhooks.tables import WebhookDelivery, WebhookEndpoint, WebhookSecret

# Where SQL is the same in both databases.
ON_SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Receiver, Path]]:
    folder = tmp_path_factory.mktemp("handing")
    with receiving(folder) as made:
        yield made, folder / "hooks" / "ca.pem"


@pytest.fixture
def office(
    redis_server: RedisServer, database_url: str, tmp_path: Path, receiver: tuple[Receiver, Path]
) -> Iterator[Office]:
    with an_office(redis_server.url, database_url, tmp_path, receiver) as made:
        yield made


@ON_SQLITE
def test_while_redis_is_away_everything_waits(office: Office):
    office.endpoint()
    office.ended_job()
    away = office.settings.model_copy(
        update={"redis_url": type(office.settings.redis_url)(f"redis://127.0.0.1:{free_port()}/0")}
    )
    lame = dispatcher(away, office.queue)
    with pytest.raises(redis.RedisError):
        lame.turn()
    assert office.row().state == "waiting"
    lame.close()
    with transaction(office.queue.sessions) as session:
        session.execute(update(Lease).values(until=0))

    office.turn()

    assert office.row().state == "delivered"


@ON_SQLITE
def test_where_no_worker_takes_messages_no_more_are_made(office: Office):
    office.endpoint()
    office.ended_job()
    queue = f"{office.settings.key_prefix}:celery:{BACKGROUND_QUEUE}"
    office.queue.client.rpush(queue, *range(MOST_MESSAGES))

    office.dispatch.turn()

    assert office.row().state == "waiting"
    office.queue.client.delete(queue)


def test_a_dead_receiver_with_thousands_waiting_does_not_hold_up_another(office: Office):
    # Given an endpoint that fails and has 2,000 deliveries due, longer than the other one's
    dead, _ = office.endpoint("job.failed", url=f"https://localhost:{free_port()}/")
    alive, _ = office.endpoint("job.succeeded")
    with transaction(office.queue.sessions) as session:
        session.execute(insert(WebhookDelivery), waiting(dead, office.queue.client_id, 2000))
        session.execute(update(WebhookEndpoint).where(WebhookEndpoint.id == dead).values(failing_since=now_ms()))
    office.ended_job()

    # When one turn is taken
    office.dispatch.turn()
    office.dispatch.turn()

    # Then the other's is on its way, and one of the dead one's
    by_target = {row.target for row in office.in_flight()}
    assert by_target == {dead, alive}
    assert len(office.in_flight()) == 2


@ON_SQLITE
def test_only_so_many_of_a_client_are_on_their_way_at_once(office: Office):
    for _ in range(6):
        office.endpoint()
    numbers = [office.job() for _ in range(20)]
    for claimed in claim(office.queue, numbers):
        finish(office.queue, claimed)

    office.dispatch.turn()
    office.dispatch.turn()

    assert len(office.in_flight()) == IN_FLIGHT_OF_CLIENT


@ON_SQLITE
def test_clients_whose_receivers_are_slow_leave_room_for_another(office: Office):
    # Given as many slow clients as there is room for, all due for longer than the client of one delivery
    sessions = office.queue.sessions
    with transaction(sessions) as session:
        for n in range(IN_FLIGHT // IN_FLIGHT_OF_CLIENT):
            client_id = clients.create(session, f"slow-{n}", [Scope.JOBS], b"p")[0].id
            session.execute(insert(WebhookDelivery), waiting(client_id, client_id, 100))
    office.dispatch.turn()
    assert len(office.in_flight()) == IN_FLIGHT
    office.endpoint()
    office.ended_job()

    # When one of all these ends
    with transaction(sessions) as session:
        session.execute(delete(WebhookDelivery).where(WebhookDelivery.number == office.in_flight()[0].number))
    office.dispatch.turn()

    # Then the other client is the next
    assert office.queue.client_id in {row.client_id for row in office.in_flight()}


@ON_SQLITE
def test_receivers_that_are_down_take_few_places_all_together(office: Office):
    dead = [office.endpoint("job.failed")[0] for _ in range(ENDPOINTS_OF_A_CLIENT)]
    with transaction(office.queue.sessions) as session:
        for target in dead:
            session.execute(insert(WebhookDelivery), waiting(target, office.queue.client_id, 3))
        session.execute(update(WebhookEndpoint).values(failing_since=now_ms()))

    tried = set()
    for _ in range(200):
        office.dispatch.turn()
        flying = office.in_flight()
        assert 0 < len(flying) <= IN_FLIGHT_FAILING
        tried |= {row.target for row in flying}
        # Each comes back at once, still the one that is due longest.
        office.change(state="waiting", lease_until=None)
        if tried == set(dead):
            return

    pytest.fail(f"only {len(tried)} of them were tried: the others would not be seen to be up again")


def test_a_client_with_a_receiver_that_is_down_sends_less_to_its_others_and_first_to_those():
    standings = {"dead": Standing("one", failing=True), "new": Standing("one", failing=False)}
    room = Room({}, standings)

    assert room.in_turn({"dead": 1, "new": 2}) == ["new", "dead"]
    assert (room.most_for("new"), room.most_for("dead")) == (IN_FLIGHT_OF_SUSPECT, 1)
    assert Room({"new": IN_FLIGHT_OF_SUSPECT}, standings).most_for("new") == 0
    assert Room({"dead": 1}, standings).most_for("new") == IN_FLIGHT_OF_SUSPECT


@ON_SQLITE
def test_named_addresses_that_take_nothing_are_tried_one_at_a_time(office: Office):
    office.receiver.answers[:] = [status(500)]
    for number in range(3):
        office.ended_job(office.receiver.url)
        if number == 0:
            office.turn()

    office.make_due()
    office.dispatch.turn()
    assert len(office.in_flight()) == 1

    # Until they take one.
    office.receiver.answers[:] = [status(204)]
    office.send()
    office.dispatch.turn()
    assert len(office.in_flight()) == 2


@ON_SQLITE
def test_a_secret_that_no_key_opens_holds_up_nobody_else(office: Office):
    broken, _ = office.endpoint()
    office.ended_job()
    alive, _ = office.endpoint("job.succeeded")
    with transaction(office.queue.sessions) as session:
        session.execute(update(WebhookSecret).where(WebhookSecret.owner == broken).values(sealed=b"x" * 60))
    office.ended_job()

    office.turn()

    assert {row.target: row.state for row in office.rows()} == {broken: "waiting", alive: "delivered"}


@ON_SQLITE
def test_an_endpoint_that_is_deleted_while_it_is_sent_to_leaves_the_outcome_written(office: Office):
    endpoint, _ = office.endpoint()
    office.receiver.answers[:] = [status(500)]
    office.ended_job()
    office.dispatch.turn()
    with transaction(office.queue.sessions) as session:
        webhook_endpoints.remove(session, session.get_one(WebhookEndpoint, endpoint))

    office.send()

    assert (office.row().state, office.row().attempt) == ("waiting", 1)


@ON_SQLITE
def test_a_page_of_targets_is_found_without_a_look_at_what_waits_for_them(office: Office):
    for _ in range(3):
        office.endpoint()
    office.ended_job()
    with transaction(office.queue.sessions, write=False) as session:
        found = deliveries.targets(session, "")
        behind = deliveries.targets(session, found[0][0])

    assert len(found) == 3
    assert behind == found[1:]
    assert [target for target, _ in found] == sorted(target for target, _ in found)


@ON_SQLITE
def test_a_deliverys_turn_is_found_by_an_index(office: Office):
    statements: list[tuple[str, object]] = []
    engine = office.queue.sessions.kw["bind"]
    event.listen(engine, "before_cursor_execute", lambda *given: statements.append(given[2:4]))
    with transaction(office.queue.sessions) as session:
        deliveries.targets(session, "")
        deliveries.due_for(session, "whe_x", 5)
        deliveries.in_flight(session)
        deliveries.take_back(session)
    asked = [one for one in statements if "webhook_deliveries" in one[0]]

    assert len(asked) == 4
    with engine.connect() as connection:
        for statement, values in asked:
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values).all()
            looked = [row[3] for row in plan if "webhook_deliveries" in row[3] or " d " in row[3]]
            assert looked
            assert all("USING" in step and "INDEX webhook_deliveries_" in step for step in looked), looked


@ON_SQLITE
def test_a_log_that_grows_faster_than_one_run_purges_is_purged_further_at_the_next_turn(office: Office):
    rows = waiting("whe_gone", office.queue.client_id, deliveries.PAGE_ROWS * PAGES_A_RUN + 1)
    with transaction(office.queue.sessions) as session:
        session.execute(insert(WebhookDelivery), [row | {"state": "given_up", "ended_at": 1} for row in rows])

    office.dispatch.turn()
    office.dispatch.turn()

    assert office.rows() == []


def test_a_secret_that_two_ask_for_at_once_is_made_once(office: Office):
    keys, client = office.settings.master_keys, office.queue.client_id

    def ask(_: int) -> str:
        with transaction(office.queue.sessions) as session:
            return webhook_secrets.ensure(session, keys, client, client)

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(ask, range(4)))) == 1
