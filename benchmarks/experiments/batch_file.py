"""A file of many rows as a batch, beside a script of one process that does the same with the same file."""

from __future__ import annotations

import time
from pathlib import Path

import httpx

from benchmarks import batch_alone, digit_file
from benchmarks.batch_alone import PARSERS, Script
from benchmarks.bench import Bench
from benchmarks.experiment import Experiment
from benchmarks.failures import BenchmarkFailed
from benchmarks.memory_watch import MemoryWatch
from benchmarks.models import DIGITS
from benchmarks.outcome import Outcome
from benchmarks.system import Options, System
from benchmarks.verification import served
from model_store.artifacts import Artifacts
from model_store.settings import StoreSettings

LOOK_SECONDS = 0.5
# Of a batch and of a script, for each row; a machine may be slow.
MOST_SECONDS_PER_ROW = 0.005
LEAST_SECONDS = 120.0
FAILED = ("failed", "canceled", "expired")


def run(bench: Bench) -> Outcome:
    outcome, rows = Outcome(), bench.sizes.rows
    with bench.serving("batch-file", Options()) as system:
        system.start_background()
        folder = system.folder.root / "batch-file"
        folder.mkdir()
        questions, answers = folder / "rows.jsonl", folder / "answers.jsonl"
        outcome.facts["rows"] = rows
        outcome.facts["file, MB"] = digit_file.write(questions, rows) / 1e6
        most_seconds = LEAST_SECONDS + MOST_SECONDS_PER_ROW * rows
        taken = {}
        for parser in PARSERS:
            script = _script(system, questions, folder / f"{parser}.jsonl", parser)
            took = batch_alone.measure(script, most_seconds)
            taken[parser] = took.seconds
            outcome.facts[f"rows/s of a script with {parser}"] = rows / took.seconds
            outcome.facts[f"script with {parser}, MB at most"] = took.megabytes
            print(
                f"  script with {parser:<8} {rows / took.seconds:>9,.0f} rows/s  {took.megabytes:,.0f} MB", flush=True
            )
        watch = MemoryWatch(system.processes() | {"background worker": system.reading()})
        seconds = _batch(bench, system, questions, answers, watch, most_seconds)
        print(f"  batch                {rows / seconds:>9,.0f} rows/s", flush=True)
        outcome.facts["rows/s of a batch"] = rows / seconds
        for parser, alone in taken.items():
            outcome.facts[f"batch to script with {parser}"] = alone / seconds
        outcome.facts["rows answered alike"] = digit_file.compare(answers, folder / "orjson.jsonl", rows)
        _note_memory(watch, outcome)
    return outcome


def _script(system: System, questions: Path, answers: Path, parser: str) -> Script:
    found = served(system, DIGITS)
    store = Artifacts(system.folder.root / "store", StoreSettings().upload_limit_bytes)
    model = str(store.path(found.digest))
    return Script(model, found.signature.to_json(), str(questions), str(answers), parser, found.max_batch)


def _batch(
    bench: Bench, system: System, questions: Path, answers: Path, watch: MemoryWatch, most_seconds: float
) -> float:
    """Seconds from the first byte of the upload to the last of the result."""
    headers = {"Authorization": f"Bearer {bench.token(system)}"}
    started = time.monotonic()
    with httpx.Client(base_url=system.address, headers=headers, timeout=most_seconds, trust_env=False) as http:
        accepted = http.post(f"/v1/models/{DIGITS}:batch?format=jsonl", content=digit_file.pieces(questions))
        if accepted.status_code != 202:
            raise BenchmarkFailed(f"the batch was answered with {accepted.status_code}: {accepted.text[:500]}")
        address = f"/v1/jobs/{accepted.json()['id']}"
        while (job := http.get(address).json())["state"] != "succeeded":
            if job["state"] in FAILED or time.monotonic() - started > most_seconds:
                raise BenchmarkFailed(f"the batch is {job}")
            watch.look(job["progress"]["done"] / bench.sizes.rows)
            time.sleep(LOOK_SECONDS)
        with http.stream("GET", f"{address}/result") as result, answers.open("wb") as file:
            for piece in result.iter_bytes():
                file.write(piece)
        watch.look(1.0)
    return time.monotonic() - started


def _note_memory(watch: MemoryWatch, outcome: Outcome) -> None:
    """The most of each process, and how much more that was towards the end than in the first tenth."""
    growths = []
    for name in watch.processes:
        early, late = watch.most(name, 0.0, 0.1), watch.most(name, 0.9, 1.0)
        outcome.facts[f"{name}, MB at most"] = watch.most(name)
        outcome.facts[f"{name}, MB in the first tenth"] = early
        growths.append(late - early)
    outcome.facts["memory, MB more at the end than in the first tenth"] = max(growths)


BATCH_FILE = Experiment(
    "batch-file", "A file of many rows as a batch, beside a script that reads, parses, predicts and writes it.", run
)
