"""Extensions of the Open Inference Protocol in an installation that serves: repository, configuration."""

from __future__ import annotations

import json
import secrets

import httpx
import pytest
from sqlalchemy import select

from auth.audit_tables import AuditEntry
from gateway.repository_requests import MOST_INDEX_BYTES
from model_store import unloading
from model_store.database import transaction
from model_store.errors import VersionInUse
from model_store.registry import publish as register
from tests.processes import Cluster
from tests.version_kit import administrator, serve, states, wait_for_end

ROW = {"inputs": [{"name": "x", "shape": [2, 2], "datatype": "FP32", "data": [1, 2, 3, 4]}]}


@pytest.fixture(scope="module")
def admin(serving: Cluster) -> httpx.Client:
    return administrator(serving)


@pytest.fixture
def model() -> str:
    """A name that no other test uses."""
    return f"m{secrets.token_hex(6)}"


def indexed(admin: httpx.Client, model: str, path: str = "index", body: bytes = b"") -> dict[str, tuple[str, str]]:
    """State and reason of a model's versions in the repository's index, by number."""
    answer = admin.post(f"/v2/repository/{path}", content=body)
    assert answer.status_code == 200, answer.text
    found = [row for row in answer.json() if row["name"] == model]
    return {row["version"]: (row["state"], row["reason"]) for row in found}


def move(admin: httpx.Client, model: str, verb: str, body: bytes = b"") -> httpx.Response:
    return admin.post(f"/v2/repository/models/{model}/{verb}", content=body)


def refresh(admin: httpx.Client, model: str, number: int) -> None:
    """Have the gateway look at what the test wrote to SQL."""
    admin.get(f"/admin/models/{model}/versions/{number}").raise_for_status()


def test_the_index_tells_states_and_may_leave_out_what_does_not_serve(
    serving: Cluster, admin: httpx.Client, model: str
):
    serve(serving, model, 2.0, 3.0)
    with transaction(serving.sessions) as session:
        register(session, model, format="keras", digest="0" * 64, size_bytes=1, uploaded_by="admin")
    refresh(admin, model, 2)
    admin.post(f"/admin/models/{model}/versions/1/retire").raise_for_status()
    wait_for_end(serving.sessions, model, 1)
    refresh(admin, model, 2)
    every = {"1": ("UNAVAILABLE", "unloaded"), "2": ("READY", ""), "3": ("LOADING", "")}
    assert indexed(admin, model) == every
    assert indexed(admin, model, body=b'{"ready": false}') == every
    assert indexed(admin, model, "any-name/index", b'{"ready": true}') == {"2": ("READY", "")}


def test_an_unloaded_model_is_gone_until_it_is_loaded_again(serving: Cluster, admin: httpx.Client, model: str):
    serve(serving, model, 2.0, 3.0)
    refresh(admin, model, 2)
    unloaded = move(admin, model, "unload", b'{"parameters": {"unload_dependents": true}}')
    assert (unloaded.status_code, unloaded.json()) == (200, {"name": model, "unload": True})
    assert admin.get(f"/v2/models/{model}/ready").status_code == 404
    loaded = move(admin, model, "load")
    assert (loaded.status_code, loaded.json()) == (200, {"name": model, "load": True})
    assert states(serving.sessions, model) == {1: "AVAILABLE", 2: "AVAILABLE"}
    assert admin.post(f"/v2/models/{model}/infer", json=ROW).json()["outputs"][0]["data"] == [3, 6, 9, 12]
    # Of a model that serves, nothing moves.
    assert move(admin, model, "load").status_code == 200


def test_a_load_does_not_say_so_of_a_model_that_was_unloaded_meanwhile(
    serving: Cluster, admin: httpx.Client, model: str
):
    serve(serving, model, 2.0)
    refresh(admin, model, 1)
    with transaction(serving.sessions, write=False) as session:
        missing = unloading.to_load(session, model)
    move(admin, model, "unload").raise_for_status()
    with transaction(serving.sessions) as session, pytest.raises(VersionInUse, match="at the same time"):
        unloading.load(session, model, missing)
    assert states(serving.sessions, model)[1] != "AVAILABLE"


def test_a_load_follows_the_policy_and_leaves_what_was_retired(serving: Cluster, admin: httpx.Client, model: str):
    serve(serving, model, 2.0, 3.0, 4.0)
    refresh(admin, model, 3)
    admin.post(f"/admin/models/{model}/versions/3/retire").raise_for_status()
    admin.put(f"/admin/models/{model}/version-policy", json={"latest": 1}).raise_for_status()
    move(admin, model, "unload").raise_for_status()
    admin.post("/v2/repository/any-name/models/" + model + "/load").raise_for_status()
    assert {n for n, state in states(serving.sessions, model).items() if state == "AVAILABLE"} == {2}


def test_where_all_were_retired_a_load_brings_the_highest_back(serving: Cluster, admin: httpx.Client, model: str):
    serve(serving, model, 2.0, 3.0)
    refresh(admin, model, 2)
    for number in (1, 2):
        admin.post(f"/admin/models/{model}/versions/{number}/retire").raise_for_status()
    move(admin, model, "load").raise_for_status()
    assert states(serving.sessions, model)[2] == "AVAILABLE"
    assert states(serving.sessions, model)[1] != "AVAILABLE"


def test_what_labels_or_traffic_need_is_not_unloaded(serving: Cluster, admin: httpx.Client, model: str):
    serve(serving, model, 2.0)
    refresh(admin, model, 1)
    admin.put(f"/admin/models/{model}/labels/stable", json={"version": 1}).raise_for_status()
    refused = move(admin, model, "unload")
    assert refused.status_code == 409
    assert refused.json() == {"error": f"failed to unload '{model}': version 1 is used by label stable"}
    admin.delete(f"/admin/models/{model}/labels/stable").raise_for_status()
    admin.put(f"/admin/models/{model}/traffic", json={"weights": {"1": 1}}).raise_for_status()
    assert move(admin, model, "unload").json() == {"error": f"failed to unload '{model}': version 1 is used by traffic"}


@pytest.mark.parametrize(
    ("path", "body", "status", "text"),
    [
        ("index", b'{"ready": [[[]]]}', 400, "Invalid value for 'ready': expected a boolean"),
        ("index", b"[" * 200, 400, "nested deeper"),
        ("index", b'{"ready": true}' + b" " * MOST_INDEX_BYTES, 400, "at most 16384 are read"),
        ("index", b"[1]", 400, "the body must be an object, or empty"),
        ("models/unknown/load", b"", 404, "unknown"),
        ("models/unknown/unload", b"", 404, "unknown"),
        ("models/double/load", b'{"parameters": {"config": "{}"}}', 400, "neither 'config' nor files"),
        ("models/double/load", b'{"parameters": {"file:1/model.onnx": ""}}', 400, "neither 'config' nor files"),
        ("models/double/load", b'{"parameters": []}', 400, "parameters must be an object"),
        ("models/double/unload", b'{"parameters": {"unload_dependents": 1}}', 400, "expected a boolean"),
    ],
    ids=lambda value: None if isinstance(value, bytes | int) else value,
)
def test_what_cannot_be_done_is_refused(admin: httpx.Client, path: str, body: bytes, status: int, text: str):
    answer = admin.post(f"/v2/repository/{path}", content=body)
    assert answer.status_code == status
    assert text in answer.json()["error"]


def test_loads_and_unloads_are_in_the_audit_log(serving: Cluster, admin: httpx.Client, model: str):
    serve(serving, model, 2.0)
    refresh(admin, model, 1)
    move(admin, model, "unload").raise_for_status()
    move(admin, model, "load").raise_for_status()
    with transaction(serving.sessions, write=False) as session:
        kept = session.scalars(select(AuditEntry).where(AuditEntry.model == model)).all()
        found = {entry.act: json.loads(entry.detail) for entry in kept}
    assert found["unload_model"]["leaving"] == "[1]"
    assert found["load_model"]["restored"] == "[1]"


def test_a_configuration_is_in_tritons_terms(admin: httpx.Client):
    found = admin.get("/v2/models/double/config").json()
    assert found["input"] == [{"name": "x", "data_type": "TYPE_FP32", "dims": [2]}]
    assert found["max_batch_size"] > 1
    assert admin.get("/v2/models/double/versions/9/config").status_code == 404


def test_models_are_listed_and_extensions_named(admin: httpx.Client):
    assert {"double", "times"} <= set(admin.get("/v2/models").json()["models"])
    assert {"model_repository", "statistics"} <= set(admin.get("/v2").json()["extensions"])
