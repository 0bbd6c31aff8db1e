"""What needs programs of the system: a real browser, and Prometheus's own checker. `make test-debian` runs it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.conftest import RedisServer, redis_binary
from tests.live_gateway import live_gateway

pytestmark = pytest.mark.debian

MONITORING = Path(__file__).parents[1] / "monitoring"
CHROMIUM = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
CHROMIUM += ["--disable-component-update", "--disable-sync", "--no-first-run", "--disable-quic"]


def test_the_interface_is_drawn_in_a_browser_without_the_internet(redis_server: RedisServer, tmp_path: Path):
    with live_gateway(tmp_path, redis_url=redis_server.url, key_prefix="browser") as gateway:
        options = [f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=20000", "--dump-dom"]
        drawn = subprocess.run(
            [*CHROMIUM, *options, f"{gateway.url}/docs"], capture_output=True, text=True, timeout=120, check=True
        ).stdout
    for address in ("/oauth/token", "/v1/models/{model}:predict", "/v1/jobs/{job_id}", "/admin/clients"):
        assert f'data-path="{address}"' in drawn
    assert "Authorize" in drawn


@pytest.mark.parametrize(
    "command",
    [["check", "config", "prometheus.yml"], ["check", "rules", "alerts.yml"], ["test", "rules", "alerts_test.yml"]],
    ids=["config", "rules", "rules-under-test"],
)
def test_prometheus_accepts_its_files(command: list[str]):
    done = subprocess.run(["promtool", *command], cwd=MONITORING, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_queues_tests_ran_on_the_newer_redis():
    version = subprocess.run([redis_binary(), "--version"], capture_output=True, text=True, timeout=10, check=True)
    assert "v=6." not in version.stdout, "set SLUICE_TEST_REDIS to Debian's redis-server"
