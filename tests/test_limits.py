"""Limits at work: two gateways of one installation, and clients that ask for more than they may."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import httpx
import pytest
from sqlalchemy import create_engine

from auth.grants import GrantSpec
from auth.quotas import Used
from auth.scopes import Scope
from gateway.limit_quotas import Quotas
from model_store.database import sessions_of, transaction
from model_store.errors import DatabaseUnavailable
from model_store.registry import publish
from tests.conftest import RedisServer
from tests.live_gateway import LiveGateway, eventually, live_gateway
from tests.processes import Cluster, wait_for
from tests.queue_kit import SIGNATURE
from tests.serving import client_id_of

ONE = {"instances": [[1.0, 2.0]]}
THREE = {"instances": [[1.0, 2.0]] * 3}
SUBMIT = "/v1/models/double:submit"
PREDICT = "/v1/models/double:predict"
INFER = "/v2/models/double/infer"
ROWS = {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1.0, 2.0]}]}


@dataclass
class Pair:
    """Two gateways on one database and one Redis, without a worker: what is asked for waits."""

    first: LiveGateway
    second: LiveGateway
    redis: RedisServer
    opened: list[httpx.Client] = field(default_factory=list)

    def clients(self, *limits: Mapping[str, object]) -> tuple[httpx.Client, httpx.Client]:
        """A new client with these limits at both gateways."""
        caller = self.first.client([Scope.PREDICT], [GrantSpec("double"), GrantSpec("other")])
        self.limit(caller, *limits)
        return caller, self.same_at(self.second, caller)

    def same_at(self, gateway: LiveGateway, caller: httpx.Client) -> httpx.Client:
        """The client of a caller at another gateway."""
        same = httpx.Client(base_url=gateway.url, headers=caller.headers, timeout=30)
        self.opened += (caller, same)
        return same

    def limit(self, caller: httpx.Client, *limits: Mapping[str, object]) -> None:
        with self.first.client([Scope.CLIENTS_ADMIN]) as admin:
            path = f"/admin/clients/{client_id_of(caller)}/limits"
            assert admin.put(path, json={"limits": limits}).status_code == 200
        for gateway in (self.first, self.second):
            gateway.parts.snapshot.refresh()


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("limits")
    redis = RedisServer(folder)
    redis.start()
    try:
        with live_gateway(folder, redis_url=redis.url) as first, live_gateway(folder, redis_url=redis.url) as second:
            for model in ("double", "other"):
                make_model(first, model)
            second.parts.snapshot.refresh()
            made = Pair(first, second, redis)
            yield made
            for client in made.opened:
                client.close()
    finally:
        redis.kill()


def make_model(gateway: LiveGateway, name: str) -> None:
    with transaction(gateway.parts.sessions) as session:
        publish(session, name, format="onnx", digest="0" * 64, size_bytes=1, uploaded_by="test")
    gateway.make_available(name, 1, SIGNATURE)


def refusal(answer: httpx.Response) -> dict[str, str]:
    """The fields of a 429."""
    assert answer.status_code == 429, answer.text
    return {name: answer.headers[name] for name in ("retry-after", "ratelimit", "ratelimit-policy")}


def counted(gateway: LiveGateway, kind: str) -> float:
    """How many requests the gateways of this process refused by a kind of limit."""
    with gateway.client([Scope.METRICS_READ]) as reader:
        lines = reader.get("/metrics").text.splitlines()
    name = f'sluice_limited_requests_total{{limit="{kind}"}} '
    return sum(float(line.removeprefix(name)) for line in lines if line.startswith(name))


def test_a_client_without_limits_is_told_of_none(pair: Pair):
    caller, _ = pair.clients()
    answers = [caller.post(SUBMIT, json=ONE) for _ in range(20)]
    assert {answer.status_code for answer in answers} == {202}
    assert not any(name.startswith("ratelimit") for answer in answers for name in answer.headers)


def test_whoever_keeps_to_a_rate_is_told_what_is_left_and_whoever_does_not_when_to_come_again(pair: Pair):
    caller, _ = pair.clients({"requests_per_second": 0.05, "burst": 3})
    before = counted(pair.first, "rate")
    answers = [caller.post(SUBMIT, json=ONE) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [202, 202, 202, 429]
    assert [answer.headers["ratelimit-policy"] for answer in answers] == ['"rate";q=3;qu="requests";w=60'] * 4
    assert [answer.headers["ratelimit"][:10] for answer in answers] == [f'"rate";r={left}' for left in (2, 1, 0, 0)]
    left = int(refusal(answers[3])["retry-after"])
    assert 15 <= left <= 20
    assert answers[3].json() == {"error": f"this client may make 0.05 requests a second; try again in {left} s"}
    assert refusal(caller.post(INFER, json=ROWS))
    assert set(caller.post(INFER, json=ROWS).json()) == {"error"}
    assert counted(pair.first, "rate") == before + 3


def test_two_gateways_share_a_clients_rate(pair: Pair):
    begun = time.monotonic()
    both = pair.clients({"requests_per_second": 40, "burst": 4})
    first = time.monotonic()
    asked, admitted, stop = [0, 0], [0, 0], first + 2

    def flood(place: int) -> None:
        while time.monotonic() < stop:
            asked[place] += 1
            admitted[place] += both[place].post(SUBMIT, json=ONE).status_code == 202

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(flood, range(2)))
    ended = time.monotonic()
    # A slow machine may not ask for as many as are allowed.
    assert 0.6 * min(sum(asked), 4 + 40 * (ended - first)) < sum(admitted) < 1.1 * (4 + 40 * (ended - begun))
    assert min(admitted) > 0


def test_a_limit_on_one_model_leaves_the_others_alone_and_both_count(pair: Pair):
    caller, _ = pair.clients(
        {"requests_per_second": 0.1, "burst": 5}, {"model": "double", "requests_per_second": 0.1, "burst": 2}
    )
    assert [caller.post(SUBMIT, json=ONE).status_code for _ in range(4)] == [202, 202, 429, 429]
    # What the model's limit refused has cost nothing of the other.
    other = [caller.post("/v1/models/other:submit", json=ONE).status_code for _ in range(4)]
    assert other == [202, 202, 202, 429]


def test_new_limits_hold_at_once_and_without_them_the_client_goes_on(pair: Pair):
    caller, _ = pair.clients({"requests_per_second": 0.01, "burst": 1})
    assert [caller.post(SUBMIT, json=ONE).status_code for _ in range(2)] == [202, 429]
    pair.limit(caller, {"requests_per_second": 1000})
    assert caller.post(SUBMIT, json=ONE).status_code == 202
    pair.limit(caller)
    assert "ratelimit" not in caller.post(SUBMIT, json=ONE).headers


def test_a_waiting_request_holds_a_place_at_every_gateway_until_its_caller_hangs_up(pair: Pair):
    here, there = pair.clients({"concurrent_requests": 1})
    before = counted(pair.first, "concurrent")
    held = threading.Thread(target=hang_up_after, args=(here, 6.0))
    held.start()
    # Submitting takes a place as well, and gives it back at once.
    eventually(lambda: here.post(SUBMIT, json=ONE).status_code == 429)
    eventually(lambda: there.post(SUBMIT, json=ONE).status_code == 429)
    refused = there.post(SUBMIT, json=ONE)
    assert refused.json()["error"].startswith("1 requests of this client are being answered already")
    assert refusal(refused)["ratelimit-policy"] == '"concurrent";q=1;qu="concurrent-requests"'
    assert counted(pair.first, "concurrent") > before
    held.join()
    eventually(lambda: here.post(SUBMIT, json=ONE).status_code == 202)
    eventually(lambda: there.post(SUBMIT, json=ONE).status_code == 202)


def hang_up_after(caller: httpx.Client, seconds: float) -> None:
    """A prediction that nobody answers, given up; it asks again while another request has the only place."""

    def ask() -> None:
        while caller.post(PREDICT, json=ONE, timeout=seconds).status_code == 429:
            continue

    with pytest.raises(httpx.ReadTimeout):
        ask()


def test_the_places_of_a_gateway_that_died_run_out(pair: Pair):
    here, _ = pair.clients({"concurrent_requests": 1})
    client = pair.redis.client()
    now = int(time.time() * 1000)
    told = f'[["{client_id_of(here)}", "", 1]]'
    # A gateway that said so last just now, and never will again.
    client.hset("sluice:concurrent", "dead", f"{now} {told}")
    eventually(lambda: here.post(SUBMIT, json=ONE).status_code == 429)
    eventually(lambda: here.post(SUBMIT, json=ONE).status_code == 202)
    assert time.time() * 1000 - now > 2500
    eventually(lambda: not client.hexists("sluice:concurrent", "dead"))
    assert 0 < client.pttl("sluice:concurrent") <= 3000


@pytest.mark.usefixtures("one_day")
def test_jobs_are_charged_exactly_and_what_was_used_survives_a_wiped_redis(pair: Pair):
    here, there = pair.clients({"instances_per_day": 100})
    assert [instances_left(here.post(SUBMIT, json=THREE)) for _ in range(2)] == [97, 94]
    spent = here.post(SUBMIT, json={"instances": [[1.0, 2.0]] * 95})
    assert spent.json()["error"].startswith("this client's 100 instances of today are used up; try again in ")
    assert 0 < int(refusal(spent)["retry-after"]) <= 86_400
    # The other gateway learns of it from SQL, where it is whatever happens to Redis.
    asked = count(1)
    eventually(lambda: instances_left(there.post(SUBMIT, json=ONE)) == 100 - 6 - next(asked))
    pair.redis.client().flushall()
    used = 6 + next(asked) - 1
    too_many = {"instances": [[1.0, 2.0]] * (101 - used)}
    assert refusal(there.post(SUBMIT, json=too_many))
    with pair.first.client([Scope.CLIENTS_ADMIN]) as admin:
        path = f"/admin/clients/{client_id_of(here)}/limits"
        eventually(lambda: admin.get(path).json()["limits"][0]["instances_today"] == used)
    assert there.post(SUBMIT, json={"instances": [[1.0, 2.0]] * (100 - used)}).status_code == 202


def instances_left(answer: httpx.Response) -> int:
    assert answer.status_code == 202, answer.text
    return int(answer.headers["ratelimit"].split(";")[1].removeprefix("r="))


@pytest.mark.usefixtures("one_day")
def test_a_gateway_that_starts_knows_what_was_used_before(pair: Pair):
    here, _ = pair.clients({"model": "double", "instances_per_day": 3})
    assert here.post(SUBMIT, json=THREE).status_code == 202
    folder = pair.first.artifacts.root.parent
    # The stop of a gateway sends what it charged.
    with live_gateway(folder, redis_url=pair.redis.url) as third:
        charged = pair.same_at(third, here)
        eventually(lambda: charged.post(SUBMIT, json=ONE).status_code == 429)
    with live_gateway(folder, redis_url=pair.redis.url) as fourth:
        assert httpx.post(f"{fourth.url}{SUBMIT}", json=ONE, headers=here.headers).status_code == 429


@pytest.mark.usefixtures("one_day")
def test_bytes_are_counted_by_bodies_and_single_ones_are_bounded(pair: Pair):
    caller, _ = pair.clients({"bytes_per_day": 250}, {"model": "double", "body_bytes": 100})
    body = b'{"instances": [[1.0, 2.0]]}'.ljust(100)
    large = caller.post(SUBMIT, content=body + b" ")
    assert (large.status_code, large.json()) == (413, {"error": "the body is larger than 100 bytes"})
    assert [caller.post(SUBMIT, content=body).status_code for _ in range(3)] == [202, 202, 429]
    last = caller.post(SUBMIT, content=body)
    assert refusal(last)["ratelimit-policy"] == '"bytes";q=250;qu="content-bytes";w=86400'
    # A smaller one still fits.
    assert caller.post(SUBMIT, content=body.strip()).status_code == 202


def test_jobs_that_wait_are_bounded_for_the_client_and_for_each_model(pair: Pair):
    here, _ = pair.clients({"queued_jobs": 3}, {"model": "double", "queued_jobs": 2})
    answers = [here.post(SUBMIT, json=ONE) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [202, 202, 429]
    assert answers[2].json()["error"].startswith("2 jobs of this client for double wait already")
    assert refusal(answers[2])["ratelimit-policy"] == '"queued-double";q=2;qu="queued-jobs"'
    other = [here.post("/v1/models/other:submit", json=ONE) for _ in range(2)]
    assert [answer.status_code for answer in other] == [202, 429]
    assert other[1].json()["error"].startswith("3 jobs of this client wait already")


def test_what_is_refused_after_it_was_charged_is_given_back(pair: Pair):
    caller, _ = pair.clients({"queued_jobs": 0, "instances_per_day": 2})
    # Each would be the last instance but one.
    texts = {caller.post(SUBMIT, json=ONE).json()["error"] for _ in range(4)}
    assert texts == {"this client may submit no jobs"}


@pytest.mark.usefixtures("one_day")
def test_predictions_are_charged_by_their_answers(serving: Cluster):
    limited, administrator = serving.caller("double"), serving.caller(scopes=frozenset(Scope))
    path = f"/admin/clients/{client_id_of(limited)}/limits"
    administrator.put(path, json={"limits": [{"instances_per_day": 6}]}).raise_for_status()
    wait_for(lambda: "ratelimit" in limited.post(PREDICT, json={"instances": [["no"]]}).headers, 10)
    left = [limited.post(PREDICT, json=THREE).headers["ratelimit"] for _ in range(2)]
    assert [text[:15] for text in left] == ['"instances";r=3', '"instances";r=0']
    assert refusal(limited.post(PREDICT, json=ONE))
    assert refusal(limited.post(INFER, json=ROWS))


def test_settings_bound_clients_that_have_no_limits_of_their_own(redis_server: RedisServer, tmp_path: Path):
    settings = {"client_requests_per_second": 0.01, "client_concurrency": 0, "key_prefix": "defaults"}
    with live_gateway(tmp_path, redis_url=redis_server.url, **settings) as gateway:
        make_model(gateway, "double")
        with gateway.client([Scope.PREDICT], [GrantSpec("double")]) as caller:
            assert [caller.post(SUBMIT, json=ONE).status_code for _ in range(2)] == [202, 429]


@pytest.mark.usefixtures("one_day")
def test_charges_that_sql_did_not_take_are_kept_and_those_it_took_are_not_sent_again(pair: Pair):
    async def work() -> None:
        quotas, other = Quotas(pair.first.parts.sessions), Quotas(pair.second.parts.sessions)
        usage = quotas.usage(("cli_kept", ""))
        usage.charge(5, 50)
        nowhere = create_engine("sqlite:////nowhere/at/all.db")
        away = Quotas(sessions_of(nowhere))
        lost = away.usage(("cli_kept", ""))
        lost.charge(5, 50)
        for _ in range(2):
            with pytest.raises(DatabaseUnavailable):
                await away.exchange()
            assert (lost.instances, lost.send()) == (5, Used(5, 50))
            lost.failed()
        nowhere.dispose()
        for _ in range(2):
            await quotas.exchange()
            await other.exchange()
            assert (usage.instances, other.usage(("cli_kept", "")).bytes) == (5, 50)

    asyncio.run(work())
