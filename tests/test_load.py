"""Correctness under load: thousands of distinct inputs at once, and every answer the right one for its own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import httpx
import pytest

from tests.conftest import RedisServer
from tests.processes import Cluster, cluster, wait_for

REQUESTS = 20_000
CONNECTIONS = 32


@pytest.fixture(scope="module")
def installation(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("installation")
    with cluster(folder, redis_server.url, f"sqlite:///{folder / 'sluice.db'}") as made:
        made.start_worker()
        made.start_gateway()
        made.wait_for_slots(2)
        yield made


async def ask_all(addresses: list[str], token: str, numbers: range) -> list[str]:
    """Each number once over 32 connections, spread over the addresses; returns what was wrong with the answers."""
    waiting = iter(numbers)
    wrong: list[str] = []

    async def connection(address: str) -> None:
        host, port = address.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        for number in waiting:
            body = b'{"instances": [[%d, %d.5]]}' % (number, number)
            writer.write(
                b"POST /v1/models/double:predict HTTP/1.1\r\nhost: sluice\r\nauthorization: %s\r\n"
                b"content-length: %d\r\n\r\n%s" % (token.encode(), len(body), body)
            )
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            answer = await reader.readexactly(length)
            expected = {"predictions": [[2.0 * number, 2.0 * number + 1.0]]}
            if not head.startswith(b"HTTP/1.1 200") or json.loads(answer) != expected:
                wrong.append(f"{number}: {head[:20]!r} {answer[:100]!r}")
        writer.close()
        await writer.wait_closed()

    async with asyncio.timeout(150):
        await asyncio.gather(*(connection(addresses[i % len(addresses)]) for i in range(CONNECTIONS)))
    return wrong


def token_of(caller: httpx.Client) -> str:
    return caller.headers["authorization"]


@pytest.mark.long
def test_20000_answers_are_each_the_right_one(installation: Cluster):
    caller = installation.caller("double")
    assert asyncio.run(ask_all(installation.gateways[:1], token_of(caller), range(REQUESTS))) == []


@pytest.mark.long
def test_20000_answers_through_two_gateways_and_two_workers(installation: Cluster):
    installation.start_gateway()
    installation.start_worker()
    installation.wait_for_slots(4, gateway=1)
    caller = installation.caller("double", gateway=1)
    # The first gateway learns of the new client within half a second.
    headers = dict(caller.headers)
    models = [f"{address}/v1/models/double" for address in installation.gateways]
    wait_for(lambda: all(httpx.get(model, headers=headers).status_code == 200 for model in models), 20)
    assert asyncio.run(ask_all(installation.gateways, token_of(caller), range(REQUESTS))) == []
