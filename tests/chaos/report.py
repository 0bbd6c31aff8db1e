"""What a run came to: figures as JSON, a report in Markdown, and plots with each fault marked."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.chaos.checker import FINAL, Kind, Recovery
from tests.chaos.footprints import FILES_BOUND, MEMORY_BOUND, Growth, growths
from tests.chaos.history import Accepted, Seen
from tests.chaos.trial import Trial

# An accepted job runs again this long after whatever kept it from it is over (docs/jobs.md).
BOUND_SECONDS = 21
# What had to wait meanwhile is worked off at least so fast, also on a busy machine of two cores.
LEAST_JOBS_A_SECOND = 100
SECONDS_A_POINT = 2
BROKEN = (Kind.LOST, Kind.DOUBLED, Kind.WRONG, Kind.BACKWARD, Kind.STUCK, Kind.UNEXPLAINED)


def held(trials: Sequence[Trial]) -> bool:
    """Whether every promise held."""
    return not any(trial.verdict.violations or trial.troubles or late(trial) or leaking(trial) for trial in trials)


def leaking(trial: Trial) -> list[Growth]:
    """Kinds of processes that grow over their bounds."""
    return [found for found in growths(trial.samples) if not found.bounded]


def late(trial: Trial) -> list[Recovery]:
    """Faults after whose end jobs took longer than they may to run again.

    That is the first of them and every one that was broken off; of the others, each has its turn.
    """
    return [found for found in trial.verdict.recoveries if _is_late(found)]


def _is_late(found: Recovery) -> bool:
    last = (found.last_seconds or 0) - found.jobs / LEAST_JOBS_A_SECOND
    return max(found.first_seconds or 0, found.broken_seconds or 0, last) > BOUND_SECONDS


def document(trials: Sequence[Trial], seed: int, began: str) -> dict[str, Any]:
    """All figures."""
    return {
        "began": began,
        "seed": seed,
        "held": held(trials),
        "totals": totals(trials),
        "trials": [
            {
                "on": trial.name,
                "seconds": round(trial.seconds, 1),
                **figures([trial]),
                "violations": [
                    {"kind": one.kind, "job": one.job, "text": one.text} for one in trial.verdict.violations[:100]
                ],
                "troubles": trial.troubles,
                "growth": [_grown(one) for one in growths(trial.samples)],
                "recoveries": [_fault(found) for found in trial.verdict.recoveries],
                "points": points(trial),
            }
            for trial in trials
        ],
    }


def totals(trials: Sequence[Trial]) -> dict[str, Any]:
    return {**figures(trials), "seconds": round(sum(trial.seconds for trial in trials), 1)}


def figures(trials: Sequence[Trial]) -> dict[str, Any]:
    verdicts = [trial.verdict for trial in trials]
    ended: Counter[str] = sum((one.ended for one in verdicts), Counter())
    attempts: Counter[int] = sum((one.attempts for one in verdicts), Counter())
    broken = sum((one.counts for one in verdicts), Counter[Kind]())
    again = [_again(found) for one in verdicts for found in one.recoveries]
    names = ("submitted", "accepted", "refused", "unresolved", "retried", "answered", "looks")
    return {
        **{name: sum(getattr(one, name) for one in verdicts) for name in names},
        "faults": sum(len(one.recoveries) for one in verdicts),
        **{kind.value: broken[kind] for kind in BROKEN},
        "ended": dict(ended),
        "attempts": {str(number): count for number, count in sorted(attempts.items())},
        "slowest_recovery_seconds": round(max(again, default=0.0), 2),
    }


def _grown(found: Growth) -> dict[str, Any]:
    return {
        "kind": found.kind.value,
        "processes": found.processes,
        "minutes": round(found.minutes, 1),
        "megabytes_a_minute": round(found.memory / 1e6, 3),
        "files_a_minute": round(found.files, 3),
        "largest_megabytes": round(found.largest / 1e6),
        "bounded": found.bounded,
    }


def _again(found: Recovery) -> float:
    return max(found.first_seconds or 0.0, found.broken_seconds or 0.0)


def _fault(found: Recovery) -> dict[str, Any]:
    fault = found.fault
    return {
        "case": fault.case,
        "name": fault.name,
        "begin": round(fault.begin, 2),
        "end": round(fault.end, 2),
        "jobs": found.jobs,
        "first_seconds": None if found.first_seconds is None else round(found.first_seconds, 2),
        "broken_seconds": None if found.broken_seconds is None else round(found.broken_seconds, 2),
        "last_seconds": None if found.last_seconds is None else round(found.last_seconds, 2),
    }


def points(trial: Trial) -> dict[str, list[float]]:
    """Accepted and ended jobs a second, and how long those took that ended, over time."""
    accepted: Counter[int] = Counter()
    times: dict[int, list[float]] = {}
    seen: set[str] = set()
    for event in trial.events():
        if isinstance(event, Accepted):
            accepted[int(event.at // SECONDS_A_POINT)] += 1
        elif isinstance(event, Seen) and event.state in FINAL and event.finished and event.job not in seen:
            seen.add(event.job)
            times.setdefault(int(event.finished // SECONDS_A_POINT), []).append(event.finished - (event.created or 0))
    if not accepted:
        return {"at": [], "accepted": [], "ended": [], "p50": [], "slowest": []}
    moments = range(min(accepted), max([*accepted, *times]) + 1)
    ordered = [sorted(times.get(moment, ())) for moment in moments]
    return {
        "at": [float(moment * SECONDS_A_POINT) for moment in moments],
        "accepted": [accepted[moment] / SECONDS_A_POINT for moment in moments],
        "ended": [len(one) / SECONDS_A_POINT for one in ordered],
        "p50": [round(one[len(one) // 2], 4) if one else 0.0 for one in ordered],
        "slowest": [round(one[-1], 4) if one else 0.0 for one in ordered],
    }


def markdown(found: dict[str, Any], plots: Sequence[str]) -> str:
    """The report for people, from the document alone."""
    all_of = found["totals"]
    verdict = "Every promise held." if found["held"] else "**A promise was broken.**"
    lines = [
        "# Chaos run",
        "",
        f"{verdict} Began {found['began']}, seed {found['seed']}, {all_of['seconds'] / 60:.0f} minutes.",
        "",
        "| | submitted | accepted | answered | faults | lost | doubled | wrong | backward | stuck | run again within |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
        *(_row(trial["on"], trial) for trial in found["trials"]),
        _row("all", all_of),
        "",
        f"{all_of['retried']:,} submits were sent more than once, because nobody knew what had become of them; each is"
        f" one job. {all_of['looks']:,} looks at jobs were compared. How jobs ended: "
        + ", ".join(f"{name} {count:,}" for name, count in sorted(all_of["ended"].items()))
        + ". Attempts: "
        + ", ".join(f"{name}: {count:,}" for name, count in all_of["attempts"].items())
        + ".",
        "",
    ]
    for number, trial in enumerate(found["trials"]):
        lines += [f"## {trial['on']}", ""]
        lines += [f"![Throughput and latency over time, each fault marked]({plots[number]})", ""] if plots else []
        lines += [
            "Jobs are those accepted before the fault's end that had not ended by then. How long after its end they"
            " ran: the first, the last of those whose attempt was broken off, and the last of all, which had to wait"
            " for its turn.",
            "",
            "| | case | fault | lasted | jobs | first | broken off | last |",
            "|---|---|---|---|---|---|---|---|",
        ]
        lines += [
            f"| {place} | {one['case']} | {one['name']} | {one['end'] - one['begin']:.1f} s | {one['jobs']:,} |"
            f" {_seconds(one['first_seconds'])} | {_seconds(one['broken_seconds'])} | {_seconds(one['last_seconds'])} |"
            for place, one in enumerate(trial["recoveries"], 1)
        ]
        lines += _growth_table(trial["growth"])
        lines += ["", *(f"* {one}" for one in trial["troubles"])]
        lines += ["", *(f"* **{one['kind']}** {one['job']}: {one['text']}" for one in trial["violations"]), ""]
    return "\n".join(lines).replace("\n\n\n", "\n\n").rstrip() + "\n"


def _growth_table(found: Sequence[dict[str, Any]]) -> list[str]:
    if not found:
        return []
    return [
        "",
        f"What a process grew by in a minute, in the second half and after its first minute: the median of its kind,"
        f" which may be {MEMORY_BOUND / 1e6:g} MB and {FILES_BOUND:g} open files.",
        "",
        "| kind | processes | watched | memory | open files | largest |",
        "|---|---|---|---|---|---|",
        *(
            f"| {one['kind']} | {one['processes']} | {one['minutes']:.1f} min | {one['megabytes_a_minute']:+.2f} MB |"
            f" {one['files_a_minute']:+.2f} | {one['largest_megabytes']} MB |"
            for one in found
        ),
    ]


def _row(name: str, of: dict[str, Any]) -> str:
    columns = ("submitted", "accepted", "answered", "faults", "lost", "doubled", "wrong", "backward", "stuck")
    cells = " | ".join(f"{of[column]:,}" for column in columns)
    return f"| {name} | {cells} | {of['slowest_recovery_seconds']:.1f} s |"


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} s"


def write(trials: Sequence[Trial], folder: Path, seed: int, began: str) -> Path:
    """Write figures, plots and report into the folder; returns the report's path."""
    from tests.chaos.plots import draw

    folder.mkdir(parents=True, exist_ok=True)
    found = document(trials, seed, began)
    (folder / "chaos.json").write_text(json.dumps(found, indent=1) + "\n")
    report = folder / "report.md"
    report.write_text(markdown(found, draw(found, folder)))
    return report
