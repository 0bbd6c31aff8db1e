"""What requests of the Open Inference Protocol say of when they are to be answered, in this gateway's terms.

Source: docs/protocol/extension_schedule_policy.md of Triton's server: priority 1 is the highest, 0 the server's own;
the timeout is in microseconds, and what passes it is answered 503, as Triton does.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache

from gateway.submit_options import LONGEST_SECONDS, SubmitOptions
from model_store.errors import SluiceError
from workers.errors import InputInvalid
from workers.lanes import Priority
from workers.protocols.body import TEXT, Body, Dialect
from workers.protocols.contract import Request
from workers.protocols.json_text import parse_json
from workers.protocols.open_inference import InferRequest
from workers.protocols.open_inference_schedule import AT_ANY_TIME, schedule_in

TIMEOUT = b'"timeout"'
# Clients write a request's parameters first or last. To look through megabytes of numbers between would take longer
# than all else that is done with them here.
LOOKED_AT_BYTES = 256
# Where there is a timeout the JSON is read, on the event loop: that of a longer one is not kept.
MOST_BYTES = 64 * 1024
REMEMBERED_BYTES = 2048
MICROSECONDS = 1_000_000
HIGHEST = 1


class TimeoutExpired(SluiceError):
    """The answer did not come within the time that the request itself allows."""

    status = 503
    code = "timeout_expired"

    def __init__(self) -> None:
        super().__init__("Request timeout expired")


def patience(body: Body) -> float:
    """How many seconds a synchronous request wants to wait at most; infinity where it does not say."""
    if body.dialect != Dialect.OPEN_INFERENCE:
        return math.inf
    data, head = body.data, body.head
    if head <= REMEMBERED_BYTES:
        return _remembered(data[:head])
    end = len(data) if head == TEXT else head
    if data.find(TIMEOUT, 0, LOOKED_AT_BYTES) < 0 and data.find(TIMEOUT, max(0, end - LOOKED_AT_BYTES), end) < 0:
        return math.inf
    return _stated(data[:end]) if end <= MOST_BYTES else math.inf


def scheduled(options: SubmitOptions, request: Request) -> SubmitOptions:
    """A submit's options with what the request itself says: the more urgent of two priorities, the nearer deadline."""
    schedule = request.form.schedule if isinstance(request, InferRequest) else AT_ANY_TIME
    if schedule.priority == HIGHEST:
        options = replace(options, priority=Priority.INTERACTIVE)
    if schedule.timeout:
        seconds = min(schedule.timeout / MICROSECONDS, options.deadline_seconds or LONGEST_SECONDS)
        options = replace(options, deadline_seconds=seconds)
    return options


@lru_cache(maxsize=1024)
def _remembered(text: bytes) -> float:
    return _stated(text) if TIMEOUT in text else math.inf


def _stated(text: bytes) -> float:
    try:
        document = parse_json(text)
        parameters = document.get("parameters") if isinstance(document, dict) else None
        timeout = schedule_in(parameters).timeout if isinstance(parameters, dict) else 0
    except InputInvalid:
        return math.inf  # the worker refuses it, as it does whatever else is wrong with a request
    return timeout / MICROSECONDS or math.inf
