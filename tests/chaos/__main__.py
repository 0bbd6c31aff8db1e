"""`python -m tests.chaos`: the whole matrix under load and faults, for as long as is asked; then the report.

It ends with 1 where a promise did not hold.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

from tests.chaos.matrix import all_faults, possible, shuffled, standing_on
from tests.chaos.report import held, late, leaking, write
from tests.chaos.trial import Plan, Trial, run_trial

LONG_MINUTES = 55
BAR = 30


class Screen:
    """A progress bar on a terminal, and lines elsewhere."""

    def __init__(self, minutes: float) -> None:
        self._began = time.monotonic()
        self._seconds = minutes * 60
        self._last = ""

    def tell(self, text: str) -> None:
        passed = time.monotonic() - self._began
        done = min(BAR, int(BAR * passed / self._seconds))
        line = f"[{'#' * done}{'.' * (BAR - done)}] {passed / 60:5.1f} min  {text}"
        if sys.stderr.isatty():
            sys.stderr.write("\r\x1b[K" + line[: shutil.get_terminal_size().columns - 1])
        elif text.partition(": ")[0] != self._last:
            # Once for each fault, not for each count.
            self._last = text.partition(": ")[0]
            sys.stderr.write(line + "\n")
        sys.stderr.flush()


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60, help="how long (60)")
    parser.add_argument("--jobs", type=int, default=200_000, help="at least so many jobs, whatever it takes (200,000)")
    parser.add_argument(
        "--rate", type=float, default=0, help="submits a second (what minutes and jobs come to, and more)"
    )
    parser.add_argument("--seed", type=int, default=0, help="repeats a run (a new one)")
    parser.add_argument("--grounds", type=int, default=0, help="only the first so many of databases and servers (all)")
    parser.add_argument("--results", type=Path, default=Path("chaos-results"), help="where the report goes")
    parser.add_argument("--data", type=Path, default=None, help="where the installations are (a temporary folder)")
    return parser.parse_args()


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> int:
    asked = options()
    seed = asked.seed or int(time.time())
    grounds = possible()[: asked.grounds or None]
    # While something is broken, little or nothing is submitted.
    rate = asked.rate or 1.45 * asked.jobs / (60 * asked.minutes)
    began = datetime.now(UTC).isoformat(timespec="seconds")
    say(f"seed {seed}, {len(grounds)} grounds, {asked.minutes:g} minutes, {asked.jobs:,} jobs at {rate:.0f} a second")
    screen = Screen(asked.minutes)
    data = Path(tempfile.mkdtemp(prefix="sluice-chaos-", dir=asked.data))
    trials: list[Trial] = []
    brought: Counter[str] = Counter()
    for number, ground in enumerate(grounds):
        missing = asked.jobs - sum(trial.verdict.accepted for trial in trials)
        with standing_on(ground, data / f"{number + 1}") as on:
            on.start()
            long = asked.minutes >= LONG_MINUTES and number == 0
            faults = shuffled([one for one in all_faults(long=long) if one.fits(on)], seed + number, brought)
            plan = Plan(
                seed=seed + number, jobs=missing // (len(grounds) - number), rate=rate, faults=faults,
                seconds=60 * asked.minutes / len(grounds), slow_share=0.03,
            )  # fmt: skip
            trials.append(run_trial(ground.name, on, plan, screen.tell))
        # After each, so that a run that is broken off has one too.
        report = write(trials, asked.results, seed, began)
    say(f"\nreport: {report}, histories: {data}")
    for trial in trials:
        for violation in trial.verdict.violations[:20]:
            say(f"{trial.name}: {violation.kind}: {violation.job}: {violation.text}")
        for trouble in trial.troubles:
            say(f"{trial.name}: {trouble}")
        for found in late(trial):
            times = f"{found.first_seconds}, {found.broken_seconds}, {found.last_seconds} s"
            say(f"{trial.name}: {found.fault.name}: its jobs ran again too late: {times}")
        for grown in leaking(trial):
            say(f"{trial.name}: a {grown.kind} grows by {grown.memory / 1e6:.1f} MB, {grown.files:.1f} files a minute")
    say("Every promise held." if held(trials) else f"A promise was broken; repeat with --seed {seed}")
    return 0 if held(trials) else 1


if __name__ == "__main__":
    sys.exit(main())
