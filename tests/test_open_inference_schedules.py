"""Priorities and timeouts of the Open Inference Protocol, and the sequences that there are none of."""

from __future__ import annotations

import json
import math

import httpx
import numpy as np
import pytest

from gateway.schedules import LOOKED_AT_BYTES, MOST_BYTES, REMEMBERED_BYTES, patience, scheduled
from gateway.submit_options import DEFAULTS, LONGEST_SECONDS, SubmitOptions
from tests.dialect_kit import LINEAR
from tests.open_inference_kit import binary_request, infer, json_request, parse_infer
from tests.processes import Cluster
from tests.serving import paused_workers
from workers.errors import InputInvalid
from workers.lanes import Priority
from workers.protocols.body import TEXT, Body, Dialect
from workers.protocols.open_inference_schedule import HIGHEST_NUMBER, Schedule

ROW = np.array([[1.0, 2.0, 3.5]], np.float32)
PAIR = np.array([[1.0, 2.0]], np.float32)


def with_parameters(**parameters: object) -> bytes:
    return json_request({"x": ROW}, parameters=parameters)


@pytest.mark.parametrize(
    ("parameters", "schedule"),
    [
        ({}, Schedule()),
        ({"priority": 0, "timeout": 0}, Schedule()),
        ({"priority": 1, "timeout": 5000, "triton_x": True, "headers": "h"}, Schedule(1, 5000)),
        ({"priority": HIGHEST_NUMBER}, Schedule(HIGHEST_NUMBER)),
        ({"sequence_id": 0, "sequence_start": False, "sequence_end": False}, Schedule()),
    ],
    ids=lambda value: None if isinstance(value, dict) else str(value),
)
def test_a_request_says_how_urgent_it_is(parameters: dict[str, object], schedule: Schedule):
    assert parse_infer(with_parameters(**parameters), LINEAR).form.schedule == schedule
    body, head = binary_request({"x": ROW}, parameters=parameters)
    assert parse_infer(body, LINEAR, head).form.schedule == schedule


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"priority": -1}, "priority must be a whole number, 0 or more, not -1"),
        ({"priority": 1.5}, "priority must be a whole number"),
        ({"priority": True}, "priority must be a whole number"),
        ({"priority": HIGHEST_NUMBER + 1}, "priority must be a whole number"),
        ({"timeout": "1 s"}, "timeout must be a whole number"),
        ({"timeout": 10**4000}, "timeout must be a whole number"),
        ({"sequence_id": 7}, "sequence_id is not supported: no model remembers a request before"),
        ({"sequence_id": "a"}, "sequence_id is not supported"),
        ({"sequence_start": True}, "sequence_start is not supported"),
        ({"sequence_end": True}, "sequence_end is not supported"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_what_cannot_be_kept_to_is_refused(parameters: dict[str, object], said: str):
    with pytest.raises(InputInvalid, match=said):
        parse_infer(with_parameters(**parameters), LINEAR)


def patience_of(body: bytes, head: int = TEXT) -> float:
    return patience(Body(body, Dialect.OPEN_INFERENCE, head))


@pytest.mark.parametrize("rows", [1, 100, 10_000], ids=["short", "longer than is looked at", "long"])
def test_a_timeout_is_found_before_and_behind_the_numbers(rows: int):
    parameters, many = {"timeout": 2_500_000}, np.repeat(ROW, rows, axis=0)
    behind = json_request({"x": many}, parameters=parameters)
    before = json.dumps({"parameters": parameters} | json.loads(json_request({"x": many}))).encode()
    found = 2.5 if len(behind) <= MOST_BYTES else math.inf
    assert (patience_of(behind), patience_of(before)) == (found, found)
    body, head = binary_request({"x": many}, parameters=parameters)
    assert patience_of(body, head) == 2.5


def test_a_long_head_is_looked_at_as_well():
    body, head = binary_request({"x": ROW}, id="x" * REMEMBERED_BYTES, parameters={"timeout": 1000})
    assert patience_of(body, head) == 0.001


@pytest.mark.parametrize(
    "body",
    [
        json_request({"x": ROW}),
        with_parameters(timeout=0),
        with_parameters(timeout=-1),
        with_parameters(timeout="soon"),
        json_request({"x": ROW}, id="timeout"),
        b'{"timeout": 5}',
        b'{"parameters": {"timeout": 5}',
        b'[{"timeout": 5}]',
        b'{"parameters": ["timeout"]}',
        b"x" * 3 * LOOKED_AT_BYTES,
        b"",
    ],
)
def test_whatever_states_no_timeout_waits_as_long_as_others(body: bytes):
    assert patience_of(body) == math.inf
    assert patience_of(body, len(body)) == math.inf
    assert patience(Body(body, Dialect.TENSORFLOW_SERVING)) == math.inf


def test_a_submit_takes_the_more_urgent_priority_and_the_nearer_deadline():
    def options(given: SubmitOptions = DEFAULTS, **parameters: object) -> SubmitOptions:
        return scheduled(given, parse_infer(with_parameters(**parameters), LINEAR))

    assert options() == options(priority=2) == DEFAULTS
    assert options(priority=1).priority is Priority.INTERACTIVE
    assert options(SubmitOptions(priority=Priority.INTERACTIVE), priority=9).priority is Priority.INTERACTIVE
    assert options(timeout=3_000_000).deadline_seconds == 3.0
    assert options(SubmitOptions(deadline_seconds=2.0), timeout=3_000_000).deadline_seconds == 2.0
    assert options(timeout=HIGHEST_NUMBER).deadline_seconds == LONGEST_SECONDS


def test_a_job_gets_the_priority_of_its_request(caller: httpx.Client):
    for parameters, priority in (({"priority": 1}, "interactive"), ({"priority": 2}, "bulk"), ({}, "bulk")):
        body, head = binary_request({"x": PAIR}, parameters=parameters)
        accepted = infer(caller, "double", body, head, Prefer="respond-async")
        assert accepted.status_code == 202
        assert accepted.json()["priority"] == priority


def test_who_waits_longer_than_its_timeout_is_told_so(serving: Cluster, caller: httpx.Client):
    def asked(timeout: int) -> list[httpx.Response]:
        body, head = binary_request({"x": PAIR}, parameters={"timeout": timeout})
        text = json_request({"x": PAIR}, parameters={"timeout": timeout})
        return [infer(caller, "double", body, head), infer(caller, "double", text)]

    # No worker is as quick as a microsecond.
    refused = asked(1)
    with paused_workers(serving):
        refused += asked(300_000)
    for answer in refused:
        assert (answer.status_code, answer.json()) == (503, {"error": "Request timeout expired"})
    assert [answer.status_code for answer in asked(30_000_000)] == [200, 200]
