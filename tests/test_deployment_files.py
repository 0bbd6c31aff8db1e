"""The files for containers and monitoring agree with each other, with the settings and with the metrics."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from prometheus_client.metrics import MetricWrapperBase

from gateway.settings import GatewaySettings
from model_store.sealing import SealingKeys
from model_store.settings import PREFIX, Settings, StoreSettings
from monitoring import metrics
from sluice.cli import app
from tests.deployment import (
    OURS,
    ROOT,
    SECRETS,
    SERVICES,
    command_of,
    environment_of,
    instructions,
    interpolated,
    stage_of,
    stages,
)
from workers.settings import BackgroundSettings, WorkerSettings

SETTINGS: dict[str, type[Settings]] = {
    "migrate": StoreSettings,
    "gateway": GatewaySettings,
    "worker": WorkerSettings,
    "prepare": WorkerSettings,
    "background": BackgroundSettings,
}
TARGETS = ("gateway", "worker", "prepare", "background")
PROMETHEUS = yaml.safe_load((ROOT / "monitoring/prometheus.yml").read_text())
ALERTS = [
    rule for group in yaml.safe_load((ROOT / "monitoring/alerts.yml").read_text())["groups"] for rule in group["rules"]
]
DASHBOARD = json.loads((ROOT / "monitoring/dashboards/sluice.json").read_text())


def locked_packages(name: str) -> set[str]:
    return set(re.findall(r"^([a-z0-9-]+)==", (ROOT / "requirements" / f"{name}.txt").read_text(), re.MULTILINE))


def series_and_labels() -> dict[str, set[str]]:
    """The name of every series that can be scraped, and its labels."""
    found: dict[str, set[str]] = {"up": {"job", "instance"}, "ALERTS": {"alertname", "alertstate"}}
    for value in vars(metrics).values():
        metric = value._metric if isinstance(value, metrics.Labelled) else value
        if not isinstance(metric, MetricWrapperBase):
            continue
        (family,) = metric.describe()
        ends = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"], "gauge": [""]}[family.type]
        for end in ends:
            found[family.name + end] = {*metric._labelnames, "job", "instance"} | (
                {"le"} if end == "_bucket" else set()
            )
    return found


def expressions() -> Iterator[tuple[str, str]]:
    """Every PromQL expression of the dashboard and the alerts, with where it stands."""
    for rule in ALERTS:
        yield rule["alert"], rule["expr"]
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]
    for variable in DASHBOARD["templating"]["list"]:
        yield variable["name"], variable["query"]["query"]
    for annotation in DASHBOARD["annotations"]["list"]:
        yield annotation["name"], annotation["expr"]


@pytest.mark.parametrize("name", SERVICES)
def test_a_container_has_no_power_that_it_does_not_need(name: str):
    service = SERVICES[name]

    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert service["user"].partition(":")[0] not in ("", "root", "0")
    assert not {"privileged", "cap_add", "network_mode", "pid", "ipc", "devices"} & service.keys()


@pytest.mark.parametrize("name", SERVICES)
def test_a_container_says_whether_it_is_well(name: str):
    check = SERVICES[name].get("healthcheck") or {"test": stage_of(name).health_check}

    # The one that ends by itself is the exception.
    assert check == {"disable": True} if name == "migrate" else check["test"]


def test_services_start_after_what_they_need():
    assert SERVICES["migrate"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    for name in TARGETS:
        needed = SERVICES[name]["depends_on"]
        assert needed["migrate"] == {"condition": "service_completed_successfully"}
        assert needed["redis"] == {"condition": "service_healthy"}


def test_only_loopback_addresses_are_published():
    published = [interpolated(port) for service in SERVICES.values() for port in service.get("ports", [])]

    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_only_what_is_reached_or_sends_webhooks_is_on_a_network_that_leads_outside():
    outside = {name for name, service in SERVICES.items() if "outside" in service["networks"]}

    assert outside == {"gateway", "grafana", "background"}
    assert not SERVICES["background"].get("ports")


@pytest.mark.parametrize("name", OURS)
def test_a_service_runs_a_command_that_exists(name: str):
    program, *arguments = command_of(name)

    assert program == "sluice"
    assert arguments[0] in typer.main.get_command(app).commands  # type: ignore[attr-defined]  # a group of commands


@pytest.mark.parametrize("name", OURS)
def test_every_variable_is_a_setting_of_the_process_that_gets_it(name: str):
    ours = {variable for variable in environment_of(name) if variable.startswith(PREFIX)}
    known = {f"{PREFIX}{field.upper()}" for field in SETTINGS[name].model_fields}

    # `migrate` runs in the gateway's image, whose variables it has no use for.
    foreign = {variable.removesuffix("_FILE") for variable in ours} - known
    assert not foreign or (name == "migrate" and foreign <= stage_of("gateway").environment.keys())


def test_signing_keys_and_the_key_of_clients_secrets_are_mounted_for_gateways_alone():
    for name, service in SERVICES.items():
        mounted = json.dumps([service.get("volumes", []), service.get("secrets", [])])
        assert ("keys:" in mounted) == (name == "gateway")
        assert ("client_secret_key" in mounted) == (name == "gateway")
        assert ("master_key" in mounted) == (name == "gateway")


@pytest.mark.parametrize("name", SERVICES)
def test_secrets_come_from_files_that_are_mounted(name: str):
    service = SERVICES[name]
    named = re.findall(
        r"/run/secrets/(\w+)", json.dumps(service) + (ROOT / "deploy/redis.conf").read_text() * (name == "redis")
    )

    assert set(named) == set(service.get("secrets", []))
    for variable, value in service.get("environment", {}).items():
        if re.search("password|secret|url|token", variable, re.IGNORECASE):
            assert variable.endswith("_FILE")
            assert value.startswith("/run/secrets/")


def test_every_secret_is_made_by_the_script_and_is_in_no_other_place():
    assert all(Path(file).parent == Path("deploy/secrets") for file in SECRETS.values())
    assert "deploy/secrets/" in (ROOT / ".gitignore").read_text().splitlines()
    assert (ROOT / ".dockerignore").read_text().splitlines()[1] == "*"


def test_secrets_are_random_private_and_kept(tmp_path: Path):
    folder = tmp_path / "secrets"
    make = ["sh", str(ROOT / "deploy/make-secrets.sh"), str(folder)]
    printed = subprocess.run(make, check=True, capture_output=True, text=True)
    made = {file.name: file.read_text().strip() for file in folder.iterdir()}
    subprocess.run(make, check=True, capture_output=True)
    again = {file.name: file.read_text().strip() for file in folder.iterdir()}

    assert made == again
    assert made.keys() == SECRETS.keys()
    assert folder.stat().st_mode & 0o777 == 0o700
    random = [made[name] for name in ("postgres_password", "redis_password", "client_secret_key", "grafana_password")]
    assert len(set(random)) == 4
    assert all(re.fullmatch(r"[0-9a-f]{64}", text) for text in random)
    assert SealingKeys.parse(made["master_key"]).current_id
    assert made["postgres_password"] in made["database_url"]
    assert made["redis_password"] in made["redis_url"]
    assert not any(text in printed.stdout + printed.stderr for text in random)


@pytest.mark.parametrize("target", TARGETS)
def test_images_run_as_nobody_in_particular_and_install_by_hash(target: str):
    stage, packages = stages()[target], stages()[f"{target}-packages"]

    assert stage.user == "10001:10001"
    assert stage.health_check[0] == "python"
    assert packages.copied == [f"requirements/{target}.txt"]
    assert packages.runs == [f"uv pip install --require-hashes -r /tmp/{target}.txt"]


def test_every_installation_in_the_images_is_checked_against_hashes():
    runs = " && ".join(rest for word, rest in instructions() if word == "RUN")
    installs = [part.strip() for part in runs.split("&&") if " install " in part and "install -d" not in part]

    assert len(installs) == 6
    # A path has no hash; what builds it does.
    assert all("--require-hashes" in part or "--build-constraint requirements/dev.txt" in part for part in installs)
    assert "--hash=sha256:" in (ROOT / "requirements/dev.txt").read_text().partition("\nsetuptools==")[2][:200]


def test_no_secret_is_an_argument_or_a_variable_of_an_image():
    assert not [rest for word, rest in instructions() if word == "ARG"]
    assert not re.search(
        "password|secret|token", " ".join(rest for word, rest in instructions() if word == "ENV"), re.I
    )


def test_native_runtimes_are_in_the_images_that_need_them():
    native = {"tensorflow-cpu", "keras", "onnxruntime", "onnx", "h5py", "tf2onnx"}

    assert not native & (locked_packages("gateway") | locked_packages("background"))
    assert native & locked_packages("worker") == {"onnxruntime"}
    assert native <= locked_packages("prepare")


def test_the_images_hold_every_package_of_the_project_and_the_migrations():
    copied = stages()["source"].copied
    pyproject = (ROOT / "pyproject.toml").read_text()
    packages = re.findall(r'"([\w.]+)"', pyproject.partition("\npackages = [")[2].partition("]")[0])
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]

    assert {name.partition(".")[0] for name in packages} | {"alembic", "alembic.ini"} <= set(copied)
    for path in copied:
        assert (ROOT / path).exists(), path
        assert any(path == name or path.startswith(f"{name}/") for name in allowed), path


def test_prometheus_scrapes_the_metrics_port_of_every_process():
    jobs = {job["job_name"]: job for job in PROMETHEUS["scrape_configs"]}

    for name in TARGETS:
        (found,) = jobs[f"sluice-{name}"]["dns_sd_configs"]
        ports = {value for key, value in environment_of(name).items() if key.endswith("METRICS_PORT")}
        assert found["names"] == [name]
        assert {str(found["port"])} == ports
        assert {"metrics"} <= set(SERVICES[name]["networks"]) & set(SERVICES["prometheus"]["networks"])
    assert PROMETHEUS["rule_files"] == ["alerts.yml"]


@pytest.mark.parametrize(("place", "expression"), list(expressions()))
def test_every_expression_asks_for_series_and_labels_that_exist(place: str, expression: str):
    known = series_and_labels()
    asked = re.findall(r"\b((?:sluice_\w+)|up|ALERTS)\b(?:\{([^}]*)\})?", expression)

    assert asked
    for name, matchers in asked:
        assert name in known, f"{place}: {name}"
        assert set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers)) <= known[name], f"{place}: {name}{{{matchers}}}"


def test_every_metric_is_shown_or_alerts():
    text = " ".join(expression for _, expression in expressions())

    unseen = {name for name in series_and_labels() if name.removesuffix("_sum").removesuffix("_count") not in text}
    assert {name for name in unseen if not name.endswith("_bucket")} == set()


def test_every_alert_says_what_it_means_and_has_a_page_in_the_handbook():
    handbook = (ROOT / "docs/operations.md").read_text()

    for rule in ALERTS:
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"].keys() == {"summary", "description"}
        assert f"### {rule['alert']}\n" in handbook


def test_every_alert_is_tried_with_promtool():
    tried = (ROOT / "monitoring/alerts_test.yml").read_text()

    assert all(f"alertname: {rule['alert']}\n" in tried for rule in ALERTS)


def test_grafana_finds_its_data_source_and_its_dashboard():
    folder = ROOT / "monitoring/grafana/provisioning"
    (source,) = yaml.safe_load((folder / "datasources/prometheus.yml").read_text())["datasources"]
    (provider,) = yaml.safe_load((folder / "dashboards/sluice.yml").read_text())["providers"]
    panels: list[dict[str, Any]] = DASHBOARD["panels"]

    assert {panel["datasource"]["uid"] for panel in panels if panel["type"] != "row"} == {source["uid"]}
    assert source["url"] == "http://prometheus:9090"
    assert f"./monitoring/dashboards:{provider['options']['path']}:ro" in SERVICES["grafana"]["volumes"]
    titles = [panel["title"] for panel in panels if panel["type"] == "row"]
    assert titles == [
        "State",
        "Traffic",
        "Latency",
        "Queue",
        "Workers",
        "Jobs",
        "Preparation",
        "Limits",
        "Webhooks",
        "Many models",
        "Shadows and canaries",
    ]
    assert len({panel["id"] for panel in panels}) == len(panels)
