"""Errors of the queue and of predictions."""

from __future__ import annotations

from model_store.errors import SluiceError


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


class ModelQuarantined(SluiceError):
    status = 503
    code = "model_quarantined"


class QueueUnavailable(SluiceError):
    status = 503
    code = "queue_unavailable"


class QueueFull(SluiceError):
    status = 429
    code = "queue_full"


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
