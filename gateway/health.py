"""What this gateway depends on and whether it can reach it, for `/health/ready` and the metrics."""

from __future__ import annotations

import threading
import time

from auth.errors import KeysUnavailable
from auth.keys import KeySource
from gateway.snapshot import Snapshot
from gateway.submission import Submission
from monitoring import metrics

LOOK_SECONDS = 1.0
# After a compromise the next key signs within two seconds; a gateway without one for longer is of no use.
UNSIGNED_SECONDS = 5.0


class Health:
    """Looks at the gateway's dependencies; what it says is at most a second old."""

    def __init__(
        self,
        snapshot: Snapshot,
        submission: Submission,
        keys: KeySource,
        pool: str,
        *,
        unsigned_seconds: float = UNSIGNED_SECONDS,
    ) -> None:
        self._pool = pool
        self._keys = keys
        self._unsigned_seconds = unsigned_seconds
        self._signed_at = time.monotonic()
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
        """Each dependency by name, and whether it can be reached; of the signing key, whether there is one."""
        return {
            "database": self._snapshot.fresh,
            "redis": self._submission.connected,
            "signing_key": self._can_sign(),
        }

    @property
    def slots(self) -> int:
        """Prediction processes that are announced; none is no fault of the gateway, but nothing will be answered."""
        return len(self._submission.slots)

    def _can_sign(self) -> bool:
        now = time.monotonic()
        try:
            _ = self._keys.ring.signing
        except KeysUnavailable:
            return now - self._signed_at <= self._unsigned_seconds
        self._signed_at = now
        return True

    def _run(self) -> None:
        while not self._stop.is_set():
            for name, up in self.dependencies().items():
                metrics.DEPENDENCY_UP.labels(name).set(int(up))
            by_pool = {self._pool: (), **self._submission.slots_by_pool}
            metrics.show(metrics.WORKER_SLOTS, {(pool,): len(slots) for pool, slots in by_pool.items()})
            self._stop.wait(LOOK_SECONDS)
