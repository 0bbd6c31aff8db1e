"""Metrics: valid text, bounded labels, and the sums of many processes, dead ones included."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import urllib.request
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import Counter, Gauge
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from monitoring import metrics
from monitoring.metrics import MODELS_LIMIT, OTHER, SERIES_LIMIT, Labelled, Names, request_metrics, show
from monitoring.processes import VARIABLE, ProcessFolder


def run_group(folder: Path, script: str) -> str:
    """Runs a script in a process of its own whose metrics are shared through `folder`; returns what it printed."""
    program = "import os, signal, subprocess, sys, time\nfrom monitoring import metrics\n" + textwrap.dedent(script)
    environment = {**os.environ, VARIABLE: str(folder)}
    # The repository's root is the working folder of pytest, and `-c` puts it on the path.
    finished = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program],
        env=environment,
        stdout=subprocess.PIPE,
        check=True,
        timeout=60,
    )
    return finished.stdout.decode()


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def assert_valid(text: str) -> None:
    """As the format demands: parsable, each family described once, each series once."""
    described = re.findall(r"^# (?:HELP|TYPE) \S+", text, re.MULTILINE)
    assert len(described) == len(set(described))
    series = [line.rsplit(" ", 1)[0] for line in text.splitlines() if line and not line.startswith("#")]
    assert len(series) == len(set(series))
    assert samples(text)


def test_the_exposition_of_one_process_is_valid_and_holds_what_was_counted():
    request_metrics("/test/{name}", "mnist", 3).observe("ok", 0.004)
    request_metrics("/test/{name}", "mnist", 3).observe("model_not_found", 0.0001)

    text = metrics.exposition().decode()

    assert_valid(text)
    found = samples(text)
    labels = (("model", "mnist"), ("route", "/test/{name}"), ("version", "3"))
    assert found["sluice_requests_total", tuple(sorted((*labels, ("outcome", "ok"))))] == 1
    assert found["sluice_request_seconds_count", labels] == 2
    assert found["sluice_request_seconds_bucket", (("le", "0.0002"), *labels)] == 1
    assert not any(name.endswith("_created") and name.startswith("sluice") for name, _ in found)


def test_label_values_may_hold_any_text():
    request_metrics('/q"uote\\back\nline', "é").observe("ok", 0.1)

    text = metrics.exposition().decode()

    assert_valid(text)
    assert any(dict(labels).get("route") == '/q"uote\\back\nline' for _, labels in samples(text))


def test_memory_of_a_lone_process_is_measured_when_scraped():
    metrics.watch_memory("test")

    resident = samples(metrics.exposition().decode())["sluice_resident_bytes", (("process", "test"),)]

    assert resident > 10 * 1024**2


def test_later_models_share_one_series():
    counted = Labelled(Counter("models", "", ("model",), registry=None), ("model",), Names(MODELS_LIMIT))

    for number in range(10_000):
        counted.labels(f"model-{number}").inc()

    assert counted.labels("model-0")._value.get() == 1
    assert counted.labels(OTHER)._value.get() == 10_000 - MODELS_LIMIT
    assert len(counted.series) == MODELS_LIMIT + 1


def test_a_metric_never_has_more_series_than_its_limit():
    counter = Counter("paths", "", ("route", "outcome"), registry=None)
    counted = Labelled(counter, ("route", "outcome"))

    for number in range(SERIES_LIMIT + 500):
        counted.labels(f"/{number}", "ok").inc()

    assert len(counter._metrics) == SERIES_LIMIT + 1
    assert counted.labels(OTHER, OTHER)._value.get() == 500


def test_a_picture_sets_its_series_and_zeroes_all_others():
    depth = Labelled(Gauge("depth", "", ("pool", "version"), registry=None), ("pool", "version"))

    show(depth, {("a", 1): 5, ("b", 1): 7})
    show(depth, {("b", 1): 2})

    assert {values: series._value.get() for values, series in depth.series.items()} == {("a", "1"): 0, ("b", "1"): 2}


def test_labels_may_be_given_by_name_and_a_wrong_number_is_refused():
    counted = Labelled(Counter("named", "", ("model", "version"), registry=None), ("model", "version"))

    assert counted.labels(version=1, model="m") is counted.labels("m", "1")
    with pytest.raises(ValueError, match="expected values"):
        counted.labels("m")
    with pytest.raises(KeyError):
        counted.labels(model="m")


@given(st.lists(st.text(max_size=8)), st.integers(1, 20))
def test_names_are_kept_up_to_their_limit_and_stay_kept(texts: list[str], limit: int):
    names = Names(limit)

    first = [names(text) for text in texts]

    assert len(set(first) - {OTHER}) <= limit
    assert [names(text) for text in texts] == first
    assert all(kept in (text, OTHER) for kept, text in zip(first, texts, strict=True))


def test_all_processes_are_added_up_and_the_text_is_valid(tmp_path: Path):
    text = run_group(
        tmp_path,
        """
        metrics.start_fresh()
        metrics.watch_memory("worker")
        metrics.request_metrics("/r", "m", 1).observe("ok", 0.001)
        metrics.LOADED_PREDICTORS.set(1)
        ready, done = os.pipe(), os.pipe()
        children = []
        for _ in range(3):
            pid = os.fork()
            if pid == 0:
                metrics.request_metrics("/r", "m", 1).observe("ok", 0.3)
                metrics.LOADED_PREDICTORS.set(2)
                os.write(ready[1], b"x")
                os.read(done[0], 1)
                os._exit(0)
            children.append(pid)
        for _ in children:
            os.read(ready[0], 1)
        sys.stdout.write(metrics.exposition().decode())
        os.write(done[1], b"xxx")
        for pid in children:
            os.waitpid(pid, 0)
        """,
    )

    assert_valid(text)
    found = samples(text)
    labels = (("model", "m"), ("route", "/r"), ("version", "1"))
    assert found["sluice_requests_total", (("model", "m"), ("outcome", "ok"), *labels[1:])] == 4
    assert found["sluice_request_seconds_bucket", (("le", "0.2"), *labels)] == 1
    assert found["sluice_request_seconds_bucket", (("le", "+Inf"), *labels)] == 4
    assert found["sluice_loaded_predictors", ()] == 7
    assert found["sluice_resident_bytes", (("process", "worker"),)] > 4 * 5 * 1024**2


def test_what_killed_children_counted_stays_and_their_gauges_and_files_go(tmp_path: Path):
    printed = run_group(
        tmp_path,
        """
        metrics.start_fresh()
        for _ in range(20):
            ready = os.pipe()
            pid = os.fork()
            if pid == 0:
                metrics.JOBS.labels("m", "succeeded").inc(5)
                metrics.LOADED_PREDICTORS.set(3)
                metrics.BATCH_INSTANCES.labels("m", 1).observe(8)
                os.write(ready[1], b"x")
                time.sleep(60)
            os.read(ready[0], 1)
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            metrics.forget_process(pid)
        sys.stdout.write(metrics.exposition().decode())
        sys.stdout.write(metrics.exposition().decode().replace("#", "# again"))
        """,
    )

    text, _, again = printed.partition("# again")
    assert_valid(text)
    found = samples(text)
    assert found["sluice_jobs_total", (("model", "m"), ("outcome", "succeeded"))] == 100
    assert found["sluice_batch_instances_count", (("model", "m"), ("version", "1"))] == 20
    assert found["sluice_batch_instances_sum", (("model", "m"), ("version", "1"))] == 160
    assert found["sluice_loaded_predictors", ()] == 0
    assert 'sluice_jobs_total{model="m",outcome="succeeded"} 100.0' in again
    assert len(list(tmp_path.glob("*.db"))) < 8


def test_a_scrape_finds_dead_processes_by_itself(tmp_path: Path):
    run_group(tmp_path, "metrics.TOKENS_ISSUED.inc(7); metrics.LOADED_PREDICTORS.set(4)")

    text = run_group(tmp_path, "metrics.TOKENS_ISSUED.inc(); sys.stdout.write(metrics.exposition().decode())")

    found = samples(text)
    assert found["sluice_tokens_issued_total", ()] == 8
    assert found["sluice_loaded_predictors", ()] == 0


def test_a_zombie_counts_as_dead(tmp_path: Path):
    text = run_group(
        tmp_path,
        """
        pid = os.fork()
        if pid == 0:
            metrics.LOADED_PREDICTORS.set(9)
            os._exit(0)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        sys.stdout.write(metrics.exposition().decode())
        """,
    )

    assert samples(text)["sluice_loaded_predictors", ()] == 0


def test_a_fresh_start_drops_what_earlier_processes_left_and_keeps_what_this_one_counts(tmp_path: Path):
    run_group(tmp_path, "metrics.TOKENS_ISSUED.inc(7); metrics.exposition()")
    run_group(tmp_path, "metrics.TOKENS_ISSUED.inc(7)")

    text = run_group(
        tmp_path,
        """
        metrics.TOKENS_ISSUED.inc(2)
        metrics.start_fresh()
        metrics.TOKENS_ISSUED.inc()
        sys.stdout.write(metrics.exposition().decode())
        """,
    )

    assert samples(text)["sluice_tokens_issued_total", ()] == 3


def test_the_folder_counts_even_if_the_library_was_imported_before_it_was_named(tmp_path: Path):
    program = f"""
import os, sys
import prometheus_client
os.environ["{VARIABLE}"] = r"{tmp_path}"
from monitoring import metrics
metrics.TOKENS_ISSUED.inc()
"""
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True, timeout=60)

    text = run_group(tmp_path, "sys.stdout.write(metrics.exposition().decode())")

    assert samples(text)["sluice_tokens_issued_total", ()] == 1


def test_a_process_that_is_just_starting_does_not_break_a_scrape(tmp_path: Path):
    # Given the empty file that a process has for an instant (it lives: this one, by number and start time)
    fields = Path(f"/proc/{os.getpid()}/stat").read_text().rpartition(")")[2].split()
    (tmp_path / f"counter_{os.getpid()}-{fields[19]}.db").touch()

    assert list(ProcessFolder(tmp_path).collect()) == []
    assert list(tmp_path.glob("counter_*"))


def test_the_latest_of_all_processes_is_the_depth_of_the_queue_and_the_worst_the_state_of_a_dependency(tmp_path: Path):
    text = run_group(
        tmp_path,
        """
        metrics.QUEUE_DEPTH.labels("m", 1).set(50)
        metrics.DEPENDENCY_UP.labels("redis").set(1)
        program = (
            "from monitoring import metrics; import sys;"
            "metrics.QUEUE_DEPTH.labels('m', 1).set(20); metrics.DEPENDENCY_UP.labels('redis').set(0);"
            "sys.stdout.write(metrics.exposition().decode())"
        )
        subprocess.run([sys.executable, "-c", program], check=True)
        """,
    )

    found = samples(text)
    assert found["sluice_queue_predictions", (("model", "m"), ("version", "1"))] == 20
    assert found["sluice_dependency_up", (("dependency", "redis"),)] == 0


def test_a_worker_serves_its_metrics_until_closed():
    server = metrics.serve_metrics("127.0.0.1", 0)
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics", timeout=10) as answer:
        body, kind = answer.read().decode(), answer.headers["Content-Type"]
    server.close()

    assert_valid(body)
    assert "text/plain" in kind
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port), timeout=5)


def test_what_prometheus_asks_for_is_valid_too(tmp_path: Path):
    text = run_group(
        tmp_path,
        """
        import urllib.request
        metrics.watch_memory("worker")
        metrics.request_metrics("/r", "m", 1).observe("ok", 0.001)
        metrics.QUEUE_DEPTH.labels("m", 1).set(3)
        server = metrics.serve_metrics("127.0.0.1", 0)
        accepted = {"Accept": "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"}
        request = urllib.request.Request(f"http://127.0.0.1:{server.port}/metrics", headers=accepted)
        sys.stdout.write(urllib.request.urlopen(request, timeout=10).read().decode())
        server.close()
        """,
    )

    families = {family.name: family for family in openmetrics.text_string_to_metric_families(text)}
    assert families["sluice_requests"].samples[0].value == 1
    assert families["sluice_queue_predictions"].samples[0].value == 3


def test_a_child_that_outlives_its_worker_does_not_hold_the_port(tmp_path: Path):
    printed = run_group(
        tmp_path,
        """
        server = metrics.serve_metrics("127.0.0.1", 0)
        pid = os.fork()
        if pid == 0:
            os.close(1)
            time.sleep(60)
        sys.stdout.write(f"{server.port} {pid}")
        """,
    )
    port, pid = map(int, printed.split())
    try:
        metrics.serve_metrics("127.0.0.1", port).close()
    finally:
        os.kill(pid, signal.SIGKILL)
