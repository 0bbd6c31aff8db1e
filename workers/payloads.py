"""Names of what the store holds for jobs: inputs and results that are too large for a row."""

from __future__ import annotations


def input_name(job_id: str) -> str:
    """Under which name a large input lies in the store."""
    return f"{job_id}.input"


def result_name(job_id: str, fence: int) -> str:
    """Under which name the holder of a fence keeps a large result: one that lost its fence must not replace it."""
    return f"{job_id}.{fence}.result"


def payload_names(job_id: str, fence: int) -> tuple[str, ...]:
    """What the store may hold of a job whose fence is this, what lost attempts left there included."""
    return (input_name(job_id), *(result_name(job_id, lost) for lost in range(1, fence + 1)))
