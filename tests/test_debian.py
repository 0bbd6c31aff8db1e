"""What needs programs of the system: a real browser, and Prometheus's own checker. `make test-debian` runs it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.browser import open_page
from tests.conftest import RedisServer, redis_binary
from tests.live_gateway import live_gateway

pytestmark = pytest.mark.debian

MONITORING = Path(__file__).parents[1] / "monitoring"


def test_the_interface_is_drawn_in_a_browser_without_the_internet(redis_server: RedisServer, tmp_path: Path):
    with (
        live_gateway(tmp_path, redis_url=redis_server.url, key_prefix="browser") as gateway,
        open_page(f"{gateway.url}/docs", tmp_path / "profile") as page,
    ):
        html = page.html_with('data-path="/metrics"')
    for address in ("/oauth/token", "/v1/models/{model}:predict", "/v1/jobs/{job_id}", "/admin/clients"):
        assert f'data-path="{address}"' in html
    assert "Authorize" in html


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
