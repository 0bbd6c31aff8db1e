"""The report sets each target beside its measured value, and no figure with an error in it counts."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from benchmarks.experiments import ALL
from benchmarks.experiments.throughput import FLOOR, SLUICE
from benchmarks.failures import BenchmarkFailed
from benchmarks.load import Measurement
from benchmarks.outcome import Outcome, Round
from benchmarks.publishing import BEGIN, END, publish, with_results
from benchmarks.report import Report
from benchmarks.targets import TARGETS, Row, Verdict, rows

RATIO = "requests/s ÷ floor, 32 connections"


def rounds(name: str, *per_second: int, connections: int = 32, errors: int = 0) -> list[Round]:
    found = {"503": errors} if errors else {}
    return [Round(name, connections, Measurement(n, 1.0, 1.0, 2.0, 3.0, 4.0, found)) for n in per_second]


def outcome(*, ratio: float = 1.2, errors: int = 0) -> Outcome:
    measured = [*rounds(FLOOR, 900, 1000, 5000), *rounds(SLUICE, 500, 100, 900, errors=errors)]
    facts = {"requests/s to floor at 32": ratio, "instances in a batch at 32": 7.123456}
    return Outcome(measured, facts)


def report(found: Outcome) -> Report:
    made = Report(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "test", 1.0, 3)
    made.outcomes["throughput"], made.texts["throughput"], made.took_seconds["throughput"] = found, "A text.", 1.5
    return made


def whole_run() -> Report:
    made = report(outcome())
    for one in ALL:
        made.outcomes.setdefault(one.name, Outcome())
        made.texts[one.name], made.took_seconds[one.name] = one.text, 1.0
    return made


def row(found: Outcome, what: str = RATIO) -> Row:
    document = json.loads(json.dumps(report(found).document()))
    return next(row for row in rows(document) if row.target.what == what)


def test_a_target_holds_or_is_missed_by_its_measured_value():
    assert (row(outcome(ratio=1.10)).verdict, row(outcome(ratio=1.10)).value) == (Verdict.HOLDS, "1.10")
    assert row(outcome(ratio=1.09)).verdict == Verdict.MISSED


def test_a_single_wrong_answer_makes_every_row_of_its_experiment_invalid():
    assert row(outcome(errors=1)).verdict == Verdict.INVALID
    assert report(outcome(errors=1)).problems == ["throughput: 3 wrong answers of Sluice at 32 connections"]


def test_what_was_not_measured_is_said_to_be_so():
    found = row(outcome(), "memory of a gateway")
    assert (found.verdict, found.value) == (Verdict.UNMEASURED, "-")


def test_an_experiment_that_failed_makes_its_rows_invalid():
    assert row(Outcome(problems=["it fell over"])).verdict == Verdict.INVALID


def test_every_target_names_an_experiment_that_exists():
    assert {target.experiment for target in TARGETS} <= {one.name for one in ALL}


def test_the_report_has_medians_and_plots_and_no_nameless_file(tmp_path: Path):
    table = report(outcome()).write(tmp_path).read_text()
    assert "| Sluice | 32 | 500 | 1.00 | 3.00 | 0 |" in table
    assert f"| {RATIO} | ≥ 1.1 | 1.20 | holds |" in table
    assert "* instances in a batch at 32: 7.123" in table
    stem = "2026-01-02T030405Z"
    assert {path.name for path in tmp_path.iterdir()} == {f"{stem}.json", f"{stem}.md", stem}
    for image in (tmp_path / stem).iterdir():
        assert f"({stem}/{image.name})" in table


def test_the_same_figures_draw_the_same_bytes(tmp_path: Path):
    drawn = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        report(outcome()).write(tmp_path / name)
        drawn.append((tmp_path / name / "2026-01-02T030405Z" / "connections.svg").read_bytes())
    assert drawn[0] == drawn[1]


def test_the_newest_results_are_published_between_their_markers(tmp_path: Path):
    results, page, images = tmp_path / "results", tmp_path / "benchmark.md", tmp_path / "images"
    page.write_text(f"# Before\n{BEGIN}\nstale\n{END}\nAfter\n")
    whole_run().write(results)
    publish(results, page, images)
    text = page.read_text()
    assert text.startswith(f"# Before\n{BEGIN}\n")
    assert text.endswith(f"{END}\nAfter\n")
    assert "stale" not in text
    assert f"| {RATIO} | ≥ 1.1 | 1.20 | holds |" in text
    assert "](images/benchmark-connections.svg)" in text
    assert (images / "benchmark-connections.svg").exists()
    before = page.read_bytes()
    publish(results, page, images)
    assert page.read_bytes() == before


def test_a_part_of_the_experiments_is_not_published(tmp_path: Path):
    page = tmp_path / "benchmark.md"
    page.write_text(f"{BEGIN}\n{END}\n")
    report(outcome()).write(tmp_path / "results")
    with pytest.raises(BenchmarkFailed, match="no whole run"):
        publish(tmp_path / "results", page, tmp_path / "images")


def test_a_page_without_markers_or_results_is_left_alone(tmp_path: Path):
    with pytest.raises(BenchmarkFailed, match="no whole run"):
        publish(tmp_path, tmp_path / "benchmark.md", tmp_path / "images")
    with pytest.raises(BenchmarkFailed, match="the page has no"):
        with_results("# Nothing\n", report(outcome()).document(), [])
