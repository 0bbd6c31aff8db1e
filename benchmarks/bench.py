"""The bench on which experiments are made: the installation, the generator of load, and how much is to be measured."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace

from benchmarks import wrk
from benchmarks.installation import Installation
from benchmarks.load import Load, LoadFailed, Measurement
from benchmarks.meter import Meter
from benchmarks.outcome import Outcome, Round
from benchmarks.system import Options, System, read_clients, token

MOST_SECONDS_OVER = 120.0


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured: for figures, or (quick) to see that the benchmark itself works."""

    seconds: float = 3.0
    rounds: int = 3
    warm_seconds: float = 1.0
    connections: Sequence[int] = (1, 8, 32, 128)
    pair: Sequence[int] = (32, 128)
    many: int = 128
    inputs: int = 20_000
    backlogs: Sequence[int] = (1_000, 50_000)
    clients: Sequence[int] = (1, 10, 100)
    versions: Sequence[int] = (1, 10, 100, 300)
    waiting: int = 20_000
    single_jobs: int = 20
    slow: int = 1_000
    starts: int = 3
    rows: int = 100_000
    models: int = 500
    skewed: int = 20_000


QUICK = Sizes(
    seconds=0.3,
    rounds=1,
    warm_seconds=0.1,
    connections=(1, 8),
    pair=(8,),
    many=8,
    inputs=400,
    backlogs=(50, 300),
    clients=(1, 5),
    versions=(1, 3),
    waiting=2_000,
    single_jobs=3,
    slow=60,
    starts=1,
    rows=2_000,
    models=20,
    skewed=200,
)

Contender = Callable[[int], Load | Sequence[Load]]
"""The load of one thing that is compared, at a number of connections; several loads run at the same time."""


@dataclass(frozen=True, slots=True)
class Bench:
    """What every experiment is given."""

    installation: Installation
    sizes: Sizes
    use_wrk: bool

    @property
    def generator(self) -> str:
        return "wrk" if self.use_wrk else "benchmarks.load (Python)"

    @contextlib.contextmanager
    def system(self, name: str, options: Options | None = None) -> Iterator[System]:
        """Redis and the database of a fresh copy of the installation; raises BenchmarkFailed."""
        with self.installation.copy(name, options or Options()) as started:
            yield started

    @contextlib.contextmanager
    def serving(self, name: str, options: Options | None = None) -> Iterator[System]:
        """The same with one gateway and one prediction process."""
        with self.system(name, options) as started:
            started.start_both()
            yield started

    def token(self, started: System, client: str = "caller") -> str:
        """A new access token; clients are `caller`, `caller-0` and so on, and `administrator`."""
        return token(started.address, read_clients(self.installation.clients_file)[client])

    def measure(self, load: Load) -> Measurement:
        """Put the load on, from a process of its own. Raises LoadFailed."""
        # wrk cannot stop after a number of requests.
        return wrk.run(load) if self.use_wrk and load.count is None else run_apart(load)

    def compare(
        self,
        contenders: Mapping[str, Contender],
        connections: Sequence[int],
        outcome: Outcome,
        *,
        most_rounds: int | None = None,
        meters: Mapping[str, Meter] | None = None,
    ) -> None:
        """Measure all in turns, so that what else the machine does falls on all of them; raises LoadFailed."""
        for number in connections:
            for contender in contenders.values():
                self._put_on([replace(one, seconds=self.sizes.warm_seconds) for one in _loads(contender(number))])
            for _ in range(min(self.sizes.rounds, most_rounds or self.sizes.rounds)):
                for name, contender in contenders.items():
                    meter = (meters or {}).get(name, Meter({}))
                    with meter.running():
                        measured = self._put_on(_loads(contender(number)))
                    meter.count(measured)
                    self._note(name, number, measured, outcome)

    def once(self, name: str, load: Load, outcome: Outcome) -> None:
        """One measurement, without others in turn; raises LoadFailed."""
        self._note(name, load.connections, self.measure(load), outcome)

    def _note(self, name: str, connections: int, measured: Measurement, outcome: Outcome) -> None:
        found = Round(name, connections, measured)
        outcome.rounds.append(found)
        say(found)

    def _put_on(self, loads: Sequence[Load]) -> Measurement:
        if len(loads) == 1:
            return self.measure(loads[0])
        with ThreadPoolExecutor(len(loads)) as threads:
            return together(list(threads.map(self.measure, loads)))


def run_apart(load: Load) -> Measurement:
    """The load by the generator in Python. Raises LoadFailed."""
    command = [sys.executable, "-m", "benchmarks.load"]
    timeout = load.seconds + MOST_SECONDS_OVER
    done = subprocess.run(command, input=load.to_json(), capture_output=True, text=True, timeout=timeout, check=False)
    if done.returncode != 0:
        raise LoadFailed(f"the load ended with {done.returncode}: {done.stderr[-1000:]}")
    return Measurement(**json.loads(done.stdout))


def together(parts: Sequence[Measurement]) -> Measurement:
    """Loads that ran at the same time as one; a percentile is the worst of theirs."""
    errors: dict[str, int] = {}
    for part in parts:
        for name, count in part.errors.items():
            errors[name] = errors.get(name, 0) + count
    seconds = max(part.seconds for part in parts)
    worst = {name: max(asdict(part)[name] for part in parts) for name in ("p50", "p90", "p99", "longest")}
    return Measurement(sum(part.requests for part in parts), seconds, **worst, errors=errors)


def say(found: Round) -> None:
    """One line for whoever watches."""
    measured = found.measured
    errors = f"  errors {measured.errors}" if measured.errors else ""
    print(
        f"{found.connections:>6} connections  {found.what:<28} {measured.per_second:>9,.0f}/s"
        f"  p50 {measured.p50:>7.2f} ms  p99 {measured.p99:>7.2f} ms{errors}",
        flush=True,
    )


def _loads(found: Load | Sequence[Load]) -> Sequence[Load]:
    return [found] if isinstance(found, Load) else found
