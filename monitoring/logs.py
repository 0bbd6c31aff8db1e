"""Logs: one JSON object a line on standard error, with what is known of the request bound to it, and no secrets.

Fields: `time` (RFC 3339, UTC), `level`, `logger`, `process`, `pid`, `message`, whatever `bind` added, and `exception`.
Everything outside printable ASCII is escaped, so that no text of a caller can forge a line or move a terminal's cursor.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import sys
import threading
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from types import TracebackType

VALUE_CHARACTERS = 256
MESSAGE_CHARACTERS = 4096
EXCEPTION_CHARACTERS = 16 * 1024
LONGEST_READ = 64 * 1024
TRACEBACK = "Traceback (most recent call last)"
MASK = "[masked]"

# Loggers that bring handlers of their own; theirs would print past this module, unmasked.
_FOREIGN = ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi", "celery", "celery.task", "celery.redirected")

# Each pattern takes a time proportional to the text (repeats are bounded or cannot meet): logged text may be hostile.
_SECRETS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL), MASK),
    (re.compile(r"eyJ[A-Za-z0-9_.=-]*"), MASK),
    (re.compile(r"sl[ors]_[A-Za-z0-9_-]+"), MASK),
    (re.compile(r"(://[^\s/:@]*:)[^\s/]*@"), rf"\1{MASK}@"),
    (
        re.compile(r"(\bauthorization\b['\"]?\s*[:=,]\s*b?['\"]?)(?:[a-z]+\s+)?[^\s'\",;)\]}]+", re.IGNORECASE),
        rf"\1{MASK}",
    ),
    (re.compile(r"(\b(?:bearer|basic)\s+)[A-Za-z0-9+/._~=-]{8,}", re.IGNORECASE), rf"\1{MASK}"),
    (
        re.compile(
            r"((?:secret|password|passwd|api_?key|access_token|refresh_token|pepper)\w{0,32}['\"]?\s*[:=]\s*b?['\"]?)"
            r"[^\s'\"&,;)\]}]+",
            re.IGNORECASE,
        ),
        rf"\1{MASK}",
    ),
)

_bound: ContextVar[Mapping[str, str]] = ContextVar("bound", default={})  # noqa: B039 - never changed in place


def configure(process: str, *, level: str = "INFO") -> None:
    """Routes every logger of this process, uvicorn's and Celery's too, through one handler on standard error.

    `process` names the kind of process (`gateway`, `worker`, ...). May be called again; the last call counts.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(process))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in _FOREIGN:
        foreign = logging.getLogger(name)
        foreign.handlers.clear()
        foreign.propagate = True
    logging.captureWarnings(capture=True)
    sys.excepthook = _log_uncaught
    threading.excepthook = _log_uncaught_in_thread


@contextlib.contextmanager
def bind(**fields: object) -> Iterator[None]:
    """Adds fields to every line logged in this context (task or thread) until the block ends; None values are left out.

    A thread started inside the block does not inherit them, a coroutine and `asyncio.to_thread` do.
    """
    added = {name: str(value) for name, value in fields.items() if value is not None}
    token = _bound.set({**_bound.get(), **added})
    try:
        yield
    finally:
        _bound.reset(token)


def masked(text: str) -> str:
    """The text with everything that looks like a token, a secret, a password or a private key replaced."""
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return text


class JsonFormatter(logging.Formatter):
    """Writes a record as one line of JSON."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC)
            .isoformat(timespec="milliseconds")
            .replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "process": self._process,
            "pid": record.process,
            "message": _shown(_message_of(record)),
        }
        for name, value in _bound.get().items():
            line.setdefault(name, _cut(masked(value[:LONGEST_READ]), VALUE_CHARACTERS))
        if record.exc_info and record.exc_info[0] is not None:
            # The end of a traceback says what happened; its beginning is the server's own frames.
            line["exception"] = masked(self.formatException(record.exc_info)[-LONGEST_READ:])[-EXCEPTION_CHARACTERS:]
        return json.dumps(line, ensure_ascii=True).replace("\x7f", "\\u007f")


def _message_of(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (TypeError, ValueError, KeyError):
        # Arguments that do not fit the format: logging would print them to standard error, unmasked.
        return f"{record.msg} (arguments do not fit)"


def _shown(message: str) -> str:
    if message.startswith(TRACEBACK):
        # The server logs what ended its start as a message; as of an exception, its end says what happened.
        return masked(message[-LONGEST_READ:])[-EXCEPTION_CHARACTERS:]
    return _cut(masked(message[:LONGEST_READ]), MESSAGE_CHARACTERS)


def _cut(text: str, characters: int) -> str:
    return text if len(text) <= characters else text[: characters - 1] + "…"


def _log_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    logging.getLogger("sluice").critical("uncaught exception", exc_info=(kind, error, trace))


def _log_uncaught_in_thread(arguments: threading.ExceptHookArgs) -> None:
    if arguments.exc_value is None or issubclass(arguments.exc_type, SystemExit):
        return
    name = arguments.thread.name if arguments.thread else "unknown"
    information = (arguments.exc_type, arguments.exc_value, arguments.exc_traceback)
    logging.getLogger("sluice").critical("uncaught exception in thread %s", name, exc_info=information)
