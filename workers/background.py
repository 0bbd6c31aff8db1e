"""The background worker: a Celery worker of threads for what waits on others' machines and disks, not on models.

It sends webhooks, reads files and imports models. It has no master key: what it sends was signed by the gateway that
handed it over.
All of its work is rows in SQL under lease and fence; a message that comes twice costs a query.
"""

from __future__ import annotations

from monitoring import logs
from workers.broker import BACKGROUND_QUEUE, broker
from workers.files.turns import register_read_file
from workers.mlflow.importing import register_import
from workers.settings import BackgroundSettings
from workers.webhooks.delivering import register_deliver
from workers.worker_process import Flag, WorkerProcess

KIND = "background-worker"


def serve(settings: BackgroundSettings) -> None:
    """Run a background worker until it is told to stop."""
    logs.configure(KIND)
    app = broker(settings)
    stopping = Flag()
    register_deliver(app, settings)
    register_read_file(app, settings, stopping.is_set)
    register_import(app, settings)

    def stop(**_: object) -> None:
        stopping.set()

    process = WorkerProcess(KIND, BACKGROUND_QUEUE, "threads", settings.background_threads, {"stop": stop})
    process.run(app, settings)
