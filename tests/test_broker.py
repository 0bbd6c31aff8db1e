"""What Celery is told, and what its messages are: each setting here keeps a known failure of it away."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path

import pytest

from tests.conftest import RedisServer
from tests.queue_kit import wait_until, worker_settings
from workers.broker import BACKGROUND_QUEUE, DELIVER, DRAIN, PREPARE, PREPARE_QUEUE, READ_FILE, broker
from workers.publisher import Publisher
from workers.redis_link import connect
from workers.settings import QueueSettings
from workers.slots import queue_of

# What each setting avoids, as docs/operations.md numbers it.
SETTINGS = {
    "R2, R5: redelivery by the broker": ("task_acks_late", False),
    "R5: a message that kills its worker comes back at once": ("task_reject_on_worker_lost", False),
    "R7: an inference is cut off whenever Redis goes": ("worker_cancel_long_running_tasks_on_connection_loss", False),
    "R9: a child that starts slowly is killed for ever": ("worker_proc_alive_timeout", 60),
    "R13: a session waits behind another": ("worker_disable_prefetch", True),
    "R13: messages are taken that nobody works on": ("worker_prefetch_multiplier", 1),
    "R16, R18: results in Redis": ("result_backend", None),
    "R16: results in Redis of failures": ("task_store_errors_even_if_ignored", False),
    "R21: a worker that gives up": ("broker_connection_max_retries", None),
    "R21: a worker that does not start before Redis": ("broker_connection_retry_on_startup", True),
    "R23: code in messages": ("accept_content", ["json"]),
    "R23: commands to all workers": ("worker_enable_remote_control", False),
}
# Of these on, a worker hears again after Redis was away (R7), and the leaks that were known are closed (R25).
LEAST_VERSIONS = {"celery": (5, 7), "kombu": (5, 7)}


@pytest.mark.parametrize("avoided", SETTINGS)
def test_a_setting_keeps_a_known_failure_away(avoided: str):
    name, value = SETTINGS[avoided]
    assert broker(QueueSettings()).conf[name] == value


@pytest.mark.parametrize("package", LEAST_VERSIONS)
def test_versions_with_known_failures_are_not_used(package: str):
    found = tuple(int(part) for part in metadata.version(package).split(".")[:2])
    assert found >= LEAST_VERSIONS[package]


def test_every_wait_for_the_broker_has_an_end():
    options = broker(QueueSettings()).conf.broker_transport_options
    assert 0 < options["socket_connect_timeout"] <= 1
    assert 0 < options["socket_timeout"] <= 5
    assert options["socket_keepalive"] is True
    assert options["health_check_interval"] <= 10


def test_a_message_is_for_now_in_a_plain_list_and_nobody_waits_for_its_result(
    redis_server: RedisServer, tmp_path: Path
):
    settings = worker_settings(redis_server.url, f"sqlite:///{tmp_path / 'none.db'}", tmp_path)
    publisher = Publisher(broker(settings))
    publisher.start()
    publisher.drain("default", "w.0", "token")
    publisher.prepare("model", 1)
    publisher.deliver(1, 1)
    publisher.read_file(1)
    queues = [queue_of("default", "w"), PREPARE_QUEUE, BACKGROUND_QUEUE]
    with connect(settings) as client:
        keys = [f"{settings.key_prefix}:celery:{name}" for name in queues]
        wait_until(lambda: sum(client.llen(key) for key in keys) == 4)
        messages = [json.loads(one) for key in keys for one in client.lrange(key, 0, -1)]
    publisher.close()
    assert {one["headers"]["task"] for one in messages} == {DRAIN, PREPARE, DELIVER, READ_FILE}
    for one in messages:
        # No time to come, which a worker would keep in memory and the broker deliver again meanwhile (R2, R26); no
        # priority, for which Redis has lists of its own (R15); nothing that another worker could not know (R14).
        headers, properties = one["headers"], one["properties"]
        assert (headers["eta"], headers["expires"], headers["retries"]) == (None, None, 0)
        assert properties["priority"] == 0
        assert one["content-type"] == "application/json"


def test_an_address_of_a_redis_cluster_is_refused():
    # Celery's transport has no cluster (R20): one primary, or Sentinels.
    settings = QueueSettings(redis_url="redis+cluster://127.0.0.1:6379/0")  # type: ignore[arg-type] # a secret
    with pytest.raises(ValueError, match="must specify one of the following schemes"):
        connect(settings)
