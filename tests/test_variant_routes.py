"""Variant policies, preparing again and comparing, over HTTP and by the command."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from sqlalchemy import select
from typer.testing import CliRunner, Result

from auth import clients, grants
from auth.audit_tables import AuditEntry
from auth.grants import Action, GrantSpec
from auth.scopes import Scope
from model_store.database import transaction
from model_store.variant_policies import DEFAULT
from sluice.cli import app
from tests.conftest import RedisServer
from tests.live_gateway import EVERY_MODEL, LiveGateway, live_gateway, refused
from tests.onnx_models import classifier
from workers.preparation.pipeline import prepare
from workers.settings import WorkerSettings

POLICY = "/admin/models/net/variant-policy"
WISHES = {"variants": ["onnx", "onnx-fp16"], "top1_floor": 0.9}


@pytest.fixture(scope="module")
def gateway(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGateway]:
    """With two prepared versions of `net`."""
    folder = tmp_path_factory.mktemp("gateway")
    with live_gateway(folder, redis_url=redis_server.url, key_prefix=f"t{secrets.token_hex(4)}") as running:
        with running.client([Scope.MODELS_WRITE], [EVERY_MODEL]) as client:
            for number in (1, 2):
                file = classifier(folder / f"{number}.onnx", scale=float(number)).read_bytes()
                client.put("/admin/models/net/versions?format=onnx", content=file).raise_for_status()
                work(running, number)
        yield running


@pytest.fixture
def admin(gateway: LiveGateway) -> Iterator[httpx.Client]:
    with gateway.client([Scope.MODELS_WRITE], [EVERY_MODEL]) as client:
        yield client
        client.delete(POLICY)


def work(gateway: LiveGateway, number: int) -> None:
    """What a preparing worker does."""
    given = gateway.parts.settings
    settings = WorkerSettings(
        database_url=given.database_url,
        store_dir=given.store_dir,
        redis_url=given.redis_url,
        key_prefix=given.key_prefix,
    )
    prepare(gateway.parts.sessions, gateway.parts.artifacts, settings, "net", number)


def command(gateway: LiveGateway, *arguments: str) -> Result:
    with transaction(gateway.parts.sessions) as session:
        scopes = [Scope.MODELS_READ, Scope.MODELS_WRITE]
        made, secret = clients.create(session, secrets.token_hex(8), scopes, gateway.parts.settings.pepper)
        grants.set_grants(session, made.id, [EVERY_MODEL])
    gateway.parts.snapshot.refresh()
    who = {"SLUICE_URL": gateway.url, "SLUICE_CLIENT_ID": made.id, "SLUICE_CLIENT_SECRET": secret, "COLUMNS": "200"}
    return CliRunner().invoke(app, ["models", *arguments], env=who)


def test_a_policy_is_set_shown_and_removed_and_every_change_is_audited(gateway: LiveGateway, admin: httpx.Client):
    assert admin.get(POLICY).json() == DEFAULT.to_json()
    policy = DEFAULT.to_json() | WISHES
    assert admin.put(POLICY, json=WISHES).json() == policy
    assert admin.get(POLICY).json() == policy
    assert admin.delete(POLICY).status_code == 204
    assert admin.get(POLICY).json() == DEFAULT.to_json()
    with transaction(gateway.parts.sessions, write=False) as session:
        acts = session.scalars(select(AuditEntry).where(AuditEntry.act.contains("variant"))).all()
    assert {(row.model, row.outcome) for row in acts} == {("net", "done")}
    assert any("onnx-fp16" in (row.detail or "") for row in acts)


@pytest.mark.parametrize(
    ("policy", "why"),
    [
        ({"variants": ["onnx", "litert"], "serve": "litert"}, "litert is measured and exported, but does not serve"),
        ({"variants": ["onnx"], "serve": "pruned"}, "'pruned' cannot serve"),
        ({"variants": ["tensorrt"]}, "there is no variant 'tensorrt'"),
    ],
    ids=["litert", "not made", "unknown"],
)
def test_a_policy_that_cannot_be_carried_out_is_refused(admin: httpx.Client, policy: dict[str, object], why: str):
    for answer in (admin.put(POLICY, json=policy), admin.post("/admin/models/net/versions/1/prepare", json=policy)):
        assert refused(answer, 422, "variant_policy_invalid")
        assert why in answer.json()["detail"]
    assert admin.get(POLICY).json() == DEFAULT.to_json()


def test_a_version_is_prepared_again_while_it_serves(gateway: LiveGateway, admin: httpx.Client):
    # given a version that serves
    place = "/admin/models/net/versions/1"
    before = admin.get(place).json()
    # when it is to be prepared with other settings
    accepted = admin.post(f"{place}/prepare", json=WISHES)
    # then that is accepted once, and it serves meanwhile
    assert (accepted.status_code, accepted.headers["location"]) == (202, place)
    assert accepted.json()["preparation"] == {"step": "receive", "attempt": 0, "done": False}
    assert refused(admin.post(f"{place}/prepare"), 409, "preparation_running")
    waiting = admin.get(place).json()
    assert (waiting["state"], waiting["variants"]) == ("AVAILABLE", before["variants"])
    # and in the end it has what was asked for
    work(gateway, 1)
    after = admin.get(place).json()
    assert [row["name"] for row in after["variants"]] == ["onnx", "onnx-fp16"]
    assert (after["preparation"]["done"], after["available_at"]) == (True, before["available_at"])


def test_only_what_serves_is_prepared_again(admin: httpx.Client):
    admin.put("/admin/models/net/versions?format=onnx", content=b"\x08\x08no model")
    assert refused(admin.post("/admin/models/net/versions/3/prepare"), 409, "version_not_available")
    assert refused(admin.post("/admin/models/net/versions/9/prepare"), 404, "model_not_found")


def test_two_reports_are_shown_side_by_side_to_who_may_see_both(gateway: LiveGateway, admin: httpx.Client):
    found = admin.get("/admin/models/net/versions/2/compare?with=1").raise_for_status().json()
    assert [side["version"] for side in found["versions"]] == [2, 1]
    assert all(side["same_signature"] for side in found["versions"])
    onnx = next(row for row in found["variants"] if row["name"] == "onnx")
    assert [figures["accepted"] for figures in onnx["figures"]] == [True, True]
    assert "measure" in [step["name"] for step in found["steps"]]
    # and not to who may see one of them only
    one = [GrantSpec("net", version=2, actions=frozenset({Action.METADATA}))]
    with gateway.client([Scope.MODELS_READ], one) as client:
        assert client.get("/admin/models/net/versions/2").status_code == 200
        assert refused(client.get("/admin/models/net/versions/2/compare?with=1"), 404, "model_not_found")


def test_the_command_sets_prepares_and_compares(gateway: LiveGateway, tmp_path: Path, admin: httpx.Client):  # noqa: ARG001 - it clears up
    changed = command(
        gateway, "variants", "set", "net", "--make", "onnx", "--make", "pruned", "--floor", "0.9", "--json"
    )
    assert json.loads(changed.output) == DEFAULT.to_json() | {"variants": ["onnx", "pruned"], "top1_floor": 0.9}
    assert "0.9" in command(gateway, "variants", "show", "net").output
    assert "is being prepared again" in command(gateway, "prepare", "net", "2", "--no-wait").output
    work(gateway, 2)
    table = command(gateway, "compare", "net", "1", "2").output
    assert "the same signature" in table
    assert "pruned" in table
    assert "no variant policy" in command(gateway, "variants", "clear", "net").output
    failed = command(gateway, "prepare", "net", "2", "--serve", "litert")
    assert "does not serve" in str(failed.exception)
