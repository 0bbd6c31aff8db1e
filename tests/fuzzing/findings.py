"""What fuzzing found once, kept as bytes by target: each is run as a test for ever."""

from __future__ import annotations

FINDINGS: dict[str, tuple[bytes, ...]] = {}
