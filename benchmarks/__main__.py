"""`python -m benchmarks`, or `make bench`: predictions per second and their latency, beside the floor of the same run.

Both servers run all the time and are measured in turns, a few seconds each, so that what else the machine does falls on
both. The answers are verified first. Everything is on one machine: the load takes its part of the processors.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import wrk
from benchmarks.load import Load, LoadFailed, Measurement
from benchmarks.report import FLOOR, SLUICE, Report, Round
from benchmarks.servers import HOST, PATH, ServerFailed, Servers, serving, verify

DIGITS = 64
WARM_SECONDS = 1.0
MOST_SECONDS_OVER = 60.0


def digits(count: int) -> list[list[list[float]]]:
    """Different images of 28x28 pixels, a fifth of them inked, as many as digits have: about 4 KB of JSON each."""
    generator = random.Random(7)  # noqa: S311 - the same images in every run
    return [
        [[round(generator.random(), 4) if generator.random() < 0.2 else 0.0 for _ in range(28)] for _ in range(28)]
        for _ in range(count)
    ]


def measure(load: Load, use_wrk: bool) -> Measurement:
    """Put the load on, in a process of its own. Raises LoadFailed."""
    if use_wrk:
        return wrk.run(load)
    command = [sys.executable, "-m", "benchmarks.load"]
    done = subprocess.run(
        command,
        input=json.dumps(asdict(load)),
        capture_output=True,
        text=True,
        timeout=load.seconds + MOST_SECONDS_OVER,
        check=False,
    )
    if done.returncode != 0:
        raise LoadFailed(f"the load ended with {done.returncode}: {done.stderr[-1000:]}")
    return Measurement(**json.loads(done.stdout))


def measure_all(servers: Servers, options: argparse.Namespace, bodies: list[str], use_wrk: bool) -> list[Round]:
    rounds = []
    ports = {FLOOR: servers.floor_port, SLUICE: servers.sluice_port}
    for connections in options.connections:
        for number in range(options.rounds):
            for server, port in ports.items():
                load = Load(HOST, port, PATH, servers.token(), bodies, connections, options.seconds)
                if number == 0:
                    measure(replace(load, seconds=WARM_SECONDS), use_wrk)
                rounds.append(Round(server, connections, measure(load, use_wrk)))
                say(rounds[-1])
    return rounds


def say(done: Round) -> None:
    found = done.measured
    errors = f"  errors {found.errors}" if found.errors else ""
    print(
        f"{done.connections:>4} connections  {done.server:<7} {found.per_second:>9,.0f}/s"
        f"  p50 {found.p50:>7.2f} ms  p99 {found.p99:>7.2f} ms{errors}",
        flush=True,
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.partition("\n")[0])
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 8, 32, 128], help="numbers of connections")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of one measurement")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each server at each number")
    parser.add_argument("--workers", type=int, default=2, help="prediction processes")
    parser.add_argument(
        "--data", type=Path, default=Path("build/benchmark-data"), help="data folder, kept between runs"
    )
    parser.add_argument(
        "--no-wrk", action="store_true", help="use the load generator in Python though wrk is installed"
    )
    options = parser.parse_args()
    # As Ctrl-C does: the servers are stopped on the way out.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    use_wrk = wrk.installed() and not options.no_wrk
    images = digits(DIGITS)
    bodies = [json.dumps({"instances": [image]}) for image in images]
    started_at = datetime.now(UTC)
    print("Starting the servers; the first time this trains the demo's models.", flush=True)
    try:
        with serving(options.data, options.workers) as servers:
            verify(servers, images[:8])
            print("The answers are right. Measuring.", flush=True)
            rounds = measure_all(servers, options, bodies, use_wrk)
    except (ServerFailed, LoadFailed) as error:
        print(error, file=sys.stderr)
        return 1
    report = Report(rounds, "wrk" if use_wrk else "benchmarks.load (Python)", started_at)
    path = report.write()
    print(f"\n{report.table()}\nWritten to {path.parent}/{path.stem}.json and .md")
    if report.errors:
        print(f"{report.errors} answers were no predictions: these figures are worth nothing.", file=sys.stderr)
    return 1 if report.errors else 0


if __name__ == "__main__":
    sys.exit(main())
