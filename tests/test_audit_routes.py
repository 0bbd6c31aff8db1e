"""What requests leave in the audit log, and reading it, over real HTTP."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.routing import iter_route_contexts
from sqlalchemy import func, select
from typer.testing import CliRunner

from auth.audit_tables import AuditEntry
from auth.scopes import Scope
from gateway.app import create_app
from gateway.audit_trail import ASKING, CHANGING
from gateway.dependencies import TOKEN_PATH
from model_store.database import transaction
from sluice.cli import app as cli
from tests.audit_kit import verified
from tests.live_gateway import LiveGateway
from tests.quiet_gateway import QuietGateway, bearer, quiet_gateway

ADMIN = (Scope.CLIENTS_ADMIN, Scope.AUDIT_READ, Scope.MODELS_READ, Scope.MODELS_WRITE)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QuietGateway]:
    with quiet_gateway(tmp_path_factory.mktemp("gateway")) as made:
        yield made


@pytest.fixture(scope="module")
def admin(gateway: QuietGateway) -> dict[str, str]:
    return gateway.headers("admin", ADMIN)


@pytest.fixture(autouse=True)
def nothing_waits(gateway: QuietGateway) -> None:
    """Each test begins with nothing in memory, neither to be written nor to be joined."""
    gateway.parts.audit_log.turn(last=True)


def entries(gateway: QuietGateway, **wanted: object) -> list[AuditEntry]:
    """All entries so far with these values, the oldest first; what waited in memory is written before."""
    gateway.parts.audit_log.turn(last=True)
    with transaction(gateway.parts.sessions, write=False) as session:
        found = select(AuditEntry).order_by(AuditEntry.id).filter_by(**wanted)
        return list(session.scalars(found))


def read(gateway: QuietGateway, headers: dict[str, str], **query: object) -> dict[str, Any]:
    answer = gateway.http.get("/admin/audit", headers=headers, params={k: str(v) for k, v in query.items()})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_an_act_has_an_entry_with_who_what_when_and_how(gateway: QuietGateway, admin: dict[str, str]):
    made = gateway.http.post("/admin/clients", headers=admin, json={"name": "one"})
    assert made.status_code == 201
    client_id = made.json()["id"]
    sent = {**admin, "x-request-id": "0123456789abcdef"}
    assert gateway.http.post(f"/admin/clients/{client_id}/disable", headers=sent).status_code == 200

    (entry,) = entries(gateway, request_id="0123456789abcdef")
    assert (entry.act, entry.name, entry.outcome, entry.reason) == ("disable_client", "admin", "done", None)
    assert entry.identity.startswith("cli_")
    assert client_id in entry.detail
    assert "/admin/clients/{client_id}/disable" in entry.detail
    assert (entry.address, entry.count) == ("127.0.0.1", 1)
    assert entry.number is not None


def test_no_secret_and_no_token_is_in_any_entry(gateway: QuietGateway, admin: dict[str, str]):
    # given a client that was made, whose secret was rotated, that got a token, and one whose secret was wrong
    made = gateway.http.post("/admin/clients", headers=admin, json={"name": "secretive"}).json()
    rotated = gateway.http.post(f"/admin/clients/{made['id']}/rotate", headers=admin).json()
    token = gateway.token(made["id"], rotated["client_secret"])
    form = {"grant_type": "client_credentials", "client_id": made["id"], "client_secret": made["client_secret"]}
    assert gateway.http.post(TOKEN_PATH, data=form).status_code == 401
    gateway.http.delete(f"/admin/clients/{token}", headers=admin)
    gateway.http.delete(f"/admin/clients/{rotated['client_secret']}", headers=admin)

    rows = entries(gateway)
    texts = " ".join(str(value) for row in rows for value in vars(row).values())
    assert len(rows) > 5
    assert all(secret not in texts for secret in (made["client_secret"], rotated["client_secret"], token))
    assert "sls_" not in texts
    assert not re.search(r"eyJ[\w-]+\.", texts)


def test_the_address_of_a_result_is_in_no_entry(gateway: QuietGateway):
    path = gateway.parts.results.addresses.make("Zk0o3rVxQ1uYt5pWc8sLd2Ea").path
    assert [gateway.http.request(method, path).status_code for method in ("POST", "DELETE", "GET")] == [405, 405, 404]
    signature = path.rpartition(".")[2]
    assert not [entry for entry in entries(gateway) if signature in entry.detail]


def test_whoever_tries_files_and_batches_of_others_leaves_an_entry(gateway: QuietGateway):
    caller = gateway.headers("nosy", (Scope.JOBS,))
    for path in ("/v1/files/file_x", "/v1/files/file_x/content", "/v1/batches/batch_x"):
        assert gateway.http.get(path, headers=caller).status_code == 404
    found = {entry.reason for entry in entries(gateway, name="nosy", outcome="refused")}
    assert found == {"file_not_found", "batch_not_found"}


def test_what_routes_know_of_models_is_in_their_entries(gateway: QuietGateway, admin: dict[str, str]):
    uploaded = gateway.http.put("/admin/models/named/versions?format=onnx", headers=admin, content=b"not a model")
    assert uploaded.status_code == 202, uploaded.text
    LiveGateway("", gateway.parts).make_available("named", 1)
    stranger = gateway.headers("stranger", [Scope.PREDICT])
    answer = gateway.http.post("/v1/models/named:predict", headers=stranger, json={"instances": [1]})
    assert answer.status_code == 404
    assert gateway.http.put("/admin/models/named/labels/stable", headers=admin, json={"version": 1}).status_code == 200
    assert gateway.http.delete("/admin/models/named/labels/stable", headers=admin).status_code == 204
    assert gateway.http.post("/admin/models/named/versions/1/retire", headers=admin).status_code == 200
    assert gateway.http.delete("/admin/models/named/versions/1", headers=admin).status_code == 204

    digest = hashlib.sha256(b"not a model").hexdigest()
    assert [(row.act, row.version, row.digest) for row in entries(gateway, model="named")] == [
        ("upload_version", 1, digest),
        ("put_label", 1, digest),
        ("delete_label", None, None),
        ("retire_version", 1, digest),
        ("delete_version", 1, digest),
        ("predict", None, None),
    ]


def test_what_was_granted_is_in_the_entry(gateway: QuietGateway, admin: dict[str, str]):
    client_id, _ = gateway.client("granted")
    body = {"grants": [{"model": "mnist", "version": 3, "actions": ["predict"]}]}
    assert gateway.http.put(f"/admin/clients/{client_id}/grants", headers=admin, json=body).status_code == 200

    (entry,) = (row for row in entries(gateway, act="replace_grants", outcome="done") if client_id in row.detail)
    assert "mnist" in json.loads(entry.detail)["grants"]


def test_every_changing_route_leaves_an_entry(gateway: QuietGateway, admin: dict[str, str]):
    routes = {
        (method, str(route.path), str(route.name))
        for route in iter_route_contexts(create_app(gateway.parts.settings).routes)
        for method in set(route.methods or ()) & CHANGING
        if str(route.path) not in ASKING
    }
    assert len(routes) > 15
    missing = []
    for method, path, name in sorted(routes):
        before = sum(entry.count for entry in entries(gateway, act=name))
        address = re.sub(r"\{[^}]+\}", "1", path)
        answer = gateway.http.request(method, address, headers=admin, json={})
        if sum(entry.count for entry in entries(gateway, act=name)) != before + 1:
            missing.append(f"{method} {path}: {answer.status_code}")
    assert missing == []


def test_a_route_that_does_without_a_transaction_is_seen_all_the_same(gateway: QuietGateway):
    client_id, secret = gateway.client("token-taker")
    gateway.token(client_id, secret)

    (entry,) = entries(gateway, act="issue_token", outcome="done", identity=client_id)
    assert entry.name == "token-taker"


def test_refusals_say_their_reason_and_equal_ones_are_joined(gateway: QuietGateway, admin: dict[str, str]):
    reader = gateway.headers("reader", [Scope.MODELS_READ])
    for _ in range(30):
        assert gateway.http.get("/admin/clients").status_code == 401
        assert gateway.http.get("/admin/clients", headers=bearer("nonsense")).status_code == 401
        assert gateway.http.get("/admin/clients", headers=reader).status_code == 403
        assert gateway.http.get("/v1/models/hidden", headers=reader).status_code == 404
    gateway.http.post("/admin/clients", headers=admin, json={"name": "admin"})

    found = [(row.act, row.reason, row.name, row.count) for row in entries(gateway, outcome="refused")]
    for reason, name, act in (
        ("token_missing", "", "list_clients"),
        ("invalid_token", "", "list_clients"),
        ("insufficient_scope", "reader", "list_clients"),
    ):
        assert (act, reason, name, 1) in found
        assert (act, reason, name, 29) in found
    assert sum(count for _, reason, name, count in found if (reason, name) == ("model_not_found", "reader")) == 30
    assert ("create_client", "client_exists", "admin", 1) in found
    with transaction(gateway.parts.sessions, write=False) as session:
        assert session.scalar(select(func.count()).where(AuditEntry.model == "hidden")) == 0, "nobody has such a model"


def test_predictions_that_are_refused_have_an_entry(gateway: QuietGateway):
    caller = gateway.headers("caller", [Scope.PREDICT])
    for headers, status in (({}, 401), (caller, 404)):
        answer = gateway.http.post("/v1/models/absent:predict", headers=headers, json={"instances": [1]})
        assert answer.status_code == status

    found = {(row.reason, row.name, row.model) for row in entries(gateway, act="predict")}
    assert {("token_missing", "", None), ("model_not_found", "caller", None)} <= found


def test_the_log_is_read_newest_first_by_pages_and_filters(gateway: QuietGateway, admin: dict[str, str]):
    for number in range(5):
        gateway.http.post("/admin/clients", headers=admin, json={"name": f"paged-{number}"})

    first = read(gateway, admin, act="create_client", outcome="done", limit=2)
    second = read(gateway, admin, act="create_client", outcome="done", limit=2, page_token=first["next_page_token"])
    times = [entry["at"] for entry in first["entries"] + second["entries"]]
    assert times == sorted(times, reverse=True)
    assert len({entry["request_id"] for entry in first["entries"] + second["entries"]}) == 4
    assert read(gateway, admin, since="2100-01-01T00:00:00Z") == {"entries": [], "next_page_token": None}
    assert read(gateway, admin, until="2000-01-01T00:00:00Z") == {"entries": [], "next_page_token": None}
    for wrong in ("0.5", "1700000000", "2000-01-01", "2000-01-01T00:00:00"):
        assert gateway.http.get("/admin/audit", params={"until": wrong}, headers=admin).status_code == 422
    assert read(gateway, admin, model="nowhere", identity="cli_x", outcome="refused")["entries"] == []
    # what was read is what verifies
    shown = read(gateway, admin, limit=50)["entries"]
    assert {"create_client", "read_audit"} <= {entry["act"] for entry in shown}
    assert verified(gateway.parts.sessions).faults == []


def test_reading_the_log_is_an_entry_of_its_own_once(gateway: QuietGateway, admin: dict[str, str]):
    before = len(entries(gateway, act="read_audit"))

    read(gateway, admin, model="mnist", limit=3)

    (entry,) = entries(gateway, act="read_audit")[before:]
    assert "model=mnist" in entry.detail


def test_the_command_shows_what_the_route_answers(gateway: QuietGateway):
    client_id, secret = gateway.client("listing", ADMIN)
    who = {"SLUICE_URL": str(gateway.http.base_url), "SLUICE_CLIENT_ID": client_id, "SLUICE_CLIENT_SECRET": secret}
    gateway.http.get("/admin/audit")

    table = CliRunner().invoke(cli, ["audit", "list", "--outcome", "refused"], env={**who, "COLUMNS": "200"})
    printed = CliRunner().invoke(cli, ["audit", "list", "--act", "read_audit", "--limit", "1", "--json"], env=who)

    assert "refused" in table.output, table.output
    assert [entry["act"] for entry in json.loads(printed.output)] == ["read_audit"]


def test_only_who_has_the_scope_reads_it(gateway: QuietGateway):
    headers = gateway.headers("curious", [Scope.CLIENTS_ADMIN, Scope.MODELS_WRITE])

    assert gateway.http.get("/admin/audit", headers=headers).status_code == 403
    assert gateway.http.get("/admin/audit").status_code == 401


@pytest.mark.parametrize("query", ["act=Drop+it", "limit=0", "since=yesterday", "page_token=1", "outcome=x", "who=me"])
def test_a_question_that_makes_no_sense_is_refused(gateway: QuietGateway, admin: dict[str, str], query: str):
    assert gateway.http.get(f"/admin/audit?{query}", headers=admin).status_code == 422


def test_the_settings_name_a_share_and_a_collector(tmp_path: Path):
    for wrong in ({"audit_predictions": 2}, {"audit_syslog": "http://host"}, {"audit_days": -1}):
        with pytest.raises(ValueError, match=next(iter(wrong))), quiet_gateway(tmp_path, **wrong):
            pass


def test_entries_say_what_was_done_to_whom(gateway: QuietGateway, admin: dict[str, str]):
    def sent(method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = gateway.http.request(method, path, headers=admin, json=body)
        assert answer.status_code < 300, answer.text
        found: dict[str, Any] = answer.json()
        return found

    grants = [{"model": "mnist", "actions": ["predict"]}]
    client = sent("POST", "/admin/clients", {"name": "told", "scopes": ["predict"], "grants": grants})["id"]
    person = sent("POST", "/admin/people", {"name": "ada", "role": "operator"})["id"]
    sent("PUT", f"/admin/people/{person}", {"role": "auditor"})
    sent("PUT", f"/admin/clients/{client}/limits", {"limits": [{"requests_per_second": 5}]})
    key = {"name": "build-server", "public_key": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}
    key_id = sent("POST", "/admin/upload-keys", key)["id"]
    kid = sent("POST", "/admin/keys/rotate", {"compromised": False})["kid"]

    last = {act: json.loads(entries(gateway, act=act, outcome="done")[-1].detail) for act in DETAILS}
    assert {act: {name: detail.get(name) for name in DETAILS[act]} for act, detail in last.items()} == {
        "create_client": {
            "client_id": client,
            "client": "told",
            "scopes": "predict",
            "grants": '{"grants":[{"model":"mnist","actions":["predict"],"weight":1.0}]}',
        },
        "create_person": {"person_id": person, "person": "ada", "role": "operator"},
        "change_person": {"person": "ada", "role": "auditor"},
        "replace_limits": {"client_id": client, "limits": '{"limits":[{"requests_per_second":5.0}]}'},
        "add_upload_key": {"key_id": key_id, "label": "build-server"},
        "rotate_key": {"kid": kid, "compromised": "False"},
    }


DETAILS = {
    "create_client": ("client_id", "client", "scopes", "grants"),
    "create_person": ("person_id", "person", "role"),
    "change_person": ("person", "role"),
    "replace_limits": ("client_id", "limits"),
    "add_upload_key": ("key_id", "label"),
    "rotate_key": ("kid", "compromised"),
}


def test_the_command_shows_what_was_acted_on_and_whose_name_was_tried(gateway: QuietGateway):
    client_id, secret = gateway.client("shown", ADMIN)
    victim, _ = gateway.client("tried")
    form = {"grant_type": "client_credentials", "client_id": victim, "client_secret": "sls_wrong"}
    assert gateway.http.post(TOKEN_PATH, data=form).status_code == 401
    gateway.http.post("/admin/clients", headers=bearer(gateway.token(client_id, secret)), json={"name": "on-show"})
    gateway.parts.audit_log.turn(last=True)
    who = {"SLUICE_URL": str(gateway.http.base_url), "SLUICE_CLIENT_ID": client_id, "SLUICE_CLIENT_SECRET": secret}

    table = CliRunner().invoke(cli, ["audit", "list"], env={**who, "COLUMNS": "300"}).output

    assert "on-show" in table, table
    assert f"? {victim}" in table
