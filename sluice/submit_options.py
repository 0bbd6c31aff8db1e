"""What may be asked of a job that is submitted, and the headers that ask for it."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from datetime import datetime
from typing import Literal, TypedDict

# What sees to it that a submit which is sent again is one job.
KEY = "Idempotency-Key"
# What a file of rows is, by how its name ends.
FORMATS = {
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".npz": "npz", ".parquet": "parquet", ".zip": "files"
}  # fmt: skip


class SubmitOptions(TypedDict, total=False):
    """What may be asked of a job; the key names the submit, for as long as it may be sent again."""

    idempotency_key: str
    deadline: float | datetime
    """In seconds from now, or a moment with a time zone: later it is not worth running."""
    priority: Literal["interactive", "bulk"]
    max_attempts: int
    webhook: str
    """An address to tell of its end."""


def option_headers(options: SubmitOptions) -> dict[str, str]:
    """The options of a submit as headers; without a key, one is made up, so that a submit can be sent again.

    Raises TypeError for an option that there is not, ValueError for one that no header can hold.
    """
    require_known(options, SubmitOptions)
    deadline = options.get("deadline")
    given = {
        KEY: options.get("idempotency_key") or secrets.token_urlsafe(18),
        "Sluice-Deadline": deadline.isoformat() if isinstance(deadline, datetime) else deadline,
        "Sluice-Priority": options.get("priority"),
        "Sluice-Max-Attempts": options.get("max_attempts"),
        "Sluice-Webhook": options.get("webhook"),
    }
    headers = {name: str(value) for name, value in given.items() if value is not None}
    for name, value in headers.items():
        if not (value.isascii() and value.isprintable()):
            raise ValueError(f"{name} takes printable ASCII characters, not {value!r}")
    return headers


def require_known(options: Mapping[str, object], kind: type) -> None:
    """Raises TypeError for an option that this kind has not, as Python does for other arguments: a misspelt deadline is
    not to be none."""
    known = list(kind.__annotations__)
    for name in options:
        if name not in known:
            raise TypeError(f"there is no option {name!r}, but {', '.join(known)}")
