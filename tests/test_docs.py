"""The interface's description: the page, everything it loads, and the OpenAPI document behind it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi.openapi.models import OpenAPI

from auth.scopes import Scope
from gateway.dependencies import PUBLIC
from gateway.infer_description import INFER_ANSWER, INFER_EXAMPLES
from gateway.openapi import operations
from gateway.prediction_addresses import parse_path
from gateway.prediction_description import ANSWERS, EXAMPLES
from gateway.scoring_description import CSV as LINES
from gateway.scoring_description import SCORING_ANSWER, SCORING_EXAMPLES
from model_store.signature import Signature, TensorSpec
from tests.conftest import RedisServer
from tests.live_gateway import live_gateway
from tests.open_inference_kit import contract_of, parse_infer
from workers.protocols import mlflow_scoring as scoring
from workers.protocols.body import Body, Dialect
from workers.protocols.tensorflow_serving import parse_predict

LINEAR = Signature((TensorSpec("x", "float32", (None, 2)),), (TensorSpec("y", "float32", (None, 1)),))
MNIST = Signature((TensorSpec("image", "float32", (None, 28, 28)),), (TensorSpec("p", "float32", (None, 10)),))


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory, redis_server: RedisServer) -> Iterator[httpx.Client]:
    """Somebody without a token at a gateway whose documentation is public."""
    folder = tmp_path_factory.mktemp("gateway")
    with (
        live_gateway(folder, redis_url=redis_server.url, key_prefix="docs") as gateway,
        httpx.Client(base_url=gateway.url) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def document(reader: httpx.Client) -> dict[str, Any]:
    found: dict[str, Any] = reader.get("/openapi.json").json()
    return found


class Elements(HTMLParser):
    """The addresses that a page loads, and its scripts without one."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.inline = 0
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = dict(attrs)
        self.addresses += [known[name] or "" for name in ("src", "href") if name in known]
        self.inline += tag == "style" or (tag == "script" and "src" not in known)
        self.inline += any(name.startswith("on") or name == "style" for name in known)


def test_the_page_and_everything_it_loads_come_from_the_gateway(reader: httpx.Client):
    page = reader.get("/docs")
    assert page.status_code == 200
    elements = Elements(page.text)
    assert elements.inline == 0
    assert len(elements.addresses) >= 5
    for address in elements.addresses:
        assert re.fullmatch(r"[a-z][a-z0-9./-]+", address), f"{address} is not an address below this one"
        answer = reader.get(f"/{address}")
        assert answer.status_code == 200
        assert answer.headers["x-content-type-options"] == "nosniff"
        expected = {"js": "text/javascript", "css": "text/css", "png": "image/png", "json": "application/json"}
        assert answer.headers["content-type"].partition(";")[0] == expected[address.rpartition(".")[2]]


def test_the_page_s_policy_lets_nothing_in_from_elsewhere(reader: httpx.Client):
    policy = reader.get("/docs").headers["content-security-policy"]
    directives = {part.split()[0]: part.split()[1:] for part in policy.split(";")}
    assert directives["default-src"] == ["'none'"]
    assert directives["script-src"] == ["'self'"]
    assert {source for sources in directives.values() for source in sources} <= {"'none'", "'self'", "data:"}


@pytest.mark.parametrize("name", ["access.js", "docs.js", "chooser.js"])
def test_the_scripts_of_the_page_name_no_other_host(reader: httpx.Client, name: str):
    script = reader.get(f"/docs/static/{name}").text
    assert "//" not in re.sub(r"^\s*//.*$", "", script, flags=re.MULTILINE)


@pytest.mark.parametrize("name", ["docs.html", "swagger-ui-LICENSE.txt", "%2e%2e/app.py", "", "x" * 500])
def test_nothing_but_the_page_s_own_files_is_sent(reader: httpx.Client, name: str):
    assert reader.get(f"/docs/static/{name}").status_code == 404


def test_a_name_that_hides_a_separator_is_none(reader: httpx.Client):
    assert reader.get("/docs/static/..%2fapp.py").status_code == 400


def test_the_files_licences_ship_with_them():
    folder = Path(__file__).parents[1] / "gateway" / "static"
    assert "Apache License" in (folder / "swagger-ui-LICENSE.txt").read_text()
    assert "SmartBear" in (folder / "swagger-ui-NOTICE.txt").read_text()


def test_a_setting_closes_the_documentation(tmp_path: Path, redis_server: RedisServer):
    closed = {"redis_url": redis_server.url, "key_prefix": "closed-docs", "docs_public": False}
    with live_gateway(tmp_path, **closed) as gateway, gateway.client([Scope.MODELS_READ]) as client:
        for path in ("/docs", "/docs/static/docs.js", "/openapi.json"):
            refused = httpx.get(gateway.url + path)
            assert refused.status_code == 401
            assert "Basic" in refused.headers["www-authenticate"]
            assert client.get(path).status_code == 200


def test_the_document_is_openapi_and_every_reference_in_it_leads_somewhere(document: dict[str, Any]):
    OpenAPI.model_validate(document)
    assert document["openapi"].startswith("3.1")
    for reference in references(document):
        found: Any = document
        for step in reference.removeprefix("#/").split("/"):
            found = found[step]


def references(part: object) -> Iterator[str]:
    if isinstance(part, dict):
        if isinstance(part.get("$ref"), str):
            yield part["$ref"]
        for inner in part.values():
            yield from references(inner)
    elif isinstance(part, list):
        for inner in part:
            yield from references(inner)


def test_every_operation_says_what_it_does_and_who_may(document: dict[str, Any]):
    scopes = document["components"]["securitySchemes"]["token"]["flows"]["clientCredentials"]["scopes"]
    assert set(scopes) == set(Scope)
    seen: set[str] = set()
    for path, method, operation in operations(document["paths"]):
        where = f"{method} {path}"
        assert operation["summary"], where
        assert operation["operationId"] not in seen, where
        seen.add(operation["operationId"])
        asked = [scope for wanted in operation["security"] for scope in wanted.get("token", ())]
        assert set(asked) <= set(scopes), where
        # Of a path that is public for one method, another one may want a session.
        assert bool(operation["security"]) == (path not in PUBLIC) or operation["security"] == [{"session": []}], where


def test_every_operation_has_its_refusals_in_the_shape_of_its_path(document: dict[str, Any]):
    for path, method, operation in operations(document["paths"]):
        where = f"{method} {path}"
        assert any(int(status) < 400 for status in operation["responses"]), where
        if operation["security"]:
            assert {"401", "403", "503"} <= set(operation["responses"]), where
        for status, response in operation["responses"].items():
            assert response["description"], where
            if int(status) >= 400 and path not in PUBLIC:
                plain = has_bare_errors(path) or path.startswith(("/v1/files", "/v1/batches"))
                shape = "application/json" if plain else "application/problem+json"
                assert list(response["content"]) == [shape], f"{where} {status}"
    assert "HTTPValidationError" not in json.dumps(document)


def has_bare_errors(path: str) -> bool:
    return path.startswith(("/v1/models", "/v2", "/models/", "/endpoints/"))


def test_parameters_are_those_of_the_path(document: dict[str, Any]):
    for path, method, operation in operations(document["paths"]):
        described = {found["name"] for found in operation.get("parameters", []) if found["in"] == "path"}
        assert described == set(re.findall(r"{(\w+)}", path)), f"{method} {path}"


def test_every_form_of_the_prediction_path_is_described_and_answered(document: dict[str, Any]):
    verbs = (":predict", ":submit", ":classify", ":regress")
    described = [path for path in document["paths"] if path.endswith(verbs)]
    assert len(described) == 3 * len(verbs)
    for path in described:
        operation = document["paths"][path]["post"]
        examples = {found["name"]: found["example"] for found in operation["parameters"] if found["in"] == "path"}
        address = parse_path(path.format(**examples))
        assert address is not None
        assert (address.model, address.submits) == ("linear", path.endswith(":submit"))


def test_what_asks_a_model_comes_first_below_its_heading(document: dict[str, Any]):
    shown: dict[str, list[str]] = {}
    for path, _, operation in operations(document["paths"]):
        end = re.split(r"[:/]", path)[-1]
        if end not in shown.setdefault(operation["tags"][0], []):
            shown[operation["tags"][0]].append(end)
    assert shown["Predictions"] == ["predict", "submit", "batch", "classify", "regress", "explain"]
    assert shown["Open Inference Protocol"][0] == "infer"
    assert shown["MLflow scoring"][0] == "invocations"


def test_the_examples_of_predictions_are_requests_that_work():
    for name, example in EXAMPLES.items():
        signature = MNIST if name == "mnist" else LINEAR
        request = parse_predict(json.dumps(example["value"]).encode(), signature, max_instances=64)
        assert request.row_form == ("instances" in example["value"])


def test_all_forms_of_the_infer_path_are_described_and_answered(document: dict[str, Any]):
    described = [path for path in document["paths"] if path.endswith("/infer")]
    assert len(described) == 3
    for path in described:
        assert parse_path(path.format(model="linear", version=1, label="stable")) is not None


def test_the_examples_of_inferences_are_requests_that_work():
    outputs = {"y": np.array(INFER_ANSWER["outputs"][0]["data"], np.float32).reshape(2, 1)}
    for example in INFER_EXAMPLES.values():
        request = parse_infer(json.dumps(example["value"]).encode(), LINEAR)
        answers = [round(2.0 * x - 3.4 * y + 4.2, 6) for x, y in request.tensors["x"].tolist()]
        assert answers == INFER_ANSWER["outputs"][0]["data"]
        answer = json.loads(request.format(outputs, contract_of(LINEAR)).data)
        assert answer["outputs"] == INFER_ANSWER["outputs"]
        assert set(answer) - {"id"} == set(INFER_ANSWER)


def test_all_forms_of_the_scoring_path_are_described_and_answered(document: dict[str, Any]):
    described = [path for path in document["paths"] if path.endswith("/invocations")]
    assert len(described) == 4
    for path in described:
        address = parse_path(path.format(model="linear", version=1, label="stable"))
        assert address is not None
        assert address.dialect is Dialect.MLFLOW
        refused = document["paths"][path]["post"]["responses"]["400"]["content"]["application/json"]["schema"]
        assert refused == {"$ref": "#/components/schemas/ScoringError"}


def test_the_examples_of_scoring_are_requests_that_work():
    bodies = [(json.dumps(one["value"]).encode(), scoring.parse) for one in SCORING_EXAMPLES.values()]
    bodies.append((LINES["examples"]["linear"]["value"].encode(), scoring.parse_csv))
    for body, parse in bodies:
        request = parse(Body(body, Dialect.MLFLOW), contract_of(LINEAR))
        answers = [[round(2.0 * x - 3.4 * y + 4.2, 6)] for x, y in request.tensors["x"].tolist()]
        assert answers == SCORING_ANSWER["predictions"]


def test_the_example_s_answer_is_what_the_demo_s_line_gives():
    request = parse_predict(json.dumps(EXAMPLES["linear"]["value"]).encode(), LINEAR, max_instances=64)
    answers = [round(2.0 * x - 3.4 * y + 4.2, 6) for x, y in request.tensors["x"].tolist()]
    assert [[answer] for answer in answers] == ANSWERS["rows"]["value"]["predictions"]


def test_a_browser_is_led_to_the_page_and_a_program_learns_that_the_server_is_alive(reader: httpx.Client):
    led = reader.get("/", headers={"accept": "text/html,*/*"})
    assert (led.status_code, led.headers["location"]) == (307, "/docs")
    assert reader.get("/").json() == {"status": "alive"}
