"""`python -m benchmarks.stages`: where each microsecond of a prediction goes, for `benchmarks/profile.md`.

The totals are processor time by process, from Linux's own account, over a load that nothing else looks at. A second
load is sampled by py-spy: its samples divide the totals of the two Python processes among their stages.
"""

from __future__ import annotations

import argparse
import resource
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import stage_plot, wrk
from benchmarks.bench import Bench, Sizes
from benchmarks.bodies import digits
from benchmarks.digit_load import digit_requests, predictions
from benchmarks.failures import BenchmarkFailed
from benchmarks.installation import made
from benchmarks.load import Load
from benchmarks.machine import ROOT, machine
from benchmarks.meter import Meter
from benchmarks.models import DIGITS
from benchmarks.processes import kernel_seconds
from benchmarks.publishing import between_markers
from benchmarks.sampling import GATEWAY, PREDICTING, Rule, sample, shares
from benchmarks.system import System
from benchmarks.verification import verify

DATA = ROOT / "build" / "benchmark-data"
PAGE = ROOT / "benchmarks" / "profile.md"
IMAGE = ROOT / "docs" / "images" / "benchmark-stages.svg"
CONNECTIONS = (1, 32)
GENERATOR = "load generator"
RULES: dict[str, Sequence[Rule]] = {"gateway": GATEWAY, "prediction process": PREDICTING}
# The order in which a prediction passes through them.
ORDER = (GENERATOR, "gateway", "Redis", "prediction process")
# Sampling begins when the load runs, and ends before it does.
RISE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Stage:
    """Processor time of one stage for one prediction, in microseconds."""

    process: str
    name: str
    microseconds: float


@dataclass(frozen=True, slots=True)
class Profile:
    """All stages at a number of connections; `p50`, and by process what is spent in the kernel, in microseconds."""

    connections: int
    per_second: float
    p50: float
    stages: Sequence[Stage]
    in_kernel: Mapping[str, float]

    @property
    def total(self) -> float:
        """Microseconds of processor time for one prediction, of all processes."""
        return sum(stage.microseconds for stage in self.stages)


def profile(bench: Bench, system: System, load: Load) -> Profile:
    """Measure once, sample once; raises BenchmarkFailed, LoadFailed."""
    bench.measure(replace(load, seconds=bench.sizes.warm_seconds))
    meter, kernel = Meter(system.processes()), Meter(system.processes(), kernel_seconds)
    before = _generator_seconds()
    with meter.running(), kernel.running():
        measured = bench.measure(load)
    meter.count(measured)
    kernel.count(measured)
    totals = meter.mean_seconds() | {GENERATOR: (_generator_seconds() - before) / measured.requests}
    if measured.errors:
        raise BenchmarkFailed(f"{measured.errors} answers were no predictions")
    in_kernel = {name: seconds * 1e6 for name, seconds in kernel.mean_seconds().items()}
    stages: list[Stage] = []
    for process in ORDER:
        microseconds = totals[process] * 1e6
        if process in RULES:
            found = _sampled(bench, system.processes()[process], load, RULES[process])
            stages += [Stage(process, name, share * microseconds) for name, share in found.items()]
        else:
            stages.append(Stage(process, process, microseconds))
    return Profile(load.connections, measured.per_second, measured.p50 * 1000, stages, in_kernel)


def _sampled(bench: Bench, pid: int, load: Load, rules: Sequence[Rule]) -> dict[str, float]:
    with ThreadPoolExecutor(1) as threads:
        loading = threads.submit(bench.measure, replace(load, seconds=load.seconds + 2 * RISE_SECONDS))
        found = shares(sample(pid, load.seconds), rules)
        loading.result()
    return found


def _generator_seconds() -> float:
    """Processor time of this process's children that have ended: the generators of the loads, and py-spy."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def table(profiles: Sequence[Profile]) -> list[str]:
    """Lines of a Markdown table, one stage a line."""
    heads = "".join(
        f" {one.connections} connections |" if one.connections > 1 else " 1 connection |" for one in profiles
    )
    lines = [f"| process | stage |{heads}", f"|---|---|{'---|' * len(profiles)}"]
    names = list({(stage.process, stage.name): None for one in profiles for stage in one.stages})
    names.sort(key=lambda pair: ORDER.index(pair[0]))
    found = [{(stage.process, stage.name): stage.microseconds for stage in one.stages} for one in profiles]
    for process, name in names:
        cells = "".join(f" {times.get((process, name), 0):.1f} |" for times in found)
        lines.append(f"| {process} | {'' if name == process else name} |{cells}")
    for process in profiles[0].in_kernel:
        cells = "".join(f" {one.in_kernel[process]:.1f} |" for one in profiles)
        lines.append(f"| {process} | of all that, in the kernel |{cells}")
    lines.append("| **all** | processor time |" + "".join(f" **{one.total:.0f}** |" for one in profiles))
    lines.append("| | p50 |" + "".join(f" {one.p50:.0f} |" for one in profiles))
    lines.append("| | predictions/s |" + "".join(f" {one.per_second:,.0f} |" for one in profiles))
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stages", description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=8.0, help="length of one measurement, and of one sampling")
    parser.add_argument("--data", type=Path, default=DATA, help="data folder of the benchmark")
    parser.add_argument("--page", type=Path, default=PAGE, help="page with markers, between which the table is written")
    parser.add_argument("--image", type=Path, default=IMAGE, help="file of the plot")
    options = parser.parse_args()
    bench = Bench(made(options.data, small=False, say=print), Sizes(seconds=options.seconds), use_wrk=wrk.installed())
    try:
        profiles = measure_all(bench)
    except BenchmarkFailed as error:
        print(error, file=sys.stderr)
        return 1
    lines = [*table(profiles), "", "Microseconds of processor time for one prediction.", ""]
    lines += [f"* {name}: {value}" for name, value in machine().items() if value]
    lines += [f"* load: {bench.generator}; {options.seconds:g} seconds", f"* measured: {datetime.now(UTC):%Y-%m-%d}"]
    options.page.write_text(between_markers(options.page.read_text(), lines))
    options.image.parent.mkdir(exist_ok=True)
    stage_plot.draw(profiles, options.image)
    print("\n".join(lines))
    return 0


def measure_all(bench: Bench) -> list[Profile]:
    """Profiles at 1 and at 32 connections, of right answers; raises BenchmarkFailed, LoadFailed."""
    with bench.serving("stages") as system:
        token = bench.token(system)
        verify(system, DIGITS, digits(64), token, connections=8)
        contender = predictions(bench, system.port, digit_requests(token))
        return [profile(bench, system, contender(connections)) for connections in CONNECTIONS]


if __name__ == "__main__":
    sys.exit(main())
