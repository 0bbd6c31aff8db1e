"""Errors of the queue and of predictions."""

from __future__ import annotations

import re

from model_store.errors import SluiceError

BRIEF_CHARACTERS = 200


class InputInvalid(SluiceError):
    """The body does not fit the dialect or the version's signature; the message says where and what was expected."""

    status = 400
    code = "input_invalid"


class PredictionFailed(SluiceError):
    """The model itself failed on this input; trying again would not help."""

    status = 500
    code = "prediction_failed"


class WorkerCrashed(SluiceError):
    """Whatever ran this prediction died, more than once."""

    status = 503
    code = "worker_crashed"


class RunnerFailed(SluiceError):
    """A runner died, hung or passed a limit; `code` on the instance says which."""

    status = 500
    code = "runner_crashed"

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.code = code


class LockdownUnavailable(RunnerFailed):
    """A runner is locked down less than the setting demands; the message says what is missing and what to do."""

    status = 503
    code = "lockdown_unavailable"

    def __init__(self, message: str) -> None:
        super().__init__(message, code=self.code)


class ModelQuarantined(SluiceError):
    status = 503
    code = "model_quarantined"


class EnvironmentMismatch(SluiceError):
    """A version that computes otherwise here than where it was prepared; the message says what to do."""

    status = 503
    code = "environment_mismatch"


class QueueUnavailable(SluiceError):
    status = 503
    code = "queue_unavailable"


class QueueFull(SluiceError):
    status = 429
    code = "too_many_queued"


class DeadlinePassed(SluiceError):
    status = 504
    code = "deadline_passed"


class JobNotFound(SluiceError):
    status = 404
    code = "job_not_found"


class UploadRefused(SluiceError):
    """Preparation refused an upload; `code` on the instance is the reason, the message says where."""

    status = 422
    code = "upload_refused"

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.code = code


class DecodingUnavailable(SluiceError):
    """No file can be decoded here: a package is missing, or no runner may read it."""

    status = 503
    code = "decoding_unavailable"


class DecodingAway(DecodingUnavailable):
    """No runner could be started just now, which passes: the machine is short of processes, memory or disk."""


class PoolDeserted(SluiceError):
    """A model may be served by the workers of one pool only, and there has been none for ten seconds."""

    status = 503
    code = "pool_deserted"


class PredictorTooLarge(SluiceError):
    """A version needs more memory than one process may spend on all of its predictors."""

    status = 507
    code = "predictor_too_large"

    @classmethod
    def by(cls, needed_bytes: int, budget_bytes: int) -> PredictorTooLarge:
        """With the figures that decide it."""
        return cls(
            f"serving the model takes {needed_bytes:,} bytes of memory, and a prediction process has {budget_bytes:,} "
            "for models (SLUICE_PREDICTOR_BUDGET_BYTES)"
        )


def brief(error: BaseException) -> str:
    """A foreign exception as one short line that may be shown: its class and its text's first line."""
    text = first_line(str(error))
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def first_line(text: str) -> str:
    """The first line of a foreign text, printable, without paths and at most 200 characters long."""
    line = text.lstrip()[:1000].partition("\n")[0]
    line = re.sub(r"(?:[A-Za-z]:)?(?:[/\\][\w.@+-]+){2,}", "…", line)
    return "".join(character for character in line if character.isprintable()).strip()[:BRIEF_CHARACTERS]
