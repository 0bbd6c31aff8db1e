"""The requests of TensorFlow Serving's own documentation, sent by curl as they stand there but for address and token.

Source: tensorflow_serving/g3doc/api_rest.md and docker.md; the models are half_plus_two and half_plus_three of there.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.grpc_kit import token_of
from tests.processes import Cluster, wait_for
from tests.serving_models import serve_halves


@pytest.fixture(scope="module")
def halves(serving: Cluster) -> httpx.Client:
    """A client that may use both models, once the gateway knows them."""
    serve_halves(serving)
    client = serving.caller("half_plus_two", "half_plus_three")
    wait_for(lambda: len(client.get("/v1/models").json()["models"]) == 2, 20)
    return client


def curl(caller: httpx.Client, *arguments: str) -> str:
    """What curl prints: `http://localhost:8501` stands for the server, and a token comes along."""
    url = str(caller.base_url).rstrip("/")
    asked = [argument.replace("http://localhost:8501", url) for argument in arguments]
    command = ["curl", "-sS", "-H", f"Authorization: Bearer {token_of(caller)}", *asked]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        pytest.param(
            ["-d", '{"instances": [1.0, 2.0, 5.0]}', "-X", "POST", "http://localhost:8501/v1/models/half_plus_two:predict"],
            {"predictions": [2.5, 3.0, 4.5]},
            id="docker.md: predict",
        ),
        pytest.param(
            ["-d", '{"instances": [1.0,2.0,5.0]}', "-X", "POST", "http://localhost:8501/v1/models/half_plus_three:predict"],
            {"predictions": [3.5, 4.0, 5.5]},
            id="api_rest.md: predict",
        ),
        pytest.param(
            [
                "-d",
                '{"signature_name": "tensorflow/serving/regress", "examples": [{"x": 1.0}, {"x": 2.0}]}',
                "-X",
                "POST",
                "http://localhost:8501/v1/models/half_plus_three:regress",
            ],
            {"results": [3.5, 4.0]},
            id="api_rest.md: regress",
        ),
        pytest.param(
            ["-d", '{"instances": [1.0,5.0]}', "-X", "POST", "http://localhost:8501/v1/models/half:predict"],
            {"error": "Servable not found for request: Latest(half)"},
            id="api_rest.md: an unknown model",
        ),
        pytest.param(
            ["-d", '{"signature_name": "serving_default", "inputs": [3.0, 4.0]}', "http://localhost:8501/v1/models/half_plus_two/versions/1:predict"],
            {"outputs": [3.5, 4.0]},
            id="columns of a version",
        ),
    ],
)  # fmt: skip
def test_a_request_is_answered_as_the_documentation_says(halves: httpx.Client, arguments: list[str], answer: object):
    assert json.loads(curl(halves, *arguments)) == answer


def test_the_status_has_what_the_documentation_shows(halves: httpx.Client):
    found = json.loads(curl(halves, "http://localhost:8501/v1/models/half_plus_three"))
    available = {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    assert found["model_version_status"] == [available]


def test_an_error_comes_with_its_status_and_type(halves: httpx.Client):
    asked = ["-i", "-d", '{"instances": [1.0,5.0]}', "-X", "POST", "http://localhost:8501/v1/models/half:predict"]
    head, _, body = curl(halves, *asked).replace("\r\n", "\n").partition("\n\n")
    assert head.startswith("HTTP/1.1 404 Not Found\n")
    assert "content-type: application/json" in head.lower().split("\n")
    assert json.loads(body) == {"error": "Servable not found for request: Latest(half)"}


def test_a_request_may_come_from_a_file(halves: httpx.Client, tmp_path: Path):
    asked = tmp_path / "request.json"
    asked.write_text('{"examples": [{"x": [1.0]}, {"x": 2}], "context": {"unused": "a"}}')
    found = curl(halves, "-d", f"@{asked}", "http://localhost:8501/v1/models/half_plus_two:regress")
    assert json.loads(found) == {"results": [2.5, 3.0]}
