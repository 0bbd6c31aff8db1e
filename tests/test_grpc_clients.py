"""Other people's gRPC clients, each in an environment of its own: tritonclient (blocking, asyncio) and KServe's."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from auth.scopes import Scope
from tests.foreign_clients import limit_rate, serve_spare, serve_texts, token_of, visit
from tests.processes import Cluster
from tests.serving import ended
from tests.version_kit import administrator

DOUBLED = [[2.0, 4.0], [6.0, -9.0]]

pytestmark = pytest.mark.long  # its packages are fetched


@pytest.fixture(scope="module")
def admin(serving: Cluster) -> httpx.Client:
    serve_texts(serving, "texts")
    serve_spare(serving, "spare")
    return administrator(serving)


@pytest.fixture(scope="module")
def triton(serving: Cluster, admin: httpx.Client) -> dict[str, Any]:
    """What both of its clients found, by their names, and what came of a stream."""
    poor = serving.caller("double", scopes=[Scope.PREDICT])
    hurried = serving.caller("double", scopes=[Scope.PREDICT])
    limit_rate(serving, hurried)
    asked = {"address": serving.grpc_addresses[0], "token": token_of(admin)}
    return visit("triton_grpc_client", {**asked, "poor_token": token_of(poor), "hurried_token": token_of(hurried)})


@pytest.fixture(params=["blocking", "asyncio"])
def client(request: pytest.FixtureRequest, triton: dict[str, Any]) -> dict[str, Any]:
    one: dict[str, Any] = triton[request.param]
    return one


def test_tritonclient_predicts_with_every_kind_of_tensor(client: dict[str, Any], admin: httpx.Client):
    found = client["predictions"]
    assert found["doubled"] == DOUBLED
    assert found["answer"] == ["order-0815", "double", "1"]
    assert found["version"] == "1"
    assert found["integers"] == [[2, -4, 2**62 + 2]]
    assert found["strings"] == ["B\u00e4r".encode().hex(), "a\0\u00ff".encode().hex()]
    assert (found["gzip"], found["deflate"]) == (True, True)
    assert found["classes"] == ["4.0:1", "6.0:0"]
    assert ended(admin, found["job"])["state"] == "succeeded"


def test_tritonclient_learns_of_server_and_models(client: dict[str, Any]):
    found = client["metadata"]
    assert [found[f"{what} ready"] for what in ("model", "version", "unknown")] == [True, True, False]
    assert (found["live"], found["ready"], found["server"]) == (True, True, "sluice")
    assert {"binary_tensor_data", "classification", "model_repository", "statistics"} <= set(found["extensions"])
    assert found["versions"] == ["1", "2"]
    assert found["inputs"] == [{"name": "x", "datatype": "FP32", "shape": ["-1", "2"]}]
    assert found["configured"] == [{"name": "x", "data_type": "TYPE_FP32", "dims": ["2"]}]
    assert found["counted"] == "whole"


def test_tritonclient_unloads_and_loads_a_model(client: dict[str, Any]):
    found = client["repository"]
    assert found["before"] == ["READY"]
    assert found["unloaded"] == [False, True]
    assert found["loaded"] == [True, ["READY"]]
    assert found["with files"][0] == "StatusCode.INVALID_ARGUMENT"


def test_tritonclient_raises_its_own_exception_with_code_and_text(client: dict[str, Any]):
    codes = {name: told[0].removeprefix("StatusCode.") for name, told in client["refusals"].items()}
    assert codes == {
        "no token": "UNAUTHENTICATED",
        "no right": "PERMISSION_DENIED",
        "no grant": "NOT_FOUND",
        "no model": "NOT_FOUND",
        "no version": "NOT_FOUND",
        "no fit": "INVALID_ARGUMENT",
        "no shared memory": "UNIMPLEMENTED",
        "too many": "RESOURCE_EXHAUSTED",
        "too late": "DEADLINE_EXCEEDED",
    }
    assert client["refusals"]["no model"][1] == "Request for unknown model: 'unknown' is not found"


def test_tritonclient_streams(triton: dict[str, Any]):
    assert triton["streamed"] == [DOUBLED, "Request for unknown model: 'unknown' is not found", DOUBLED]


def test_kserves_client_predicts_raw_and_typed(serving: Cluster, admin: httpx.Client):
    asked = {"address": serving.grpc_addresses[0], "token": token_of(admin)}
    found = visit("kserve_client", asked, "visit_grpc.py")
    assert [found[name] for name in ("live", "ready", "model ready", "unknown ready")] == [True, True, True, False]
    for form in ("raw", "typed"):
        assert found[form] == DOUBLED
        assert found[f"{form} integers"] == [[2, -4, 2**62 + 2]]
    assert found["answer"] == ["order-0815", "double", "1"]
    assert found["refusals"] == {
        "no token": ["UNAUTHENTICATED", "a bearer token is required; POST /oauth/token gives one"],
        "no model": ["NOT_FOUND", "Request for unknown model: 'unknown' is not found"],
    }
