"""Where a Python process spends its time: stacks sampled by py-spy from outside, and the stage that each belongs to."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.failures import BenchmarkFailed

RATE = 100
MOST_SECONDS_OVER = 60.0
REST = "event loop, the rest"
# Being looked at wakes a sleeping thread for a moment, and on a busy machine the next sample finds it still awake.
ASLEEP = re.compile(r"^(Condition\.wait|Queue\.get|_worker) \((threading|queue|concurrent/futures/thread)\.py")


@dataclass(frozen=True, slots=True)
class Rule:
    """A stage, and the frames that it is recognised by: `function (file:line)` as py-spy writes them."""

    stage: str
    frames: re.Pattern[str]


def rule(stage: str, *frames: str) -> Rule:
    return Rule(stage, re.compile("|".join(frames)))


# The innermost frame that a rule knows decides, and of the rules the first. Frames that serve several stages, like a
# socket's `write`, are in none: then whoever called them decides.
GATEWAY = (
    rule(
        "read the request",
        r"^(?!\w+\.send ).*\((uvicorn/protocols|gateway/(request_heads|prediction_bodies))",
    ),
    rule("admission", r"\((gateway/(admission|prediction_addresses|preferences)|auth/)"),
    rule("endpoint", r"\(gateway/(app|predictions|middleware)", r"predict \(gateway/submission"),
    rule("write to the queue", r"_end_turn \(", r"pack_bundle", r"\(workers/(ringer|bells)"),
    rule(
        "read the answers", r"Submission\._(receive|hand_out|take)", r"unpack_answers", r"data_received \(gateway/wire"
    ),
    rule("write the answer", r"Cycle\.send \(uvicorn", r"\(gateway/joined_writes"),
    rule("metrics", r"\((monitoring|prometheus_client)/"),
    rule("rights, models, jobs", r"\((sqlalchemy|gateway/(snapshot|health)|workers/(dispatch|roles|layout|sweep))"),
)
PREDICTING = (
    rule(
        "read the queue",
        r"^(?!\w+\.send_packed_command ).*\((workers/(reading|entries|hot_lanes|redis_link)|redis|hiredis)[/.]",
        r"unpack_bundle",
    ),
    rule("parse", r"^[^(]*[Pp]arse", r"^(?!.*(format|_text )).*\(workers/protocols/"),
    rule("batches", r"\((workers/(batches|answering|drain)|numpy/)"),
    rule("inference", r"\((workers/runtimes|onnxruntime)/"),
    rule("format", r"^[^(]*(format|output_text|tensor_text)"),
    rule("write to the queue", r"\.send_packed_command \(", r"\(workers/outbox", r"pack_answers"),
    rule("metrics", r"\((monitoring|prometheus_client)/"),
)


def sample(pid: int, seconds: float) -> Mapping[str, int]:
    """Samples by stack while the process is on a processor; raises BenchmarkFailed where it cannot be looked at."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "stacks"
        command = [str(Path(sys.executable).with_name("py-spy")), "record", "--pid", str(pid), "--format", "raw"]
        # It pauses the process for each sample: without that, stacks that change while they are read would be lost, and
        # with them what runs in Python rather than in the kernel.
        command += ["--nolineno", "--rate", str(RATE), "--duration", str(round(seconds))]
        done = subprocess.run(
            [*command, "--output", str(output)],
            capture_output=True,
            text=True,
            timeout=seconds + MOST_SECONDS_OVER,
            check=False,
        )
        if done.returncode != 0 or not output.exists():
            raise BenchmarkFailed(f"py-spy could not look at process {pid}: {done.stderr[-500:]}")
        return read_stacks(output.read_text())


def read_stacks(text: str) -> dict[str, int]:
    """py-spy's raw format: a stack, outermost frame first and frames parted by semicolons, and a number a line."""
    found: Counter[str] = Counter()
    for line in text.splitlines():
        stack, _, count = line.rpartition(" ")
        found[stack] += int(count)
    return dict(found)


def shares(stacks: Mapping[str, int], rules: Sequence[Rule]) -> dict[str, float]:
    """Each stage's share of the samples, in the order of the rules; what none knows is the event loop or the rest."""
    counted: Counter[str] = Counter()
    for stack, count in stacks.items():
        frames = stack.split(";")
        if not ASLEEP.search(frames[-1]):
            counted[stage_of(frames, rules)] += count
    total = counted.total()
    return {stage: counted[stage] / total for stage in [*(one.stage for one in rules), REST] if counted[stage]}


def stage_of(frames: Sequence[str], rules: Sequence[Rule]) -> str:
    """By the innermost frame that a rule knows."""
    for frame in reversed(frames):
        for one in rules:
            if one.frames.search(frame):
                return one.stage
    return REST
