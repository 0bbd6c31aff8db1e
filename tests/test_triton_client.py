"""The package `tritonclient` as a client over HTTP, blocking and with asyncio, in an environment of its own."""

from __future__ import annotations

from typing import Any

import pytest

from auth.scopes import Scope
from tests.foreign_clients import limit_rate, serve_spare, serve_texts, token_of, visit
from tests.processes import Cluster
from tests.version_kit import administrator

DOUBLED = [[2.0, 4.0], [6.0, -9.0]]

pytestmark = pytest.mark.long  # its packages are fetched


@pytest.fixture(scope="module")
def found(serving: Cluster) -> dict[str, Any]:
    """What both clients found, by their names."""
    serve_texts(serving, "texts")
    serve_spare(serving, "spare")
    admin = administrator(serving)
    poor = serving.caller("double", scopes=[Scope.PREDICT])
    hurried = serving.caller("double", scopes=[Scope.PREDICT])
    limit_rate(serving, hurried)
    asked = {"url": serving.gateways[0], "token": token_of(admin)}
    return visit("triton_client", {**asked, "poor_token": token_of(poor), "hurried_token": token_of(hurried)})


@pytest.fixture(params=["blocking", "asyncio"])
def client(request: pytest.FixtureRequest, found: dict[str, Any]) -> dict[str, Any]:
    """What one of the two found."""
    one: dict[str, Any] = found[request.param]
    return one


def test_tensors_travel_as_json_and_as_bytes_in_both_directions(client: dict[str, Any]):
    found = client["predictions"]
    for name in ("bytes", "json"):
        for answer in ("", " answered as bytes", " answered as json"):
            assert found[name + answer] == DOUBLED
    assert found["answer"] == ["order-0815", "double", "1"]
    assert found["version"] == "1"
    assert found["integers"] == [[2, -4, 2**62 + 2]]
    assert found["strings"] == ["B\u00e4r".encode().hex(), "a\0\u00ff".encode().hex()]


def test_bodies_and_answers_may_be_packed(client: dict[str, Any]):
    for coding in ("gzip", "deflate"):
        for form in ("bytes", "json"):
            assert client["predictions"][f"{coding} of {form}"] == [True, coding]


def test_parameters_are_understood(client: dict[str, Any]):
    assert client["predictions"]["classes"] == ["4.0:1", "6.0:0"]
    assert client["predictions"]["scheduled"] == DOUBLED


def test_metadata_and_statistics_are_what_the_client_expects(client: dict[str, Any]):
    found = client["metadata"]
    assert [found[f"{what} ready"] for what in ("model", "version", "unknown")] == [True, True, False]
    assert (found["live"], found["ready"], found["server"]) == (True, True, "sluice")
    assert {"binary_tensor_data", "classification", "model_repository", "statistics"} <= set(found["extensions"])
    assert found["versions"] == ["1", "2"]
    assert found["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}]
    assert found["configured"] == [[{"name": "x", "data_type": "TYPE_FP32", "dims": [2]}], True]
    assert {"success", "queue", "compute_input", "compute_infer", "compute_output"} <= set(found["durations"])
    assert (found["batch sizes"] > 0, found["successes"]) == (True, 1)


def test_a_model_is_unloaded_and_loaded(client: dict[str, Any]):
    found = client["repository"]
    assert found["before"] == ["READY"]
    assert found["unloaded"] == [False, True]
    assert found["loaded"] == [True, ["READY"]]
    assert found["with files"][0] == "400"


def test_refusals_arrive_as_the_clients_own_exception_with_status_and_text(client: dict[str, Any]):
    statuses = {name: refusal[0] for name, refusal in client["refusals"].items()}
    assert statuses == {
        "no token": "401",
        "bad token": "401",
        "no right": "403",
        "no grant": "404",
        "no model": "404",
        "no version": "404",
        "no fit": "400",
        "no sequence": "400",
        "no shared memory": "404",
        "too soon": "503",
        "too many": "429",
    }
    texts = {name: refusal[1] for name, refusal in client["refusals"].items()}
    assert not [text for text in texts.values() if "an exception occurred in the client" in text]
    assert texts["no model"] == "Request for unknown model: 'unknown' is not found"
    assert texts["too soon"] == "Request timeout expired"
