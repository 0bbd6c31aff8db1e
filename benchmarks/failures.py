"""Why there is nothing to measure."""

from __future__ import annotations


class BenchmarkFailed(Exception):
    """A server did not start, or answered wrongly; the message shows what it said."""
