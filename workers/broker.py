"""The Celery application: its queues, task names and settings; it imports no task.

Celery carries five kinds of messages only: "run a drain on this slot", "prepare this version", "send this webhook",
"read this file" and "import this model". None is a promise: whoever waits sends again. Each setting here avoids a known
failure of Celery on Redis.
"""

from __future__ import annotations

from typing import Any

from celery import Celery

from workers.redis_link import parse_sentinels
from workers.settings import QueueSettings

DRAIN = "sluice.drain"
PREPARE = "sluice.prepare"
PREPARE_QUEUE = "prepare"
DELIVER = "sluice.deliver"
READ_FILE = "sluice.read_file"
IMPORT = "sluice.import"
BACKGROUND_QUEUE = "background"


def broker(settings: QueueSettings) -> Celery:
    """A Celery application on the configured Redis."""
    app = Celery("sluice", set_as_current=False)
    app.conf.update(
        **_transport(settings),
        # A result backend makes publishing block for 19 to 40 seconds while Redis is away.
        result_backend=None,
        task_ignore_result=True,
        task_store_errors_even_if_ignored=False,
        task_serializer="json",
        accept_content=["json"],
        result_accept_content=["json"],
        # Anyone who can write to Redis could broadcast commands to workers.
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        # Drains are acknowledged early: a session that dies is started again by whoever waits, not by Celery.
        task_acks_late=False,
        task_reject_on_worker_lost=False,
        worker_prefetch_multiplier=1,
        # With prefetching a second session could wait behind a minute-long one while another process is free.
        worker_disable_prefetch=True,
        # A child that starts slowly on a loaded host would otherwise be killed after four seconds, for ever.
        worker_proc_alive_timeout=60,
        worker_soft_shutdown_timeout=5,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_hijack_root_logger=False,
        # The watchdog writes its last words to the real standard error, which a log object would not give it.
        worker_redirect_stdouts=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_connection_timeout=2,
        task_default_queue=PREPARE_QUEUE,
        task_create_missing_queues=True,
    )
    return app


def _transport(settings: QueueSettings) -> dict[str, Any]:
    options: dict[str, Any] = {
        "global_keyprefix": f"{settings.key_prefix}:celery:",
        "socket_timeout": 5,
        "socket_connect_timeout": 1,
        "socket_keepalive": True,
        "health_check_interval": 10,
        "visibility_timeout": 3600,
        "unacked_restore_interval": 5,
    }
    url = settings.redis_url.get_secret_value()
    if url.startswith("sentinel://"):
        hosts, database, password = parse_sentinels(url)
        secret = f":{password}@" if password else ""
        url = ";".join(f"sentinel://{secret}{host}:{port}/{database}" for host, port in hosts)
        options |= {"master_name": settings.redis_sentinel_master, "sentinel_kwargs": {"password": password}}
    elif url.startswith("unix://"):
        url = f"redis+socket://{url.removeprefix('unix://')}"
    return {"broker_url": url, "broker_transport_options": options}
