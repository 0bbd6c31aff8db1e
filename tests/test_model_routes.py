"""What callers learn of models: the list, TensorFlow Serving's status and metadata, and nothing beyond their grants."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator

import httpx
import pytest

from auth.grants import Action, GrantSpec
from auth.scopes import Scope
from model_store.database import transaction
from model_store.registry import publish, set_label, set_state
from model_store.signature import Signature, TensorSpec
from model_store.tables import State
from tests.conftest import RedisServer
from tests.live_gateway import LiveGateway, live_gateway

TEXT = Signature(
    (TensorSpec("text", "string", (None,)), TensorSpec("k", "int64", ())), (TensorSpec("y", "bool", (3,)),)
)
OK = {"error_code": "OK", "error_message": ""}


@pytest.fixture(scope="module")
def gateway(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGateway]:
    """With `mnist`: 1 and 2 AVAILABLE (`stable` is 1), 3 refused, 4 being prepared; `new`: 1 in START; and `text`."""
    folder = tmp_path_factory.mktemp("gateway")
    with live_gateway(folder, redis_url=redis_server.url, key_prefix=f"t{secrets.token_hex(4)}") as running:
        for model, count in (("mnist", 4), ("new", 1), ("text", 1)):
            for content in range(count):
                add(running, model, content)
        running.make_available("mnist", 1)
        running.make_available("mnist", 2)
        running.refuse("mnist", 3, "class_not_allowed", "layer Lambda is not allowed")
        running.make_available("text", 1, TEXT)
        with transaction(running.parts.sessions) as session:
            set_state(session, "mnist", 4, State.LOADING)
            set_label(session, "mnist", "stable", 1)
        running.parts.snapshot.refresh()
        yield running


@pytest.fixture(scope="module")
def caller(gateway: LiveGateway) -> Iterator[httpx.Client]:
    """A client that may do everything with `mnist`, `new` and `text`."""
    grants = [GrantSpec("mnist"), GrantSpec("new"), GrantSpec("text"), GrantSpec("not-there-yet")]
    with gateway.client([Scope.PREDICT, Scope.MODELS_READ], grants) as client:
        yield client


def add(gateway: LiveGateway, model: str, content: int) -> None:
    with transaction(gateway.parts.sessions) as session:
        publish(session, model, format="keras", digest=f"{content:064x}", size_bytes=1, uploaded_by="admin")


def error_of(answer: httpx.Response) -> tuple[int, str]:
    """Status and text of an error, in the one shape that TensorFlow Serving's clients can read."""
    assert answer.headers["content-type"] == "application/json"
    assert list(answer.json()) == ["error"]
    return answer.status_code, answer.json()["error"]


def test_the_list_names_the_models_that_the_caller_may_use(caller: httpx.Client):
    answer = caller.get("/v1/models")
    assert (answer.status_code, answer.json()) == (200, {"models": ["mnist", "new", "text"]})


def test_the_status_lists_every_version_and_says_why_one_failed(caller: httpx.Client):
    failed = {"error_code": "INVALID_ARGUMENT", "error_message": "class_not_allowed: layer Lambda is not allowed"}
    assert caller.get("/v1/models/mnist").json() == {
        "name": "mnist",
        "ready": True,
        "model_version_status": [
            {"version": "4", "state": "LOADING", "status": OK},
            {"version": "3", "state": "END", "status": failed},
            {"version": "2", "state": "AVAILABLE", "status": OK},
            {"version": "1", "state": "AVAILABLE", "status": OK},
        ],
    }


@pytest.mark.parametrize(
    ("path", "version", "state", "ready"),
    [
        ("mnist/versions/1", "1", "AVAILABLE", True),
        ("mnist/versions/4", "4", "LOADING", False),
        ("mnist/labels/stable", "1", "AVAILABLE", True),
        ("new", "1", "START", False),
    ],
)
def test_the_status_of_one_version(caller: httpx.Client, path: str, version: str, state: str, ready: bool):
    answer = caller.get(f"/v1/models/{path}")
    assert answer.status_code == 200
    assert answer.json()["ready"] is ready
    assert answer.json()["model_version_status"] == [{"version": version, "state": state, "status": OK}]


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("runner_timeout", "DEADLINE_EXCEEDED"),
        ("runner_memory", "RESOURCE_EXHAUSTED"),
        ("preparation_crashed", "INTERNAL"),
    ],
)
def test_a_failure_that_is_not_the_files_fault_has_another_code(gateway: LiveGateway, code: str, expected: str):
    model = f"m{secrets.token_hex(4)}"
    add(gateway, model, 1)
    gateway.refuse(model, 1, code, "")
    with gateway.client([Scope.MODELS_READ], [GrantSpec(model)]) as client:
        status = client.get(f"/v1/models/{model}").json()["model_version_status"][0]["status"]
    assert status == {"error_code": expected, "error_message": f"{code}: "}


def tensor(dtype: str, sizes: list[str], name: str) -> dict[str, object]:
    dimensions = [{"size": size, "name": ""} for size in sizes]
    return {"dtype": dtype, "tensor_shape": {"dim": dimensions, "unknown_rank": False}, "name": name}


@pytest.mark.parametrize(
    ("path", "version"),
    [("mnist/metadata", "2"), ("mnist/versions/1/metadata", "1"), ("mnist/labels/stable/metadata", "1")],
)
def test_the_metadata_is_tensorflow_servings(caller: httpx.Client, path: str, version: str):
    answer = caller.get(f"/v1/models/{path}")
    assert answer.status_code == 200
    assert answer.json() == {
        "model_spec": {"name": "mnist", "signature_name": "", "version": version},
        "metadata": {
            "signature_def": {
                "signature_def": {
                    "serving_default": {
                        "inputs": {"image": tensor("DT_FLOAT", ["-1", "28", "28"], "serving_default_image:0")},
                        "outputs": {"digit": tensor("DT_FLOAT", ["-1", "10"], "StatefulPartitionedCall:0")},
                        "method_name": "tensorflow/serving/predict",
                        "defaults": {},
                    },
                    "classification": {
                        "inputs": {"image": tensor("DT_FLOAT", ["-1", "28", "28"], "serving_default_image:0")},
                        "outputs": {"digit": tensor("DT_FLOAT", ["-1", "10"], "StatefulPartitionedCall:0")},
                        "method_name": "tensorflow/serving/classify",
                        "defaults": {},
                    },
                }
            }
        },
    }


def test_the_metadata_keeps_the_order_of_tensors_and_knows_scalars_and_strings(caller: httpx.Client):
    found = caller.get("/v1/models/text/metadata").json()["metadata"]["signature_def"]["signature_def"]
    assert list(found["serving_default"]["inputs"]) == ["text", "k"]
    assert found["serving_default"]["inputs"]["text"] == tensor("DT_STRING", ["-1"], "serving_default_text:0")
    assert found["serving_default"]["inputs"]["k"] == tensor("DT_INT64", [], "serving_default_k:0")
    assert found["serving_default"]["outputs"]["y"] == tensor("DT_BOOL", ["3"], "StatefulPartitionedCall:0")


@pytest.mark.parametrize("suffix", ["", "/metadata"])
@pytest.mark.parametrize(
    ("target", "status", "text"),
    [
        ("foo", 404, "Servable not found for request: Latest(foo)"),
        ("foo/versions/50", 404, "Servable not found for request: Specific(foo, 50)"),
        ("foo/labels/stable", 404, "Servable not found for request: Latest(foo)"),
        ("mnist/versions/50", 404, "Servable not found for request: Specific(mnist, 50)"),
        ("mnist/labels/canary", 400, "Unrecognized servable version label: canary"),
        ("not-there-yet", 404, "Servable not found for request: Latest(not-there-yet)"),
    ],
)
def test_what_is_unknown_is_answered_in_tensorflow_servings_words(
    caller: httpx.Client, target: str, suffix: str, status: int, text: str
):
    assert error_of(caller.get(f"/v1/models/{target}{suffix}")) == (status, text)


@pytest.mark.parametrize("target", ["mnist/versions/4", "new"])
def test_metadata_of_a_version_in_preparation_is_for_later(caller: httpx.Client, target: str):
    answer = caller.get(f"/v1/models/{target}/metadata")
    assert error_of(answer)[0] == 503
    assert answer.headers["retry-after"] == "1"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/models/"),
        ("GET", "/v1/models/debug/model_name"),
        ("GET", "/v1/models/mnist:predict"),
        ("GET", "/v1/models/mnist/version/1"),
        ("GET", "/v1/models/mnist/label/stable"),
        ("GET", "/v1/models/mnist/versions/1/labels/stable"),
        ("GET", "/v1/models/mnist/versions/1:predict"),
        ("GET", "/v1/models/mnist/versions/HELLO"),
        ("GET", "/v1/models/mnist/versions/-1"),
        ("GET", "/v1/models/mnist/versions/%D9%A1"),
        ("GET", "/v1/models/mnist/metadata/"),
        ("POST", "/v1/models/mnist/metadata"),
        ("POST", "/v1/models/mnist/versions/HELLO:regress"),
        ("DELETE", "/v1/models/mnist"),
    ],
)
def test_an_address_of_no_known_form_is_malformed_not_unknown(caller: httpx.Client, method: str, path: str):
    status, text = error_of(caller.request(method, path))
    assert status == 400
    assert text.startswith("Malformed request")


# What TensorFlow Serving's own test of http_rest_api_handler says of calls that it does not support, but for the list
# of models (`GET /v1/models`, which KServe has).
UNSUPPORTED = [
    ("GET", "/v1/foo", "Malformed request"),
    ("POST", "/v1/foo", "Malformed request"),
    ("GET", "/v1/models/debug/model_name", "Malformed request"),
    ("POST", "/v1/models", "Malformed request"),
    ("GET", "/v1/models/foo:predict", "Malformed request"),
    ("GET", "/v1/models/foo/version/50:predict", "Malformed request"),
    ("POST", "/v1/models/foo/version/50:predict", "Malformed request"),
    ("POST", "/v1/models/foo/versions/HELLO:regress", "Malformed request"),
    ("POST", "/v1/models/foo/versions/18446744073709551615:regress", "Failed to convert version"),
    ("POST", "/v1/models/foo/metadata", "Malformed request"),
    ("POST", "/v1/models/foo/label/some_label:regress", "Malformed request"),
    ("POST", "/v1/models/foo/versions/50/labels/some_label:regress", "Malformed request"),
]


@pytest.mark.parametrize(("method", "path", "text"), UNSUPPORTED)
def test_calls_that_tensorflow_serving_does_not_support_are_answered_as_there(
    caller: httpx.Client, method: str, path: str, text: str
):
    status, told = error_of(caller.request(method, path))
    assert status == 400
    assert told.startswith(text)


@pytest.mark.parametrize("number", ["1234567890", "9223372036854775807"])
def test_a_version_higher_than_any_is_not_found(caller: httpx.Client, number: str):
    told = error_of(caller.post(f"/v1/models/mnist/versions/{number}:classify", json={}))
    assert told == (404, f"Servable not found for request: Specific(mnist, {number})")


@pytest.mark.parametrize("number", ["18446744073709551615", "9" * 5000])
def test_a_version_that_no_integer_holds_is_refused(caller: httpx.Client, number: str):
    status, text = error_of(caller.get(f"/v1/models/mnist/versions/{number}"))
    assert status == 400
    assert text.startswith("Failed to convert version: ")
    assert len(text) < 200


def answers(client: httpx.Client, model: str) -> list[tuple[int, object]]:
    paths = ["", "/metadata", "/versions/1", "/versions/1/metadata", "/labels/stable", "/labels/stable/metadata"]
    found = [client.get(f"/v1/models/{model}{path}") for path in paths]
    return [(answer.status_code, json.loads(answer.text.replace(model, "MODEL"))) for answer in found]


def test_a_model_without_a_grant_cannot_be_told_from_one_that_does_not_exist(gateway: LiveGateway):
    with gateway.client([Scope.PREDICT, Scope.MODELS_READ], [GrantSpec("text")]) as client:
        assert answers(client, "mnist") == answers(client, "nobody-has-this")
        assert client.get("/v1/models").json() == {"models": ["text"]}


def test_a_client_sees_only_the_versions_that_it_has_grants_for(gateway: LiveGateway):
    with gateway.client([Scope.MODELS_READ], [GrantSpec("mnist", version=2)]) as client:
        versions = client.get("/v1/models/mnist").json()["model_version_status"]
        assert [version["version"] for version in versions] == ["2"]
        assert error_of(client.get("/v1/models/mnist/versions/1")) == (
            404,
            "Servable not found for request: Specific(mnist, 1)",
        )
        assert error_of(client.get("/v1/models/mnist/labels/stable"))[0] == 400


def test_a_grant_for_a_label_shows_the_version_that_it_points_to(gateway: LiveGateway):
    with gateway.client([Scope.MODELS_READ], [GrantSpec("mnist", label="stable")]) as client:
        versions = client.get("/v1/models/mnist").json()["model_version_status"]
        assert [version["version"] for version in versions] == ["1"]
        assert client.get("/v1/models/mnist/labels/stable").status_code == 200
        assert client.get("/v1/models/mnist/labels/stable/metadata").status_code == 200


def test_a_grant_without_metadata_lists_the_model_and_says_no_more(gateway: LiveGateway):
    grant = GrantSpec("mnist", actions=frozenset({Action.PREDICT}))
    with gateway.client([Scope.PREDICT], [grant]) as client:
        assert client.get("/v1/models").json() == {"models": ["mnist"]}
        assert error_of(client.get("/v1/models/mnist"))[0] == 404
        assert error_of(client.get("/v1/models/mnist/metadata"))[0] == 404


def test_predicting_is_scope_enough_and_other_scopes_are_not(gateway: LiveGateway):
    with gateway.client([Scope.PREDICT], [GrantSpec("mnist")]) as client:
        assert client.get("/v1/models/mnist/metadata").status_code == 200
    with gateway.client([Scope.JOBS], [GrantSpec("mnist")]) as client:
        for path in ("", "/mnist", "/mnist/metadata", "/foo", "/mnist/version/1"):
            assert error_of(client.get(f"/v1/models{path}"))[0] == 403


@pytest.mark.parametrize("path", ["", "/mnist", "/mnist/versions/1", "/mnist/labels/stable", "/mnist/metadata", "/a/b"])
def test_nothing_is_said_without_a_token(gateway: LiveGateway, path: str):
    answer = httpx.get(f"{gateway.url}/v1/models{path}")
    assert error_of(answer)[0] == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")


def test_the_examples_of_the_description_are_what_the_routes_answer(gateway: LiveGateway, caller: httpx.Client):
    description = httpx.get(f"{gateway.url}/openapi.json", timeout=60).json()
    schemas = description["components"]["schemas"]
    status, metadata = schemas["ModelStatus"]["examples"][0], schemas["ModelMetadata"]["examples"][0]
    shown = caller.get("/v1/models/mnist/versions/1").json()
    assert shown == status
    assert caller.get("/v1/models/mnist/versions/1/metadata").json() == metadata


def test_every_operation_on_models_is_described_with_examples(gateway: LiveGateway):
    description = httpx.get(f"{gateway.url}/openapi.json", timeout=60).json()
    operations = [
        (f"{method.upper()} {path}", operation)
        for path, item in description["paths"].items()
        if path.startswith(("/admin/models", "/v1/models")) and not re.search(":[a-z]+$", path)
        for method, operation in item.items()
    ]
    assert len(operations) == 69
    for name, operation in operations:
        assert operation["summary"], name
        assert operation["security"], name
        for parameter in operation.get("parameters", []):
            assert parameter["in"] == "query" or parameter["schema"].get("examples") or parameter.get("examples"), name
        for status, response in operation["responses"].items():
            # A bundle is a zip, a card a page.
            if status in ("200", "202") and "application/json" in response.get("content", {}):
                shown = json.dumps(response["content"]["application/json"]["schema"])
                schemas = re.findall(r"#/components/schemas/(\w+)", shown)
                assert schemas, name
                assert all(description["components"]["schemas"][schema]["examples"] for schema in schemas), name
