"""Statistics of versions in an installation that serves: what gateways and workers count, told by all alike."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import redis
from google.protobuf import json_format

from auth.grants import GrantSpec
from auth.scopes import Scope
from gateway.grpc_services.messages import Fields, message
from tests.grpc_kit import connected, token_of
from tests.live_gateway import live_gateway
from tests.open_inference_kit import HEAD_LENGTH, binary_request, json_request
from tests.processes import MASTER_KEY, PEPPER, Cluster, wait_for
from tests.queue_kit import serve_model
from tests.serving import LOOKED_UP, client_id_of, ended, paused_workers, submit, table
from tests.version_kit import administrator, serve
from workers.lanes import BUNDLE_FIELD, Keys, Lane, Priority, unpack_bundle

ROWS = {"x": np.array([[1, 2], [3, 4]], np.float32)}
SPENT = ("queue", "compute_input", "compute_infer", "compute_output")


@pytest.fixture(scope="module")
def admin(serving: Cluster) -> httpx.Client:
    return administrator(serving)


@pytest.fixture
def name() -> str:
    """Of a model that no other test asks."""
    return f"m{secrets.token_hex(6)}"


@pytest.fixture
def model(serving: Cluster, admin: httpx.Client, name: str) -> str:
    """A model that doubles."""
    serve(serving, name, 2.0)
    admin.get(f"/admin/models/{name}/versions/1").raise_for_status()
    return name


def figures(client: httpx.Client, model: str) -> dict[str, Any]:
    """The statistics of the model's first version."""
    [found] = client.get(f"/v2/models/{model}/versions/1/stats").raise_for_status().json()["model_stats"]
    return dict(found)


def told(client: httpx.Client, model: str, requests: int) -> dict[str, Any]:
    """The same, once it is told that workers answered so many requests."""

    def is_told() -> bool:
        spent = figures(client, model)["inference_stats"]
        return {spent[name]["count"] for name in ("success", *SPENT)} == {requests}

    wait_for(is_told, 20)
    return figures(client, model)


def sizes(found: Mapping[str, Any]) -> dict[int, int]:
    """How many executions there were of each size."""
    for row in found["batch_stats"]:
        assert len({row[name]["count"] for name in SPENT[1:]}) == 1
        assert all(row[name]["ns"] > 0 for name in SPENT[1:])
    return {row["batch_size"]: row["compute_infer"]["count"] for row in found["batch_stats"]}


def test_figures_add_up_whatever_form_a_request_has(admin: httpx.Client, model: str):
    # given a version that nobody asked
    before = figures(admin, model)
    assert (before["last_inference"], before["inference_count"], before["batch_stats"]) == (0, 0, [])
    # when it is asked in JSON, in bytes, for a job, for more than a batch holds, and for what it does not take
    address = f"/v2/models/{model}/infer"
    body, head = binary_request(ROWS)
    assert admin.post(address, content=json_request(ROWS)).status_code == 200
    # What the gateway that is asked counts itself, it tells at once.
    assert figures(admin, model)["inference_stats"]["success"]["count"] == 1
    assert admin.post(address, content=body, headers={HEAD_LENGTH: str(head)}).status_code == 200
    assert ended(admin, submit(admin, model, 1, 2))["state"] == "succeeded"
    many = {"x": np.ones((20, 2), np.float32)}
    assert admin.post(address, content=json_request(many)).status_code == 200
    assert admin.post(f"/v1/models/{model}:predict", json={"instances": [[1]]}).status_code == 400
    # then everything is counted once
    found = told(admin, model, 4)
    assert sizes(found) == {1: 1, 2: 2, 4: 1, 8: 2}
    assert (found["inference_count"], found["execution_count"]) == (25, 6)
    spent = found["inference_stats"]
    assert spent["fail"]["count"] == 1
    assert all(spent[name]["ns"] > 0 for name in ("success", "fail", *SPENT))
    assert spent["success"]["ns"] > sum(spent[name]["ns"] for name in SPENT[1:])
    assert [spent[name]["count"] for name in ("cache_hit", "cache_miss")] == [0, 0]
    assert found["last_inference"] > 0


def test_requests_that_share_an_execution_each_count_its_times(serving: Cluster, admin: httpx.Client, model: str):
    # given six requests that wait for the same worker
    def ask(_: int) -> int:
        return admin.post(f"/v2/models/{model}/infer", content=json_request(ROWS)).status_code

    with ThreadPoolExecutor(6) as threads:
        with paused_workers(serving):
            answers = threads.map(ask, range(6))
            wait_for(lambda: waiting(serving, admin, model) == 6, 20)
        assert list(answers) == [200] * 6
    # then they ran in fewer executions than there were requests, and none is missing
    found = told(admin, model, 6)
    rows = sizes(found)
    assert sum(size * count for size, count in rows.items()) == found["inference_count"] == 12
    assert sum(rows.values()) == found["execution_count"] < 6
    alone = sum(row["compute_infer"]["ns"] for row in found["batch_stats"])
    assert found["inference_stats"]["compute_infer"]["ns"] > alone


def waiting(serving: Cluster, caller: httpx.Client, model: str) -> int:
    """How many of the caller's predictions lie in the model's lane."""
    lane = Lane(model, 1, Priority.INTERACTIVE, client_id_of(caller))
    with redis.Redis.from_url(serving.redis_url) as client:
        entries: Any = client.xrange(Keys(serving.key_prefix).lane(lane))
    return sum(len(unpack_bundle(fields[BUNDLE_FIELD]).predictions) for _, fields in entries)


def test_jobs_that_fail_and_predictions_that_fail_are_counted(
    serving: Cluster, admin: httpx.Client, name: str, tmp_path: Path
):
    # given a model that fails for what is not in its table
    path = table(tmp_path / "table.onnx")
    serve_model(serving.sessions, serving.artifacts, path, name, signature=LOOKED_UP)
    admin.get(f"/admin/models/{name}/versions/1").raise_for_status()
    # when a prediction and a job ask for that
    assert admin.post(f"/v1/models/{name}:predict", json={"instances": [1, 99]}).status_code >= 400
    answer = admin.post(f"/v1/models/{name}:submit", json={"instances": [99]}).raise_for_status()
    assert ended(admin, answer.json()["id"])["state"] == "failed"
    # then both failed, and nothing was executed
    wait_for(lambda: figures(admin, name)["inference_stats"]["fail"]["count"] == 2, 20)
    found = figures(admin, name)
    assert found["inference_stats"]["fail"]["ns"] > 0
    assert (found["execution_count"], found["inference_stats"]["success"]["count"]) == (0, 0)


def test_every_gateway_and_grpc_tell_the_same(serving: Cluster, admin: httpx.Client, model: str):
    # given two gateways of one installation, each of which was asked
    database = {"database_url": serving.database_url, "redis_url": serving.redis_url, "key_prefix": serving.key_prefix}
    keys = {"keys_dir": serving.folder / "keys", "client_secret_key": PEPPER, "master_key": MASTER_KEY}
    with (
        live_gateway(serving.folder, **database, **keys) as second,
        second.client([Scope.MODELS_READ, Scope.PREDICT], [GrantSpec("*")]) as other,
        connected(serving.grpc_addresses[0], token_of(admin)) as grpc,
    ):
        for client in (admin, other, other):
            assert client.post(f"/v2/models/{model}/infer", content=json_request(ROWS)).status_code == 200
        # then they tell the same, whichever protocol is asked in
        found = told(admin, model, 3)
        assert figures(other, model) == found
        answer = grpc.call("ModelStatistics", message("inference.ModelStatisticsRequest")(name=model, version="1"))
        assert as_rest(answer.message) == {name: found[name] for name in found if name != "response_stats"}
        for address in (f"/v2/models/{model}/stats", "/v2/models/stats"):
            assert found in other.get(address).json()["model_stats"]
    assert admin.get(f"/v2/models/{model}/versions/2/stats").status_code == 404


def as_rest(answer: Fields) -> dict[str, Any]:
    """The figures of one version as they stand in REST's answer, whose integers are no strings."""
    shown = json_format.MessageToDict(
        answer, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    [found] = shown["model_stats"]
    return {name: value if name in ("name", "version") else counted(value) for name, value in found.items()}


def counted(value: object) -> object:
    if isinstance(value, dict):
        return {name: counted(part) for name, part in value.items()}
    if isinstance(value, list):
        return [counted(part) for part in value]
    return int(str(value))
