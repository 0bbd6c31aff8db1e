"""Settings of the queue, shared by gateway and workers, and those of the workers alone."""

from __future__ import annotations

import socket
import tempfile
from pathlib import Path

from pydantic import Field, SecretStr

from model_store.settings import Settings, StoreSettings
from workers.mlflow.settings import MlflowAccessSettings
from workers.webhooks.settings import WebhookSettings


class QueueSettings(Settings):
    """Where the queue is and how long things may take in it."""

    redis_url: SecretStr = Field(
        SecretStr("redis://127.0.0.1:6379/0"),
        description="`redis://`, `rediss://`, `unix://` or `sentinel://` URL of the queue.",
    )
    redis_sentinel_master: str = Field(
        "mymaster", description="Name of the primary, where `redis_url` is a Sentinel's."
    )
    key_prefix: str = Field("sluice", pattern=r"^[A-Za-z0-9_-]{1,32}$", description="First part of every Redis key.")
    pool: str = Field(
        "default", pattern=r"^[A-Za-z0-9_-]{1,64}$", description="Pool of workers that serves the models."
    )
    synchronous_seconds: float = Field(30.0, gt=0, le=120, description="How long a synchronous prediction may take.")
    job_seconds: float = Field(24 * 3600.0, gt=0, description="How long a job may wait before it expires.")
    job_keep_seconds: float = Field(24 * 3600.0, gt=0, description="How long a finished job is kept.")
    dead_letter_keep_seconds: float = Field(
        7 * 24 * 3600.0,
        gt=0,
        description=(
            "How long a job is kept that failed by no fault of its own, with its input, so that it can be replayed; "
            "never shorter than `job_keep_seconds`."
        ),
    )
    queued_jobs_limit: int = Field(
        100_000,
        ge=1,
        description="Most jobs that one client may have waiting; each gateway counts them twice a second.",
    )
    max_instances: int = Field(100_000, ge=1, description="Most instances in one prediction request.")
    file_bytes: int = Field(8 * 1024**3, ge=1, description="Largest file of rows that an upload may bring.")
    files_bytes: int = Field(
        64 * 1024**3, ge=1, description="Most bytes of files that one client may keep, uploads and results together."
    )
    file_keep_seconds: float = Field(
        7 * 86_400.0, gt=0, description="How long a file is kept that was uploaded by itself."
    )
    file_seconds: float = Field(
        7 * 86_400.0, gt=0, description="How long a file may take to be read to its end before its job expires."
    )
    files_waiting: int = Field(100, ge=1, description="Most files of one client that wait to be read.")
    file_row_bytes: int = Field(
        8 * 1024**2, ge=1024, description="Most bytes of one row of a file; a longer one gets an error of its own."
    )
    files_running: int = Field(2, ge=1, description="Files of one client that are read at a time; further ones wait.")
    inline_bytes: int = Field(64 * 1024, ge=0, description="Inputs and results up to this size are kept in SQL.")


class ProcessSettings(StoreSettings, QueueSettings):
    """What every worker process needs; it never sees signing keys or secrets of clients."""

    worker_name: str = Field(
        default_factory=socket.gethostname,
        pattern=r"^[A-Za-z0-9._-]{1,128}$",
        description="Name of this worker; unique.",
    )
    worker_metrics_port: int = Field(0, ge=0, le=65535, description="Port of a worker's own `/metrics`; 0 is none.")
    worker_metrics_host: str = Field("127.0.0.1", description="Address that a worker's `/metrics` listens on.")


class RunnerSettings(Settings):
    """How the processes are confined that read what strangers sent."""

    scratch_dir: Path = Field(Path(tempfile.gettempdir()), description="Folder for runners' private scratch folders.")
    runner_memory_bytes: int = Field(6 * 1024**3, ge=1, description="Address space that a runner may take.")
    runner_file_bytes: int = Field(4 * 1024**3, ge=1, description="Largest file that a runner may write.")
    runner_open_files: int = Field(256, ge=16, description="Files that a runner may have open.")
    runner_lockdown: str = Field(
        "partial",
        pattern="^(strict|partial|none)$",
        description="Least lock-down of a runner: `strict`, `partial` or `none`; below it, no upload is loaded.",
    )
    runner_user: str = Field(
        "",
        pattern=r"^[A-Za-z0-9._-]{0,64}$",
        description="User of runners where the worker is root, by name or number; empty: an unused number for each.",
    )
    inference_threads: int = Field(
        1, ge=1, le=64, description="Threads of one inference, beside the processes that run several at once."
    )


class WorkerSettings(RunnerSettings, ProcessSettings):
    """What a serving or preparing worker needs."""

    worker_processes: int = Field(2, ge=1, le=256, description="Prediction processes (slots) of a serving worker.")
    worker_execution: str = Field(
        "prefork", pattern="^(prefork|threads|solo)$", description="Celery pool: `prefork`, `threads` or `solo`."
    )
    predictor_budget_bytes: int = Field(1024**3, ge=1, description="Memory for loaded predictors, per process.")
    hang_limit_seconds: float = Field(
        30.0, gt=0, description="An inference that takes longer is ended with its process."
    )
    preparation_seconds: float = Field(600.0, gt=0, description="How long one step of a preparation may take.")
    max_batch: int = Field(
        128,
        ge=1,
        le=4096,
        description="Largest batch that a preparation tries; it chooses the size by what it measures.",
    )


class BackgroundSettings(RunnerSettings, WebhookSettings, MlflowAccessSettings, ProcessSettings):
    """What a background worker needs: it sends webhooks, reads files of many predictions, and imports models."""

    background_threads: int = Field(
        8, ge=2, le=256, description="Threads of a background worker; each sends one webhook, or reads one file."
    )
