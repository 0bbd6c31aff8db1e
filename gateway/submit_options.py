"""The options of a submit, which come as headers: predictions' bodies belong to other people's protocols."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlsplit

from model_store.errors import SluiceError
from workers.lanes import Priority

KEY_CHARACTERS = 255
MOST_ATTEMPTS = 10
URL_CHARACTERS = 2048
# A hundred years: beyond that a deadline says nothing, and milliseconds still fit into 64 bits.
LONGEST_SECONDS = 100 * 365 * 86_400.0

_SECONDS = re.compile(r"\d{1,10}(\.\d{1,6})?")
_MOMENT = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)")
_QUOTED = re.compile(r'"((?:[\x20-\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"')
_BARE = re.compile(r"[\x21\x23-\x7e][\x20-\x7e]*")
_URL = re.compile(r"https?://[\x21-\x7e]+", re.IGNORECASE)


class OptionInvalid(SluiceError):
    """An option of a submit cannot be read; the message names its header and what it may be."""

    status = 400
    code = "option_invalid"


@dataclass(frozen=True, slots=True)
class SubmitOptions:
    """What a caller asks of its job; None is whatever the model's policy or the settings say.

    `deadline_seconds` counts from now. `webhook` is an address to tell of the job's end; whether it may be called is
    for whoever calls it to say.
    """

    idempotency_key: str | None = None
    priority: Priority = Priority.BULK
    deadline_seconds: float | None = None
    max_attempts: int | None = None
    webhook: str | None = None


DEFAULTS = SubmitOptions()


def read_submit_options(headers: Sequence[tuple[bytes, bytes]], now_ms: Callable[[], int]) -> SubmitOptions:
    """The options among a request's raw headers, whose names are in lower case; raises OptionInvalid.

    `now_ms` tells the moment by the database's clock, which a deadline given as a moment is compared with.
    """
    given = [(name, value) for name, value in headers if name in _NAMES]
    if not given:
        return DEFAULTS
    options: dict[bytes, str] = {}
    for name, value in given:
        if name in options:
            raise OptionInvalid(f"{_NAMES[name]} is given twice")
        options[name] = value.decode("latin-1").strip(" \t")
    priority = options.get(b"sluice-priority")
    deadline = options.get(b"sluice-deadline")
    attempts = options.get(b"sluice-max-attempts")
    key = options.get(b"idempotency-key")
    webhook = options.get(b"sluice-webhook")
    return SubmitOptions(
        None if key is None else _key(key),
        Priority.BULK if priority is None else _priority(priority),
        None if deadline is None else _deadline(deadline, now_ms),
        None if attempts is None else _attempts(attempts),
        None if webhook is None else _webhook(webhook),
    )


def _key(text: str) -> str:
    """The key as the draft writes it, a quoted string (RFC 9651, section 3.3.3), or bare, as most clients send it."""
    quoted = _QUOTED.fullmatch(text)
    key = re.sub(r"\\(.)", r"\1", quoted[1]) if quoted else text
    if not key or len(key) > KEY_CHARACTERS or not (quoted or _BARE.fullmatch(text)):
        raise OptionInvalid(f"Idempotency-Key is 1 to {KEY_CHARACTERS} printable ASCII characters, in quotes or bare")
    return key


def _priority(text: str) -> Priority:
    try:
        return Priority(text.lower())
    except ValueError:
        raise OptionInvalid("Sluice-Priority is `interactive` or `bulk`") from None


def _deadline(text: str, now_ms: Callable[[], int]) -> float:
    if _SECONDS.fullmatch(text):
        seconds = float(text)
    elif _MOMENT.fullmatch(text):
        seconds = _seconds_until(text, now_ms())
    else:
        raise OptionInvalid("Sluice-Deadline is a number of seconds from now, or a moment such as 2099-12-31T23:00:00Z")
    if seconds <= 0:
        raise OptionInvalid("Sluice-Deadline lies in the past")
    return min(seconds, LONGEST_SECONDS)


def _seconds_until(text: str, now_ms: int) -> float:
    try:
        moment = datetime.fromisoformat(text.upper()).timestamp()
    except (ValueError, OverflowError):
        raise OptionInvalid("Sluice-Deadline names a moment that no calendar has") from None
    return moment - now_ms / 1000


def _attempts(text: str) -> int:
    if not re.fullmatch(r"\d{1,2}", text) or not 1 <= int(text) <= MOST_ATTEMPTS:
        raise OptionInvalid(f"Sluice-Max-Attempts is a number from 1 to {MOST_ATTEMPTS}")
    return int(text)


def _webhook(text: str) -> str:
    try:
        readable = len(text) <= URL_CHARACTERS and _URL.fullmatch(text) and urlsplit(text).hostname
    except ValueError:
        readable = None
    if not readable:
        raise OptionInvalid(f"Sluice-Webhook is an https address of at most {URL_CHARACTERS} characters")
    return text


_NAMES = {
    b"idempotency-key": "Idempotency-Key",
    b"sluice-priority": "Sluice-Priority",
    b"sluice-deadline": "Sluice-Deadline",
    b"sluice-max-attempts": "Sluice-Max-Attempts",
    b"sluice-webhook": "Sluice-Webhook",
}
