"""Administration of models over HTTP: views, labels, retiring and deleting."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from collections.abc import Iterator
from datetime import datetime, timedelta
from types import SimpleNamespace

import httpx
import pytest

from auth.grants import Action, GrantSpec
from auth.scopes import Scope
from gateway.snapshot import READ_SECONDS
from model_store.database import transaction
from tests.conftest import RedisServer
from tests.live_gateway import EVERY_MODEL, KERAS, LiveGateway, eventually, live_gateway, refused, upload
from workers import jobs
from workers.lanes import Lane, Priority
from workers.tables import Job


@pytest.fixture(scope="module")
def gateway(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGateway]:
    folder = tmp_path_factory.mktemp("gateway")
    settings = {"redis_url": redis_server.url, "key_prefix": f"t{secrets.token_hex(4)}"}
    with live_gateway(folder, **settings) as running:
        yield running


@pytest.fixture(scope="module")
def admin(gateway: LiveGateway) -> Iterator[httpx.Client]:
    with gateway.client([Scope.MODELS_WRITE], [EVERY_MODEL]) as client:
        yield client


@pytest.fixture
def model() -> str:
    """A name that no other test uses."""
    return f"m{secrets.token_hex(6)}"


def version(admin: httpx.Client, model: str, number: int = 1) -> dict[str, object]:
    return dict(admin.get(f"/admin/models/{model}/versions/{number}").raise_for_status().json())


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", "/admin/models/mnist/versions"),
        ("POST", "/admin/models/mnist/versions"),
        ("GET", "/admin/models"),
        ("GET", "/admin/models/mnist"),
        ("GET", "/admin/models/mnist/versions/1"),
        ("POST", "/admin/models/mnist/versions/1/retire"),
        ("DELETE", "/admin/models/mnist/versions/1"),
        ("PUT", "/admin/models/mnist/labels/stable"),
        ("DELETE", "/admin/models/mnist/labels/stable"),
    ],
)
def test_every_route_asks_for_a_token_with_the_scope(gateway: LiveGateway, method: str, path: str):
    assert httpx.request(method, gateway.url + path).status_code == 401
    reading = {Scope.MODELS_READ} if method == "GET" else set()
    with gateway.client([scope for scope in Scope if scope not in {Scope.MODELS_WRITE, *reading}]) as other:
        assert refused(other.request(method, path), 403, "insufficient_scope")


def test_who_reads_models_looks_at_those_that_are_granted_and_changes_nothing(
    gateway: LiveGateway, admin: httpx.Client, model: str
):
    upload(admin, model)
    upload(admin, f"{model}-hidden")
    with gateway.client([Scope.MODELS_READ], [GrantSpec(model, actions=frozenset({Action.METADATA}))]) as reader:
        assert [found["name"] for found in reader.get("/admin/models").json()["models"]] == [model]
        assert version(reader, model)["state"] == "START"
        assert refused(reader.get(f"/admin/models/{model}-hidden/versions/1"), 404, "model_not_found")
        assert refused(reader.post(f"/admin/models/{model}/versions/1/retire"), 403, "insufficient_scope")


def test_a_version_s_number_is_a_number(admin: httpx.Client, model: str):
    upload(admin, model)
    answer = admin.put(f"/admin/models/{model}/labels/stable", json={"version": "1"})
    assert refused(answer, 422, "request_invalid")


def test_a_prepared_version_shows_what_was_found_out_about_it(gateway: LiveGateway, admin: httpx.Client, model: str):
    upload(admin, model)
    gateway.make_available(model, 1)
    admin.put(f"/admin/models/{model}/labels/stable", json={"version": 1}).raise_for_status()
    shown = version(admin, model)
    assert shown["state"] == "AVAILABLE"
    assert shown["signature"] == {
        "inputs": [{"name": "image", "dtype": "float32", "shape": [None, 28, 28]}],
        "outputs": [{"name": "digit", "dtype": "float32", "shape": [None, 10]}],
    }
    assert shown["variants"] == [
        {
            "name": "onnx",
            "runtime": "onnx",
            "digest": "e" * 64,
            "size_bytes": 9,
            "memory_bytes": 1_000_000,
            "chosen": True,
        }
    ]
    assert (shown["max_batch"], shown["max_parallelism"], shown["batch_seconds"]) == (64, 2, 0.001)
    assert (shown["labels"], shown["error"]) == (["stable"], None)
    assert shown["report"] == {"steps": [{"step": "inspect", "outcome": "passed"}]}
    for moment in (shown["created_at"], shown["available_at"]):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", str(moment))
        assert datetime.fromisoformat(str(moment)).utcoffset() == timedelta(0)


def test_a_refused_version_shows_why(gateway: LiveGateway, admin: httpx.Client, model: str):
    upload(admin, model)
    gateway.refuse(model, 1, "class_not_allowed", "layer Lambda is not allowed")
    shown = version(admin, model)
    assert (shown["state"], shown["signature"], shown["variants"]) == ("END", None, [])
    assert shown["error"] == {"code": "class_not_allowed", "message": "layer Lambda is not allowed"}
    listed = admin.get(f"/admin/models/{model}").json()
    assert listed["versions"][0]["error"] == shown["error"]
    assert listed["latest"] is None


def test_models_are_listed_with_versions_and_labels_a_page_at_a_time(
    gateway: LiveGateway, admin: httpx.Client, model: str
):
    names = [f"zz-{model}-{place}" for place in range(3)]
    for name in names:
        upload(admin, name)
    upload(admin, names[0], KERAS + b"second")
    gateway.make_available(names[0], 1)
    admin.put(f"/admin/models/{names[0]}/labels/stable", json={"version": 1})

    first = admin.get("/admin/models", params={"limit": 2, "page_token": f"zz-{model}"}).json()
    assert [shown["name"] for shown in first["models"]] == names[:2]
    assert first["models"][0]["labels"] == {"stable": 1}
    assert first["models"][0]["latest"] == 1
    states = [(shown["version"], shown["state"]) for shown in first["models"][0]["versions"]]
    assert states == [(1, "AVAILABLE"), (2, "START")]
    rest = admin.get("/admin/models", params={"limit": 2, "page_token": first["next_page_token"]}).json()
    assert [shown["name"] for shown in rest["models"]] == names[2:]
    assert rest["next_page_token"] is None
    assert admin.get(f"/admin/models/{names[0]}").json() == first["models"][0]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", ""),
        ("GET", "/versions/1"),
        ("POST", "/versions/1/retire"),
        ("DELETE", "/versions/1"),
        ("PUT", "/labels/stable"),
    ],
)
def test_what_does_not_exist_is_not_found(admin: httpx.Client, model: str, method: str, path: str):
    body = {"version": 1} if method == "PUT" else None
    assert refused(admin.request(method, f"/admin/models/{model}{path}", json=body), 404, "model_not_found")


def test_a_label_is_made_moved_and_deleted(gateway: LiveGateway, admin: httpx.Client, model: str):
    for content in (b"1", b"2"):
        upload(admin, model, KERAS + content)
    address = f"/admin/models/{model}/labels/stable"
    assert refused(admin.put(address, json={"version": 1}), 409, "version_not_available")
    for number in (1, 2):
        gateway.make_available(model, number)
        assert admin.put(address, json={"version": number}).json() == {
            "model": model,
            "label": "stable",
            "version": number,
            "previous": 1 if number == 2 else None,
            "dry_run": False,
            "gates": [],
        }
        # In force at once, at least in the gateway that was asked.
        assert gateway.parts.snapshot.catalog.resolve(model, label="stable").number == number
    assert admin.delete(address).status_code == 204
    assert refused(admin.delete(address), 404, "label_not_found")


@pytest.mark.parametrize("body", [{}, {"version": 0}, {"version": "x"}, {"version": 1, "other": 2}, {"version": 2**31}])
def test_a_label_needs_the_number_of_a_version(admin: httpx.Client, model: str, body: dict[str, object]):
    assert refused(admin.put(f"/admin/models/{model}/labels/stable", json=body), 422, "request_invalid")


def test_only_uploads_may_be_larger_than_other_bodies(gateway: LiveGateway, admin: httpx.Client, model: str):
    body = b'{"version": 1' + b" " * gateway.parts.settings.body_limit_bytes + b"}"
    assert refused(admin.put(f"/admin/models/{model}/labels/stable", content=body), 413, "body_too_large")


def test_a_labels_name_follows_the_rule(gateway: LiveGateway, admin: httpx.Client, model: str):
    upload(admin, model)
    gateway.make_available(model, 1)
    assert refused(admin.put(f"/admin/models/{model}/labels/.x", json={"version": 1}), 422, "name_invalid")


def test_a_version_is_retired_once_no_label_points_to_it(gateway: LiveGateway, admin: httpx.Client, model: str):
    upload(admin, model)
    gateway.make_available(model, 1)
    admin.put(f"/admin/models/{model}/labels/stable", json={"version": 1})
    retire = f"/admin/models/{model}/versions/1/retire"
    assert refused(admin.post(retire), 409, "version_in_use")
    admin.delete(f"/admin/models/{model}/labels/stable")
    answers = [admin.post(retire) for _ in range(2)]
    assert [(answer.status_code, answer.json()["state"]) for answer in answers] == [(200, "END"), (200, "END")]
    assert answers[0].json()["error"] is None


def test_only_a_retired_version_without_jobs_is_deleted(gateway: LiveGateway, admin: httpx.Client, model: str):
    upload(admin, model)
    gateway.make_available(model, 1)
    address = f"/admin/models/{model}/versions/1"
    assert refused(admin.delete(address), 409, "version_in_use")
    admin.post(f"{address}/retire")
    draft = jobs.Draft(jobs.new_id(), Lane(model, 1, Priority.BULK, "c"), "d", 1, b"{}", 60)
    with transaction(gateway.parts.sessions) as session:
        [(_, number)] = jobs.accept(session, [draft], 1)
    answer = admin.delete(address)
    assert refused(answer, 409, "version_in_use")
    assert "jobs" in answer.json()["detail"]
    with transaction(gateway.parts.sessions) as session:
        assert jobs.cancel(session, session.get_one(Job, number))
    assert admin.delete(address).status_code == 204
    assert admin.get(address).status_code == 404
    assert admin.get(f"/admin/models/{model}").json()["versions"] == []


def test_a_job_that_a_gateway_took_before_it_heard_of_the_end_keeps_its_version(
    gateway: LiveGateway, admin: httpx.Client, model: str, monkeypatch: pytest.MonkeyPatch
):
    upload(admin, model)
    gateway.make_available(model, 1)
    address = f"/admin/models/{model}/versions/1"
    admin.post(f"{address}/retire")
    draft = jobs.Draft(jobs.new_id(), Lane(model, 1, Priority.BULK, "c"), "d", 1, b"{}", 60)

    def submit(seconds: float) -> None:
        assert seconds > READ_SECONDS
        with transaction(gateway.parts.sessions) as session:
            jobs.accept(session, [draft], 1)

    monkeypatch.setattr("gateway.routes.admin_models.time", SimpleNamespace(sleep=submit))
    assert refused(admin.delete(address), 409, "version_in_use")
    assert admin.get(address).json()["state"] == "END"


def test_the_bytes_of_a_deleted_version_leave_the_store_when_nobody_else_has_them(
    gateway: LiveGateway, admin: httpx.Client, model: str
):
    shared, own = KERAS + model.encode(), KERAS + model.encode() + b"own"
    upload(admin, model, shared)
    upload(admin, f"{model}-other", shared)
    upload(admin, model, own)
    digests = [hashlib.sha256(data).hexdigest() for data in (shared, own)]
    for digest in digests:
        # As if uploaded long ago: what is new is left alone, since its row may be about to be written.
        os.utime(gateway.artifacts.path(digest), (0, 0))
    for number in (1, 2):
        admin.post(f"/admin/models/{model}/versions/{number}/retire")
        assert admin.delete(f"/admin/models/{model}/versions/{number}").status_code == 204
    eventually(lambda: not gateway.artifacts.exists(digests[1]))
    assert gateway.artifacts.exists(digests[0])


def test_json_sent_as_a_form_is_told_which_content_type_to_name(admin: httpx.Client, model: str):
    form = {"content-type": "application/x-www-form-urlencoded"}
    answer = admin.put(f"/admin/models/{model}/labels/stable", content=b'{"version": 1}', headers=form)
    assert refused(answer, 422, "request_invalid")
    assert "Content-Type: application/json" in answer.json()["detail"]
