"""What a process printed last, kept for when it dies."""

from __future__ import annotations

import threading
from typing import IO

STDERR_BYTES = 16 * 1024


class Tail:
    """The last bytes of what a process prints; a thread reads on, or a full pipe would stop the process."""

    def __init__(self, stream: IO[bytes] | None) -> None:
        self._kept = b""
        self._thread = threading.Thread(target=self._read, args=(stream,), name="runner-stderr", daemon=True)
        self._thread.start()

    def text(self, within_seconds: float) -> str:
        """What is known so far; waits a moment for the end of a process that just died."""
        self._thread.join(within_seconds)
        return self._kept.decode(errors="replace").strip()

    def _read(self, stream: IO[bytes]) -> None:
        with stream:
            while chunk := stream.read(STDERR_BYTES):
                self._kept = (self._kept + chunk)[-STDERR_BYTES:]
