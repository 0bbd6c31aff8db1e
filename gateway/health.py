"""What this gateway depends on and whether it can reach it, for `/health/ready` and the metrics."""

from __future__ import annotations

import threading

from gateway.snapshot import Snapshot
from gateway.submission import Submission
from monitoring import metrics

LOOK_SECONDS = 1.0


class Health:
    """Looks at the gateway's dependencies; what it says is at most a second old."""

    def __init__(self, snapshot: Snapshot, submission: Submission, pool: str) -> None:
        self._pool = pool
        self._snapshot = snapshot
        self._submission = submission
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="health", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join(timeout=3)

    def dependencies(self) -> dict[str, bool]:
        """Each dependency by name, and whether it can be reached."""
        return {"database": self._snapshot.fresh, "redis": self._submission.connected}

    @property
    def slots(self) -> int:
        """Prediction processes that are announced; none is no fault of the gateway, but nothing will be answered."""
        return len(self._submission.slots)

    def _run(self) -> None:
        while not self._stop.is_set():
            for name, up in self.dependencies().items():
                metrics.DEPENDENCY_UP.labels(name).set(int(up))
            metrics.WORKER_SLOTS.labels(self._pool).set(self.slots)
            self._stop.wait(LOOK_SECONDS)
