"""A job's terms: what its caller asks for, within what the model's policy and the settings allow."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.submit_options import SubmitOptions
from model_store.job_policies import JobPolicy
from workers.attempts import MOST_ATTEMPTS


@dataclass(frozen=True, slots=True)
class Terms:
    """How long a job may take to begin, and how often it is tried."""

    job_seconds: float
    max_attempts: int = MOST_ATTEMPTS


def terms(options: SubmitOptions, policy: JobPolicy, job_seconds: float) -> Terms:
    """The shortest of the deadlines that there are; as many attempts as asked for, but no more than the policy allows.

    `job_seconds` is the setting's. Where nobody says anything about attempts, there are three.
    """
    deadlines = (options.deadline_seconds, policy.deadline_seconds, job_seconds)
    attempts = [number for number in (options.max_attempts, policy.max_attempts) if number is not None]
    return Terms(min(one for one in deadlines if one is not None), min(attempts, default=MOST_ATTEMPTS))
