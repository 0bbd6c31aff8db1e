"""Files through ModelScan, a path on each line of the input, a verdict in JSON on each line of the output.

Run with the Python of ModelScan's own environment.
"""

from __future__ import annotations

import json
import os
import sys

from modelscan.modelscan import ModelScan


def verdict(path: str) -> dict[str, list[str]]:
    """What ModelScan says of a file with its default settings."""
    found = ModelScan().scan(path)
    issues = [f"{issue['severity'].lower()}, {issue['description']}" for issue in found["issues"]]
    errors = [str(error.get("description", error)) for error in found["errors"]]
    if not issues and not errors and not found["summary"]["scanned"]["total_scanned"]:
        # Members without a scanner of their own are skipped in every archive; this one was skipped as a whole.
        rows = found["summary"]["skipped"]["skipped_files"]
        return {"not scanned": [str(rows[0]["description"]) if rows else "no reason given"]}
    return {"issue": issues, "error": errors}


if __name__ == "__main__":
    # It prints as it scans: its own output goes where it cannot be taken for an answer.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    for line in sys.stdin:
        answers.write(json.dumps(verdict(line.strip())) + "\n")
