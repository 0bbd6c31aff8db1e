"""`python -m benchmarks`, or `make bench`: all targets, measured beside the floor of the same run.

What is compared is measured in turns, a few seconds each, so that what else the machine does falls on all of it.
Answers are verified first. Everything is on one machine: the load takes its part of the processors.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import targets, wrk
from benchmarks.bench import QUICK, Bench, Sizes
from benchmarks.experiment import Experiment
from benchmarks.experiments import ALL
from benchmarks.failures import BenchmarkFailed
from benchmarks.installation import made
from benchmarks.machine import ROOT
from benchmarks.outcome import Outcome
from benchmarks.publishing import publish
from benchmarks.report import RESULTS, Report
from sluice.client import SluiceFailed
from sluice.failures import CommandFailed

DATA = ROOT / "build" / "benchmark-data"
QUICK_DATA = ROOT / "build" / "benchmark-data-quick"
QUICK_RESULTS = ROOT / "build" / "benchmark-results"


def main() -> int:
    options = _options()
    if options.list:
        print("\n".join(f"{one.name:<20} {one.text}" for one in ALL))
        return 0
    if options.publish:
        print(f"Written to {publish()}")
        return 0
    # As Ctrl-C does: the servers are stopped on the way out.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        bench = _bench(options)
    except (BenchmarkFailed, SluiceFailed, CommandFailed) as error:
        print(f"the models could not be prepared: {error}", file=sys.stderr)
        return 1
    chosen = [one for one in ALL if not options.only or one.name in options.only]
    report = run_all(bench, chosen)
    path = report.write(options.results)
    if not options.quick:
        print("\n" + "\n".join(targets.table(report.document(), measured_only=True)))
    print(f"\nWritten to {path.with_suffix('.json')}, {path.name} and {path.stem}/")
    for problem in report.problems:
        print(f"worthless: {problem}", file=sys.stderr)
    return 1 if report.problems else 0


def run_all(bench: Bench, experiments: Sequence[Experiment]) -> Report:
    """Make the experiments one after the other; one that fails is a problem in the report."""
    report = Report(datetime.now(UTC), bench.generator, bench.sizes.seconds, bench.sizes.rounds)
    for one in experiments:
        print(f"\n{one.name}: {one.text}", flush=True)
        started = time.monotonic()
        try:
            outcome = one.run(bench)
        except Exception as error:  # noqa: BLE001 - an edge: whatever broke here, the other experiments are made
            outcome = Outcome(problems=[f"{type(error).__name__}: {error}"])
        for problem in outcome.all_problems():
            print(f"  worthless: {problem}", flush=True)
        report.outcomes[one.name], report.texts[one.name] = outcome, one.text
        report.took_seconds[one.name] = time.monotonic() - started
        print(f"  {report.took_seconds[one.name]:.0f} s", flush=True)
    return report


def _bench(options: argparse.Namespace) -> Bench:
    sizes = QUICK if options.quick else Sizes()
    chosen = {name: given for name in ("seconds", "rounds", "rows") if (given := getattr(options, name)) is not None}
    installation = made(options.data, small=options.quick, say=lambda text: print(text, flush=True))
    # wrk measures whole seconds.
    use_wrk = wrk.installed() and not options.no_wrk and not options.quick
    return Bench(installation, replace(sizes, **chosen), use_wrk)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.partition("\n")[0])
    names = [one.name for one in ALL]
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", help="make only these experiments")
    parser.add_argument("--list", action="store_true", help="list the experiments")
    parser.add_argument("--publish", action="store_true", help="write the newest results into docs/benchmark.md")
    parser.add_argument("--quick", action="store_true", help="a little of everything: does the benchmark itself work?")
    parser.add_argument("--seconds", type=float, help="length of one measurement")
    parser.add_argument("--rounds", type=int, help="measurements of each thing at each number of connections")
    parser.add_argument(
        "--rows", type=int, help="rows of the batch file; 1000000 takes minutes, and 4 GB of disk twice"
    )
    parser.add_argument("--no-wrk", action="store_true", help="use the generator in Python though wrk is installed")
    parser.add_argument("--data", type=Path, help="data folder, kept between runs")
    parser.add_argument("--results", type=Path, help="folder for what is found")
    options = parser.parse_args()
    options.data = options.data or (QUICK_DATA if options.quick else DATA)
    options.results = options.results or (QUICK_RESULTS if options.quick else RESULTS)
    return options


if __name__ == "__main__":
    sys.exit(main())
