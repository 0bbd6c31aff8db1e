"""Finding out, when a worker starts, how far its runners can be locked down: by starting one."""

from __future__ import annotations

import importlib.util
import logging

from monitoring.metrics import RUNNER_LOCKDOWN
from workers.errors import RunnerFailed
from workers.runner.lockdown import Level
from workers.runner.process import Runner
from workers.settings import WorkerSettings

log = logging.getLogger(__name__)


def announce(settings: WorkerSettings, process: str) -> Level | None:
    """Logs the level and sets its metric for this kind of process; None in a worker that never starts a runner.

    Decides nothing: each runner is asked again, and refused where it has less than is demanded.
    """
    if importlib.util.find_spec("tensorflow") is None:
        return None
    try:
        with Runner(settings.model_copy(update={"runner_lockdown": str(Level.NONE)})) as runner:
            level, told = runner.lockdown.level, str(runner.lockdown)
    except RunnerFailed as error:
        level, told = Level.NONE, error.message
    demanded = settings.runner_lockdown
    RUNNER_LOCKDOWN.labels(process, demanded).set(level)
    enough = level >= Level[demanded.upper()]
    log.log(
        logging.INFO if enough else logging.ERROR,
        "lock-down of runners: %s; %s is demanded%s",
        told,
        demanded,
        "" if enough else ": no upload is loaded here",
    )
    return level
