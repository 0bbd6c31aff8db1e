"""The command `sluice`, the embedded system behind `sluice up`, and the Python client.

from sluice import Client

with Client.from_file("sluice-data/demo.json") as sluice:
    probabilities = sluice.predict("mnist", images)  # images: shape (n, 28, 28), values from 0 to 1
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sluice.answers import AnswerLate as AnswerLate
    from sluice.answers import BodyBroken as BodyBroken
    from sluice.answers import CredentialsInvalid as CredentialsInvalid
    from sluice.answers import DeadlinePassed as DeadlinePassed
    from sluice.answers import FileUnknown as FileUnknown
    from sluice.answers import Forbidden as Forbidden
    from sluice.answers import InputInvalid as InputInvalid
    from sluice.answers import JobCanceled as JobCanceled
    from sluice.answers import JobExpired as JobExpired
    from sluice.answers import JobFailed as JobFailed
    from sluice.answers import JobNotEnded as JobNotEnded
    from sluice.answers import ModelNotFound as ModelNotFound
    from sluice.answers import NoGateway as NoGateway
    from sluice.answers import NotFound as NotFound
    from sluice.answers import PredictionFailed as PredictionFailed
    from sluice.answers import RateLimited as RateLimited
    from sluice.answers import Refused as Refused
    from sluice.answers import SluiceFailed as SluiceFailed
    from sluice.answers import Unauthorized as Unauthorized
    from sluice.answers import Unavailable as Unavailable
    from sluice.answers import Unreachable as Unreachable
    from sluice.async_client import AsyncClient as AsyncClient
    from sluice.async_job import AsyncJob as AsyncJob
    from sluice.checkpoint import CheckpointInvalid as CheckpointInvalid
    from sluice.client import Client as Client
    from sluice.job import Job as Job

# Where each name is, imported when it is first asked for: a process of the server needs no HTTP client.
_PLACES = {
    "sluice.answers": (
        "AnswerLate", "BodyBroken", "CredentialsInvalid", "DeadlinePassed", "FileUnknown", "Forbidden", "InputInvalid",
        "JobCanceled", "JobExpired", "JobFailed", "JobNotEnded", "ModelNotFound", "NoGateway", "NotFound",
        "PredictionFailed", "RateLimited", "Refused", "SluiceFailed", "Unauthorized", "Unavailable", "Unreachable",
    ),
    "sluice.async_client": ("AsyncClient",),
    "sluice.async_job": ("AsyncJob",),
    "sluice.checkpoint": ("CheckpointInvalid",),
    "sluice.client": ("Client",),
    "sluice.job": ("Job",),
}  # fmt: skip
_PLACE_OF = {name: place for place, names in _PLACES.items() for name in names}

__all__ = [
    "AnswerLate", "AsyncClient", "AsyncJob", "BodyBroken", "CheckpointInvalid", "Client", "CredentialsInvalid",
    "DeadlinePassed", "FileUnknown", "Forbidden", "InputInvalid", "Job", "JobCanceled", "JobExpired", "JobFailed",
    "JobNotEnded", "ModelNotFound", "NoGateway", "NotFound", "PredictionFailed", "RateLimited", "Refused",
    "SluiceFailed", "Unauthorized", "Unavailable", "Unreachable",
]  # fmt: skip


def __getattr__(name: str) -> object:
    if name not in _PLACE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_PLACE_OF[name]), name)
