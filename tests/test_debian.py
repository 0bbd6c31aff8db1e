"""What needs programs of the system: a real browser, and Prometheus's own checker. `make test-debian` runs it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import httpx
import pytest

from auth import people
from auth.roles import Role
from model_store.database import transaction
from tests.browser import Page, open_page
from tests.conftest import RedisServer, redis_binary
from tests.live_gateway import eventually, live_gateway
from tests.people_kit import PASSWORD, hashed
from tests.processes import Cluster

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


def test_a_client_chooses_a_model_in_a_browser_and_sends_its_example(
    serving: Cluster, caller: httpx.Client, tmp_path: Path
):
    token = caller.headers["authorization"].removeprefix("Bearer ")
    with open_page(f"{serving.gateways[0]}/docs", tmp_path / "profile") as page:
        page.html_with('data-path="/metrics"')
        page.evaluate(f"document.getElementById('token').value = '{token}'")
        page.evaluate("document.getElementById('sign-in').requestSubmit()")
        assert '<option value="times">' in page.html_with('<option value="times">')
        shown = tried(page, "times")
        left = str(page.evaluate("document.getElementById('token').value"))
    assert "predictions" in shown
    assert "200" in shown
    assert left == ""


def test_a_person_signs_in_with_a_browser_chooses_a_model_and_tries_it(serving: Cluster, tmp_path: Path):
    # given an operator, whom the gateway knows
    with transaction(serving.sessions) as session:
        people.create(session, "olga", hashed(), Role.OPERATOR)
    url = serving.gateways[0]
    session_of = {"name": "olga", "password": PASSWORD}
    with httpx.Client(base_url=url) as http:
        eventually(lambda: http.post("/admin/session", json=session_of).is_success)
        eventually(lambda: http.get("/admin/session").is_success)

    # when they sign in at the page, choose a model and press Execute
    with open_page(f"{url}/docs", tmp_path / "profile") as page:
        page.html_with('data-path="/metrics"')
        page.evaluate("document.getElementById('name').value = 'olga'")
        page.evaluate(f"document.getElementById('password').value = '{PASSWORD}'")
        page.evaluate("document.getElementById('sign-in-person').requestSubmit()")
        assert '<option value="times">' in page.html_with('<option value="times">')
        shown = tried(page, "times")
        left = str(page.evaluate("document.getElementById('password').value"))
        page.evaluate("document.getElementById('sign-out').click()")
        assert "Signed out." in page.html_with("Signed out.")
        again = page.evaluate("fetch('admin/session').then((answer) => answer.status)")

    # then the model answered, the password is not in the page any more, and the session has ended
    assert "predictions" in shown
    assert "200" in shown
    assert left == ""
    assert again == 401


def tried(page: Page, model: str) -> str:
    """What stands below the model's own example once it was sent."""
    page.evaluate(f"document.getElementById('model').value = '{model}'")
    page.evaluate("document.getElementById('choose').requestSubmit()")
    path = f"/v1/models/{model}:predict"
    html = page.html_with(f'data-path="{path}"')
    assert f'data-path="{path}"' in html
    assert 'data-path="/v1/models/{model}:predict"' not in html
    assert "version 2" in html
    page.evaluate(f"document.querySelector('[data-path=\"{path}\"]').click()")
    page.html_with("execute-wrapper")
    page.evaluate("document.querySelector('.execute').click()")
    assert "live-responses-table" in page.html_with("live-responses-table")
    return str(page.evaluate("document.querySelector('.live-responses-table').textContent"))


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
