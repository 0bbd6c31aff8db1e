"""What fuzzing found once, kept as bytes by target: each is run as a test for ever."""

from __future__ import annotations

FINDINGS: dict[str, tuple[bytes, ...]] = {
    # An integer that no float64 holds, among numbers that become float32: workers/protocols/example_bytes.py.
    "examples": (b'?{"context": {"x": 1}, "examples": [{"y": [0.0, %d]}]}' % 10**400,),
}
