"""Server-sent events as text (WHATWG HTML, section 9.2), and what a reader that comes back says it has seen."""

from __future__ import annotations

import re

from model_store.errors import SluiceError

MEDIA_TYPE = "text/event-stream"
RETRY_MILLISECONDS = 2000
BEGINNING = f"retry: {RETRY_MILLISECONDS}\n\n".encode()
HEARTBEAT = b": still here\n\n"

_LINE_ENDS = re.compile(rb"\r\n|\r|\n")


class LastEventIdInvalid(SluiceError):
    """To begin anew without a word would be a gap, and nobody would know."""

    status = 400
    code = "last_event_id_invalid"

    def __init__(self) -> None:
        super().__init__("Last-Event-ID is not one that this server gave")


def frame(name: str, data: bytes, event_id: str | None) -> bytes:
    """One event; without an id, a reader keeps the last one that it was given."""
    head = f"event: {name}\n" if event_id is None else f"event: {name}\nid: {event_id}\n"
    lines = b"".join(b"data: %b\n" % line for line in _LINE_ENDS.split(data))
    return b"%b%b\n" % (head.encode(), lines)


def mark(event_id: str) -> bytes:
    """A new last id without an event: a reader that comes back begins there, and nobody is called."""
    return b"id: %b\n\n" % event_id.encode()
