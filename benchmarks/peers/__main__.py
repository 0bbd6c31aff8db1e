"""`python -m benchmarks.peers`, or `make bench-peers`: Sluice and what somebody would use instead, in the same run.

Each server is installed into an environment of its own, started alone, checked against ONNX Runtime's own answers,
timed under the same load, and stopped. What fails is in the table with its reason.
"""

from __future__ import annotations

import argparse
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import wrk
from benchmarks.failures import BenchmarkFailed
from benchmarks.machine import ROOT, machine
from benchmarks.making import make_models
from benchmarks.peers.catalog import peers
from benchmarks.peers.measuring import Result, measure
from benchmarks.peers.own import SluiceItself
from benchmarks.peers.peer import Server
from benchmarks.peers.table import RESULTS, Run
from benchmarks.peers.workload import DIGITS, PHOTOGRAPHS, workload
from sluice.data_folder import DataFolder

EXPORT_SECONDS = 600.0
# The folder of its data, among those of the environments.
SLUICE = "sluice"
CONNECTIONS = (1, 8, 32, 128)
CONNECTIONS_FOR_PHOTOGRAPHS = (8,)


def servers(root: Path) -> list[Server]:
    """Sluice and all peers, with what they need below `root`."""
    return [SluiceItself(DataFolder.at(root / SLUICE)), *peers(root)]


def chosen(found: list[Server], words: list[str]) -> list[Server]:
    """Those whose names contain one of the words in any case, all without words; raises BenchmarkFailed for none."""
    for word in words:
        if not any(word.lower() in server.name.lower() for server in found):
            names = ", ".join(server.name for server in found)
            raise BenchmarkFailed(f"no server is called {word}; there are {names}")
    return [one for one in found if not words or any(word.lower() in one.name.lower() for word in words)]


def export_models(root: Path) -> Path:
    """Make the models that all of them run, in a process of its own; returns their folder. Raises BenchmarkFailed."""
    folder = root / "model"
    if not all((folder / f"{name}.onnx").exists() for name in (DIGITS, PHOTOGRAPHS)):
        data = DataFolder.at(root / SLUICE)
        data.make()
        make_models("benchmarks.peers.models", str(data.demo), str(folder), seconds=EXPORT_SECONDS)
    return folder


def measure_all(found: list[Server], options: argparse.Namespace) -> list[Result]:
    """Each server alone, one after the other; raises BenchmarkFailed where there is nothing to measure with."""
    if not wrk.installed():
        raise BenchmarkFailed("wrk is missing: apt-get install wrk")
    models = export_models(options.root)
    workloads = [workload(DIGITS, models, tuple(options.connections))]
    if not options.digits_only:
        workloads.append(workload(PHOTOGRAPHS, models, CONNECTIONS_FOR_PHOTOGRAPHS))
    results = []
    for asked in workloads:
        for server in found:
            if server.forms(asked.name):
                say(f"{server.name}, {asked.name}")
                results += measure(server, asked, options.seconds, say)
    return results


def say(text: str) -> None:
    print(text, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", help="words of the names of servers; all without")
    parser.add_argument("--connections", type=int, nargs="+", default=list(CONNECTIONS), help="numbers of connections")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of one measurement")
    parser.add_argument("--digits-only", action="store_true", help="leave MobileNetV2 out")
    parser.add_argument("--list", action="store_true", help="say what would be measured, and how it is set up")
    parser.add_argument("--root", type=Path, default=ROOT / "build" / "peers", help="folder of the environments")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the results")
    options = parser.parse_args()
    options.root = options.root.resolve()
    # As Ctrl-C does: the servers are stopped on the way out.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        found = chosen(servers(options.root), options.names)
        if options.list:
            say("\n\n".join(f"{one.name} ({one.version})\n  {one.settings}" for one in found))
            return 0
        started_at = datetime.now(UTC)
        results = measure_all(found, options)
    except BenchmarkFailed as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return 130
    run = Run(started_at, options.seconds, machine(), {one.name: one.settings for one in found}, results)
    path = run.write(options.results)
    say(f"\n{run.tables()}\nWritten to {path.parent}/{path.stem}.json and .md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
