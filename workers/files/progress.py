"""How far a job is, as it is told: instances done and, of a file, rows that failed, the rate and when it may end."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from workers.files.tables import Batch
from workers.tables import Job


def progress_of(job: Job, batch: Batch | None) -> dict[str, object]:
    """The member `progress` of a job's document. `total` of a file is null while nobody has counted its rows."""
    if batch is None:
        return {"done": job.instances if job.state == "succeeded" else job.done, "total": job.instances}
    rate = batch.rows_per_second if job.state == "running" else None
    return {
        "done": batch.written_rows,
        "total": job.instances if job.instances or batch.whole else None,
        "failed": batch.failed_rows,
        "rows_per_second": None if rate is None else round(rate, 1),
        "estimated_end_at": _end(max(0, job.instances - batch.written_rows), rate),
    }


def _end(left: int, rate: float | None) -> str | None:
    if not rate or not left:
        return None
    return datetime.fromtimestamp(time.time() + left / rate, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
