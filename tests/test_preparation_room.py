"""A version that no worker could load is refused by its preparation, with the figures."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from pydantic import SecretStr

from tests.conftest import RedisServer
from tests.onnx_models import line
from tests.shop import Shop
from workers import redis_link
from workers.errors import PredictorTooLarge
from workers.lanes import Keys
from workers.preparation.room import check_room, room_bytes
from workers.settings import WorkerSettings
from workers.slots import Announcer


@pytest.fixture
def settings(redis_server: RedisServer) -> WorkerSettings:
    return WorkerSettings(
        redis_url=SecretStr(redis_server.url), key_prefix=f"t{secrets.token_hex(4)}", predictor_budget_bytes=500
    )


@pytest.fixture
def client(settings: WorkerSettings) -> Iterator[redis.Redis]:
    with redis_link.connect(settings) as made:
        yield made


def announce(client: redis.Redis, settings: WorkerSettings, worker: str, budget_bytes: int, pool: str) -> Announcer:
    announcer = Announcer(client, Keys(settings.key_prefix), pool, [f"{worker}.0"], budget_bytes)
    announcer.announce()
    return announcer


def test_an_upload_that_no_worker_could_load_is_refused_with_both_figures(shop: Shop, tmp_path: Path):
    ended = shop.prepare(line(tmp_path / "line.onnx", weights=[1.0, 2.0], bias=3.0), predictor_budget_bytes=100)

    assert (ended.state, ended.error_code) == ("END", "predictor_too_large")
    [variant] = ended.report["variants"]
    assert f"{variant['memory_bytes']:,} bytes" in (ended.error_message or "")
    assert "has 100 for models" in (ended.error_message or "")
    assert [step["outcome"] for step in ended.report["steps"]][-1] == "refused"
    assert ended.report["steps"][-1]["name"] == "measure"


def test_what_workers_of_the_pool_announce_counts_more_than_the_own_setting(
    client: redis.Redis, settings: WorkerSettings
):
    assert room_bytes(settings) == 500

    small = announce(client, settings, "small", 300, "default")
    large = announce(client, settings, "large", 900, "default")
    other = announce(client, settings, "gpu", 7000, "gpu")

    assert [room_bytes(settings), room_bytes(settings, "gpu"), room_bytes(settings, "none")] == [900, 7000, 500]
    large.close()
    assert room_bytes(settings) == 300
    small.close()
    other.close()
    assert room_bytes(settings) == 500


def test_while_redis_is_away_the_own_setting_counts(settings: WorkerSettings):
    away = settings.model_copy(update={"redis_url": SecretStr("redis://127.0.0.1:1/0")})
    assert room_bytes(away) == 500


def test_what_fits_exactly_fits():
    check_room(100, 100)
    with pytest.raises(PredictorTooLarge, match="takes 1,101 bytes of memory, and a prediction process has 1,100"):
        check_room(1101, 1100)
