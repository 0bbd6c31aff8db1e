"""Deleting a model over HTTP: who may, what keeps it, what is left where something goes wrong in between."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import httpx
import pytest
from sqlalchemy import select

from auth.grants import Action, GrantSpec, set_grants
from auth.scopes import Scope
from auth.tables import Grant
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
    with live_gateway(folder, redis_url=redis_server.url, key_prefix=f"t{secrets.token_hex(4)}") as running:
        yield running


@pytest.fixture(scope="module")
def admin(gateway: LiveGateway) -> Iterator[httpx.Client]:
    with gateway.client([Scope.MODELS_WRITE, Scope.AUDIT_READ], [EVERY_MODEL]) as client:
        yield client


@pytest.fixture
def model(gateway: LiveGateway, admin: httpx.Client) -> str:
    """A model that no other test uses, with a version that serves and a label that points to it."""
    name = f"m{secrets.token_hex(6)}"
    upload(admin, name, KERAS + name.encode())
    gateway.make_available(name, 1)
    admin.put(f"/admin/models/{name}/labels/stable", json={"version": 1}).raise_for_status()
    return name


@pytest.fixture
def between(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Has something happen in the second between the two steps."""

    def happen(act: Callable[[], object]) -> None:
        def sleep(seconds: float) -> None:
            assert seconds > READ_SECONDS
            act()

        monkeypatch.setattr("gateway.routes.model_deletion.time", SimpleNamespace(sleep=sleep))

    return happen


def accept(gateway: LiveGateway, model: str) -> int:
    """A job for the model's first version, as a gateway that has not heard takes one."""
    draft = jobs.Draft(jobs.new_id(), Lane(model, 1, Priority.BULK, "c"), "d", 1, b"{}", 60)
    with transaction(gateway.parts.sessions) as session:
        [(_, number)] = jobs.accept(session, [draft], 1)
    return number


def cancel(gateway: LiveGateway, number: int) -> None:
    with transaction(gateway.parts.sessions) as session:
        assert jobs.cancel(session, session.get_one(Job, number))


def test_a_model_that_serves_goes_in_one_call_with_its_bytes(gateway: LiveGateway, admin: httpx.Client, model: str):
    # given a model with a label, and an upload of a second version that is not finished
    digest = hashlib.sha256(KERAS + model.encode()).hexdigest()
    os.utime(gateway.artifacts.path(digest), (0, 0))
    begun = admin.post(f"/admin/models/{model}/uploads", json={"size_bytes": 10}).raise_for_status().headers["location"]

    # when it is deleted
    assert admin.delete(f"/admin/models/{model}").status_code == 204

    # then nothing knows it any more, and the log has both steps
    assert refused(admin.get(f"/admin/models/{model}"), 404, "model_not_found")
    assert model not in {shown["name"] for shown in admin.get("/admin/models").json()["models"]}
    assert refused(admin.get(begun), 404, "upload_not_found")
    assert refused(admin.delete(f"/admin/models/{model}"), 404, "model_not_found")
    eventually(lambda: not gateway.artifacts.exists(digest))
    entries = admin.get("/admin/audit", params={"model": model, "act": "delete_model"}).json()["entries"]
    assert [(entry["outcome"], entry["detail"].get("step")) for entry in entries][-2:] == [
        ("done", "deleted"),
        ("done", "withdrawn"),
    ]

    # and a new model of the name goes on with its numbers
    assert upload(admin, model, KERAS + model.encode()).json()["version"] == 2


def test_jobs_that_wait_keep_a_model_as_it_is(gateway: LiveGateway, admin: httpx.Client, model: str):
    number = accept(gateway, model)
    answer = admin.delete(f"/admin/models/{model}")
    assert refused(answer, 409, "version_in_use")
    assert "jobs for version 1 wait or run: retire what serves" in answer.json()["detail"]
    shown = admin.get(f"/admin/models/{model}").json()
    assert (shown["versions"][0]["state"], shown["labels"]) == ("AVAILABLE", {"stable": 1})
    cancel(gateway, number)
    assert admin.delete(f"/admin/models/{model}").status_code == 204


def test_a_job_that_a_gateway_took_before_it_heard_keeps_the_model_until_it_has_ended(
    gateway: LiveGateway, admin: httpx.Client, model: str, between: Callable[[Callable[[], object]], None]
):
    taken: list[int] = []
    between(lambda: taken.append(accept(gateway, model)))
    assert refused(admin.delete(f"/admin/models/{model}"), 409, "version_in_use")
    shown = admin.get(f"/admin/models/{model}").json()
    assert (shown["versions"][0]["state"], shown["labels"]) == ("END", {})
    cancel(gateway, taken[0])
    between(lambda: None)
    assert admin.delete(f"/admin/models/{model}").status_code == 204


def test_a_second_call_finishes_what_a_gateway_that_died_began(
    admin: httpx.Client, model: str, between: Callable[[Callable[[], object]], None]
):
    def die() -> None:
        raise OSError("the process ends here")

    between(die)
    assert admin.delete(f"/admin/models/{model}").status_code == 500
    between(lambda: None)
    assert admin.delete(f"/admin/models/{model}").status_code == 204
    assert refused(admin.get(f"/admin/models/{model}"), 404, "model_not_found")


def test_who_loses_the_right_in_between_deletes_nothing_more(
    gateway: LiveGateway, admin: httpx.Client, model: str, between: Callable[[Callable[[], object]], None]
):
    def lose() -> None:
        with transaction(gateway.parts.sessions) as session:
            client_id = session.scalars(select(Grant.client_id).where(Grant.model == model)).one()
            set_grants(session, client_id, [])
        gateway.parts.snapshot.refresh()

    between(lose)
    with gateway.client([Scope.MODELS_WRITE], [GrantSpec(model, actions=frozenset({Action.RETIRE}))]) as client:
        assert refused(client.delete(f"/admin/models/{model}"), 404, "model_not_found")
    assert admin.get(f"/admin/models/{model}").json()["versions"][0]["state"] == "END"


@pytest.mark.parametrize(
    ("grant", "status"),
    [
        (GrantSpec("m*", actions=frozenset({Action.RETIRE})), 204),
        (GrantSpec("m*", actions=frozenset({Action.LABEL, Action.UPLOAD, Action.METADATA})), 404),
        (GrantSpec("m*", version=1, actions=frozenset({Action.RETIRE})), 404),
    ],
    ids=["retire", "all-but-retire", "retire-of-one-version"],
)
def test_deleting_needs_the_right_to_retire_all_versions(
    gateway: LiveGateway, model: str, grant: GrantSpec, status: int
):
    with gateway.client([Scope.MODELS_WRITE], [grant]) as client:
        assert client.delete(f"/admin/models/{model}").status_code == status
