"""Limits as administrators see and set them, and what of them is kept."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from auth import clients, limits, quotas
from auth.limit_tables import ClientLimit, QuotaUsage
from auth.limits import EVERYTHING, Bounds
from auth.quotas import KEEP_DAYS, Used
from auth.rights import load_rights
from auth.scopes import Scope
from model_store.database import Sessions, connect, sessions_of, transaction
from model_store.generation import read_generation
from model_store.settings import StoreSettings
from tests.databases import make_tables
from tests.live_gateway import refused
from tests.quiet_gateway import QuietGateway, quiet_gateway

LIMITS: list[dict[str, Any]] = [
    {"requests_per_second": 0.5, "burst": 7, "concurrent_requests": 3, "queued_jobs": 0},
    {"model": "mnist", "instances_per_day": 1_000_000, "body_bytes": 1000, "bytes_per_day": 0},
]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QuietGateway]:
    with quiet_gateway(tmp_path_factory.mktemp("limit-routes")) as made:
        yield made


@pytest.fixture(scope="module")
def admin(gateway: QuietGateway) -> dict[str, str]:
    return gateway.headers("admin", [Scope.CLIENTS_ADMIN])


def given(shown: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What was set of what is shown."""
    return [{name: value for name, value in limit.items() if value is not None} for limit in shown]


def test_limits_are_replaced_as_a_whole_and_shown(gateway: QuietGateway, admin: dict[str, str]):
    client, _ = gateway.client("limited")
    path = f"/admin/clients/{client}/limits"
    assert gateway.http.get(path, headers=admin).json() == {"limits": []}
    answer = gateway.http.put(path, headers=admin, json={"limits": LIMITS})
    assert answer.status_code == 200
    used = {"instances_today": 0, "bytes_today": 0}
    assert given(answer.json()["limits"]) == [{**limit, **used} for limit in LIMITS]
    assert gateway.http.get(path, headers=admin).json() == answer.json()
    assert gateway.http.put(path, headers=admin, json={"limits": LIMITS[1:]}).status_code == 200
    assert given(gateway.http.get(path, headers=admin).json()["limits"]) == [{**LIMITS[1], **used}]


def test_limits_are_part_of_the_picture_of_rights(gateway: QuietGateway, admin: dict[str, str]):
    client, _ = gateway.client("pictured")
    assert gateway.parts.snapshot.rights.clients[client].limits is None
    gateway.http.put(f"/admin/clients/{client}/limits", headers=admin, json={"limits": LIMITS}).raise_for_status()
    found = gateway.parts.snapshot.rights.clients[client].limits
    assert found == {
        EVERYTHING: Bounds(requests_per_second=0.5, burst=7, concurrent_requests=3, queued_jobs=0),
        "mnist": Bounds(instances_per_day=1_000_000, body_bytes=1000, bytes_per_day=0),
    }


@pytest.mark.parametrize(
    ("limit", "code"),
    [
        ([{"burst": 5}], "limit_invalid"),
        ([{"requests_per_second": 0}], "request_invalid"),
        ([{"requests_per_second": -1}], "request_invalid"),
        ([{"requests_per_second": 1_000_001}], "request_invalid"),
        ([{"requests_per_second": 1, "burst": 0}], "request_invalid"),
        ([{"concurrent_requests": 0}], "request_invalid"),
        ([{"queued_jobs": -1}], "request_invalid"),
        ([{"instances_per_day": 2**53 + 1}], "request_invalid"),
        ([{"bytes_per_day": "many"}], "request_invalid"),
        ([{"model": "no name"}], "request_invalid"),
        ([{"model": "team-*"}], "request_invalid"),
        ([{"requests_per_minute": 1}], "request_invalid"),
        ([{"queued_jobs": 1}, {"queued_jobs": 2}], "limit_invalid"),
        ([{"model": "m", "queued_jobs": 1}, {"model": "m", "queued_jobs": 1}], "limit_invalid"),
    ],
)
def test_bounds_that_cannot_be_are_refused(
    gateway: QuietGateway, admin: dict[str, str], limit: list[dict[str, object]], code: str
):
    client = gateway.parts.snapshot.rights.clients
    path = f"/admin/clients/{next(iter(client))}/limits"
    before = gateway.http.get(path, headers=admin).json()
    assert refused(gateway.http.put(path, headers=admin, json={"limits": limit}), 422, code)
    assert gateway.http.get(path, headers=admin).json() == before


def test_numbers_that_json_does_not_know_are_refused(gateway: QuietGateway, admin: dict[str, str]):
    path = f"/admin/clients/{next(iter(gateway.parts.snapshot.rights.clients))}/limits"
    for number in ("NaN", "Infinity", "1e999"):
        body = f'{{"limits": [{{"requests_per_second": {number}}}]}}'
        answer = gateway.http.put(path, headers={**admin, "content-type": "application/json"}, content=body)
        assert answer.status_code == 422


def test_a_client_that_is_not_there_has_no_limits(gateway: QuietGateway, admin: dict[str, str]):
    path = "/admin/clients/cli_nobody/limits"
    assert refused(gateway.http.get(path, headers=admin), 404, "client_not_found")
    assert refused(gateway.http.put(path, headers=admin, json={"limits": []}), 404, "client_not_found")


def test_nobody_else_sees_or_sets_limits(gateway: QuietGateway):
    client, secret = gateway.client("curious", [Scope.PREDICT, Scope.MODELS_READ])
    own = {"authorization": f"Bearer {gateway.token(client, secret)}"}
    path = f"/admin/clients/{client}/limits"
    assert refused(gateway.http.get(path, headers=own), 403, "insufficient_scope")
    assert refused(gateway.http.put(path, headers=own, json={"limits": []}), 403, "insufficient_scope")
    assert refused(gateway.http.get(path), 401, "token_missing")


def test_a_limit_that_bounds_nothing_is_not_kept(gateway: QuietGateway, admin: dict[str, str]):
    client, _ = gateway.client("unbounded")
    path = f"/admin/clients/{client}/limits"
    assert gateway.http.put(path, headers=admin, json={"limits": [{"model": "m"}]}).json() == {"limits": []}


@pytest.fixture
def sessions(database_url: str, tmp_path: Path) -> Iterator[Sessions]:
    settings = StoreSettings(database_url=database_url, store_dir=tmp_path)
    make_tables(settings)
    engine = connect(settings)
    yield sessions_of(engine)
    engine.dispose()


def test_setting_limits_tells_every_gateway_and_deleting_the_client_deletes_them(sessions: Sessions):
    with transaction(sessions) as session:
        client, _ = clients.create(session, "c", [Scope.PREDICT], b"k" * 32)
        before = read_generation(session)
        limits.set_limits(session, client.id, {EVERYTHING: Bounds(queued_jobs=1), "m": Bounds(body_bytes=5)})
        assert read_generation(session) > before
        assert load_rights(session).clients[client.id].limits == limits.limits_of(session, client.id)
    with transaction(sessions) as session:
        clients.delete(session, client.id)
    with transaction(sessions) as session:
        assert session.scalars(select(ClientLimit)).all() == []


@pytest.mark.usefixtures("one_day")
def test_gateways_add_up_what_was_used_and_read_what_others_added(sessions: Sessions):
    place, other = ("cli_a", ""), ("cli_a", "m")

    def add(number: int) -> None:
        with transaction(sessions) as session:
            quotas.charge(session, {place: Used(number, 10), other: Used(1, 0)})

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(add, range(1, 21)))
    with transaction(sessions, write=False) as session:
        reading = quotas.read_today(session)
        assert reading.used == {place: Used(210, 200), other: Used(20, 0)}
        assert 0 < reading.seconds_left <= 86_400
        assert quotas.used_today(session, "cli_a") == reading.used
        assert quotas.used_today(session, "cli_b") == {}
    with transaction(sessions) as session:
        quotas.charge(session, {place: Used(-10, 0)})
    with transaction(sessions, write=False) as session:
        assert quotas.read_today(session, since=reading.moment).used[place] == Used(200, 200)
        # What nobody has written for long is not read again.
        assert quotas.read_today(session, since=reading.moment + 3_600_000).used == {}


@pytest.mark.usefixtures("one_day")
def test_another_days_use_does_not_count_and_is_forgotten_after_a_month(sessions: Sessions):
    with transaction(sessions) as session:
        quotas.charge(session, {("cli_a", ""): Used(5, 5)})
        session.execute(update(QuotaUsage).values(day=QuotaUsage.day - 1))
        assert quotas.read_today(session).used == {}
        quotas.forget(session)
        assert session.scalars(select(QuotaUsage)).one().instances == 5
        session.execute(update(QuotaUsage).values(day=QuotaUsage.day - KEEP_DAYS))
        quotas.forget(session)
        assert session.scalars(select(QuotaUsage)).all() == []


def test_defaults_count_where_a_client_has_no_bound_of_its_own():
    defaults = Bounds(requests_per_second=10, burst=50, concurrent_requests=100)
    assert Bounds().over(defaults) == defaults
    own = Bounds(requests_per_second=1, queued_jobs=5).over(defaults)
    assert own == Bounds(requests_per_second=1, burst=None, concurrent_requests=100, queued_jobs=5)
