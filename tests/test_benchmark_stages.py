"""A sample belongs to the stage of its innermost known function, and stages add up to what Linux counted."""

from __future__ import annotations

from pathlib import Path

from benchmarks import stage_plot
from benchmarks.sampling import GATEWAY, PREDICTING, REST, read_stacks, shares, stage_of
from benchmarks.stages import Profile, Stage, table

SEND = "Socket.execute (gateway/wire.py)"
PREDICT = "PredictionEndpoint.__call__ (gateway/predictions.py)"


def test_the_innermost_known_frame_decides():
    assert stage_of([PREDICT, "Admission.caller (gateway/admission.py)"], GATEWAY) == "admission"
    assert stage_of([PREDICT, "an unknown one (json/decoder.py)"], GATEWAY) == "endpoint"


def test_a_socket_belongs_to_whoever_writes_to_it():
    assert stage_of(["Submission._end_turn (gateway/submission.py)", SEND], GATEWAY) == "write to the queue"
    assert stage_of(["Submission._receive (gateway/submission.py)", SEND], GATEWAY) == "read the answers"


def test_parsing_replies_is_not_parsing_inputs():
    replies = "_HiredisParser.read_from_socket (redis/_parsers/hiredis.py)"
    inputs = "parse_predict (workers/protocols/tensorflow_serving.py)"
    answer = "format_predict (workers/protocols/tensorflow_serving.py)"
    assert [stage_of([frame], PREDICTING) for frame in (replies, inputs, answer)] == [
        "read the queue",
        "parse",
        "format",
    ]


def test_shares_add_up_to_one_without_the_threads_that_sleep():
    text = f"{PREDICT} 30\nrun (uvloop) 10\nHeart._run (workers/heart.py);Condition.wait (threading.py) 99\n"
    assert shares(read_stacks(text), GATEWAY) == {"endpoint": 0.75, REST: 0.25}


def test_a_profile_becomes_a_table_and_always_the_same_plot(tmp_path: Path):
    stages = [Stage("gateway", "admission", 2.0), Stage("Redis", "Redis", 3.25), Stage("gateway", "endpoint", 10.0)]
    profiles = [
        Profile(1, 1500.0, 430.0, stages, {"gateway": 1.5}),
        Profile(32, 15_000.0, 2100.0, stages[:2], {"gateway": 0.5}),
    ]
    lines = table(profiles)
    assert lines[0] == "| process | stage | 1 connection | 32 connections |"
    assert lines[2:5] == [
        "| gateway | admission | 2.0 | 2.0 |",
        "| gateway | endpoint | 10.0 | 0.0 |",
        "| Redis |  | 3.2 | 3.2 |",
    ]
    assert lines[5] == "| gateway | of all that, in the kernel | 1.5 | 0.5 |"
    assert lines[6] == "| **all** | processor time | **15** | **5** |"
    for name in ("first.svg", "second.svg"):
        stage_plot.draw(profiles, tmp_path / name)
    assert (tmp_path / "first.svg").read_bytes() == (tmp_path / "second.svg").read_bytes()
