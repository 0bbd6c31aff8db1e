"""A model's own OpenAPI document: it says what the model takes, and every example in it is answered with 200."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi.openapi.models import OpenAPI

from auth.grants import GrantSpec
from auth.roles import Role
from auth.scopes import Scope
from gateway.model_interface import EXAMPLE_CHARACTERS, Facts, document
from model_store import golden
from model_store.database import transaction
from model_store.listing import find_version
from model_store.model_settings import Metadata, ModelSettings, replace_settings
from model_store.signature import Signature, TensorSpec
from tests.dialect_kit import TWO_INPUTS, signature_of
from tests.live_gateway import DIGITS
from tests.people_kit import Browser, add_person
from tests.processes import Cluster
from tests.quiet_gateway import quiet_gateway
from tests.rights_kit import add_client, serve, token
from tests.test_docs import references


def facts(signature: Signature, metadata: Metadata | None = None, target: str = "") -> Facts:
    return Facts("m", 3, target, signature, 64, metadata or Metadata())


def examples(described: dict[str, Any]) -> dict[str, Any]:
    """The body that works of each path that shows one."""
    found = {}
    for path, item in described["paths"].items():
        content = item["post"]["requestBody"]["content"]["application/json"]
        for example in content.get("examples", {}).values():
            found[path] = example["value"]
    return found


def test_every_name_of_the_signature_may_be_said():
    named = Signature((TensorSpec("x", "float32", (None, 2)),), (TensorSpec("y", "float32", (None, 2)),), "scores")
    for signature, names in ((named, ["serving_default", "scores"]), (TWO_INPUTS, ["serving_default"])):
        described = document(facts(signature))["components"]["schemas"]["PredictRequest"]["properties"]
        assert described["signature_name"]["enum"] == [*names, "tensorflow/serving/predict", ""]


@pytest.mark.parametrize("path", ["double", "times", "times/versions/1", "times/labels/stable", "whole", "table"])
def test_every_example_in_the_document_is_answered(caller: httpx.Client, path: str):
    answer = caller.get(f"/v1/models/{path}/openapi.json")
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "private, no-cache")
    described = answer.json()
    OpenAPI.model_validate(described)
    model, _, target = path.partition("/")
    asked = examples(described)
    assert asked.keys() == described["paths"].keys()
    place = f"{model}/{target}" if target else model
    serving = {f"/v1/models/{place}:{verb}" for verb in ("predict", "submit", "explain")}
    assert {*serving, f"/v2/models/{place}/infer", f"/models/{place}/invocations"} <= asked.keys()
    for address, body in asked.items():
        done = caller.post(address, json=body)
        assert done.status_code == (202 if address.endswith(":submit") else 200), (address, done.text)
        dry = caller.post(address, json=body, params={"validate_only": "true"})
        assert (dry.status_code, dry.json()["version"]) == (200, described["info"]["version"])


def test_a_model_that_one_may_not_use_is_described_as_one_that_does_not_exist(serving: Cluster):
    stranger = serving.caller("double")
    for place in ("", "/versions/1", "/labels/stable"):
        hidden = stranger.get(f"/v1/models/times{place}/openapi.json")
        missing = stranger.get(f"/v1/models/nosuch{place}/openapi.json")
        assert hidden.status_code == missing.status_code == 404
        assert hidden.text.replace("times", "nosuch") == missing.text
    assert httpx.get(f"{stranger.base_url}/v1/models/double/openapi.json").status_code == 401
    assert stranger.get("/v1/models/double/versions/9/openapi.json").status_code == 404


def test_what_people_say_of_a_version_and_its_own_samples_are_in_its_document(tmp_path: Path):
    with quiet_gateway(tmp_path) as gateway:
        serve(gateway.parts, "line")
        row = np.array([[0.123456, -7.5]], np.float32)
        (tmp_path / "golden.npz").write_bytes(golden.pack({"x": row}, {"y": np.zeros((1, 1), np.float32)}))
        stored = gateway.parts.artifacts.add_file(tmp_path / "golden.npz")
        with transaction(gateway.parts.sessions) as session:
            find_version(session, "line", 1).golden = stored.digest
            told = Metadata("What <b>people</b> say.", ("only",))
            replace_settings(session, "line", ModelSettings(metadata=told))
        client = add_client(gateway.parts, "looking", [Scope.MODELS_READ], [GrantSpec("line")])
        header = token(gateway.parts, client, [Scope.MODELS_READ])
        found = gateway.http.get("/v1/models/line/openapi.json", headers=header).json()
        add_person(gateway, "ada", Role.AUDITOR)
        with Browser(gateway) as browser:
            assert browser.http.get("/admin/models/line/openapi.json").status_code == 401
            browser.try_to_sign_in("ada")
            assert browser.http.get("/admin/models/line/openapi.json").json() == found
            # A session is for pages: under the paths of programs there are tokens.
            assert browser.http.get("/v1/models/line/openapi.json").status_code == 401
    text = found["info"]["description"]
    assert text.startswith("What <b>people</b> say.")
    assert "takes `x: float32 [-1, 2]`" in text
    assert "classes: only" in text
    output = found["components"]["schemas"]["PredictAnswer"]["properties"]["predictions"]["items"]
    assert output["x-class-names"] == ["only"]
    assert examples(found)["/v1/models/line:predict"] == {"instances": [[0.1235, -7.5]]}


@pytest.mark.parametrize(
    "signature",
    [
        DIGITS,
        TWO_INPUTS,
        signature_of(TensorSpec("x", "float16", (None, 2))),
        signature_of(TensorSpec("x", "int8", ())),
        signature_of(TensorSpec("text", "string", (None, None)), outputs=(TensorSpec("y", "string", (None,)),)),
    ],
    ids=["digits", "two-inputs", "halves", "scalar", "texts"],
)
def test_a_document_is_openapi_and_complete_in_itself(signature: Signature):
    found = document(facts(signature, target="/labels/stable"))
    OpenAPI.model_validate(found)
    for reference in references(found):
        place: Any = found
        for step in reference.removeprefix("#/").split("/"):
            place = place[step]
    identifiers = [item["post"]["operationId"] for item in found["paths"].values()]
    assert len(set(identifiers)) == len(identifiers)


def test_shapes_and_bounds_are_the_model_s_own():
    schemas = document(facts(DIGITS))["components"]["schemas"]
    rows = schemas["PredictRequest"]["properties"]["instances"]
    image, named = rows["items"]["anyOf"]
    assert (rows["minItems"], rows["maxItems"]) == (1, 64)
    assert (image["minItems"], image["maxItems"], image["items"]["maxItems"]) == (28, 28, 28)
    assert image["items"]["items"] == {"type": "number"}
    assert schemas["PredictRequest"]["properties"]["inputs"]["anyOf"][0]["maxItems"] == 64
    assert named["required"] == ["image"]
    [tensor] = schemas["InferRequest"]["properties"]["inputs"]["items"]["anyOf"]
    assert tensor["properties"]["datatype"] == {"const": "FP32"}
    small = document(facts(signature_of(TensorSpec("n", "int8", (None,)))))["components"]["schemas"]
    value = small["PredictRequest"]["properties"]["instances"]["items"]["anyOf"][0]
    assert value == {"type": "integer", "minimum": -128, "maximum": 127}


def test_a_large_input_has_one_example_of_zeros_and_a_vast_one_has_none():
    photographs = document(facts(signature_of(TensorSpec("image", "float32", (None, 224, 224, 3)))))
    [(path, body)] = examples(photographs).items()
    assert path.endswith(":predict")
    assert np.shape(body["instances"]) == (1, 224, 224, 3)
    assert len(json.dumps(body)) > EXAMPLE_CHARACTERS
    assert examples(document(facts(signature_of(TensorSpec("image", "float32", (None, 2048, 2048, 3)))))) == {}


@pytest.mark.parametrize(
    ("dtype", "shape", "specification", "types"),
    [
        ("float32", (None, 2), '{"kind":"image","height":1,"width":2}', {"image/png", "image/jpeg", "image/webp"}),
        ("float32", (None, 80), '{"kind":"audio","sample_rate":800}', {"audio/wav", "audio/flac"}),
        ("string", (None,), None, {"text/plain"}),
        ("float32", (None, 2), None, set()),
    ],
    ids=["image", "audio", "text", "numbers"],
)  # fmt: skip
def test_files_are_described_where_the_version_takes_them(
    dtype: str, shape: tuple[int | None, ...], specification: str | None, types: set[str]
):
    signature = Signature((TensorSpec("x", dtype, shape),), (TensorSpec("y", "float32", (None, 2)),))
    made = document(facts(signature, metadata=Metadata(input_specification=specification)))
    content = made["paths"]["/v1/models/m:predict"]["post"]["requestBody"]["content"]
    assert content.keys() - {"application/json", "multipart/form-data"} == types
    assert ("multipart/form-data" in content) == bool(types)
