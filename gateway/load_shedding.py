"""Load shedding: what would wait too long is refused when it is submitted, and told when to come again.

What counts is the lane that the job would join, not all of the version's queue: clients take turns, so the jobs of one
that floods the queue are refused while those of the others, which would begin soon, are not.
"""

from __future__ import annotations

import math

from gateway.queue_outlook import QueueOutlook
from model_store.errors import SluiceError
from model_store.job_policies import JobPolicy
from workers.lanes import Lane

LONGEST_RETRY_SECONDS = 3600


class QueueTooOld(SluiceError):
    """The job would wait longer than the model's policy or its own deadline allows."""

    status = 503
    code = "queue_too_old"


def too_old(queue: QueueOutlook, lane: Lane, policy: JobPolicy, deadline_seconds: float | None) -> QueueTooOld | None:
    """What a job that would join this lane is told, or None where it may; from memory.

    `deadline_seconds` is the job's own, from now.
    """
    bounds = [bound for bound in (policy.queue_seconds, policy.deadline_seconds, deadline_seconds) if bound is not None]
    if not bounds:
        return None
    longest = min(bounds)
    wait = queue.joining(lane).wait_seconds
    if wait is not None and wait > longest:
        text = f"a job submitted now would wait about {wait:.0f} seconds, longer than the {longest:g} that it may"
        return QueueTooOld(text, retry_after_seconds=_retry(wait - longest))
    age = queue.age(lane)
    if policy.queue_seconds is not None and age > policy.queue_seconds:
        text = f"jobs have waited for {age:.0f} seconds here, longer than the {policy.queue_seconds:g} that they may"
        return QueueTooOld(text, retry_after_seconds=_retry(wait or 0.0))
    return None


def too_old_to_wait(age: float, policy: JobPolicy) -> QueueTooOld | None:
    """What a synchronous prediction is told where the oldest one of its lane has waited for `age` seconds here."""
    if policy.queue_seconds is None or age <= policy.queue_seconds:
        return None
    text = f"predictions have waited for {age:.0f} seconds here, longer than the {policy.queue_seconds:g} that they may"
    return QueueTooOld(text, retry_after_seconds=1)


def _retry(seconds: float) -> int:
    return min(max(1, math.ceil(seconds)), LONGEST_RETRY_SECONDS)
