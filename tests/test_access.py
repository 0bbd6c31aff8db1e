"""Grants over HTTP: patterns, ends, administrators of some models, and why somebody may or may not."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator

import httpx
import pytest

from auth import clients, revocations
from auth.grants import ADMINISTRATION, USE, Action, GrantSpec, grants_of, moment, set_grants
from auth.rights import ClientRights
from auth.scopes import DEFAULT, Scope
from gateway.access import Asked, explain
from model_store.artifacts import PIECE_BYTES
from model_store.database import clock_ms, transaction
from model_store.errors import SluiceError
from model_store.generation import read_generation
from monitoring.metrics import QUEUE_DEPTH
from tests.live_gateway import KERAS, eventually, refused
from tests.quiet_gateway import QuietGateway, quiet_gateway
from tests.rights_kit import add_client, serve, token

WRITE = frozenset({Scope.MODELS_READ, Scope.MODELS_WRITE})
HOUR_MS = 3_600_000


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QuietGateway]:
    with quiet_gateway(tmp_path_factory.mktemp("gateway")) as running:
        serve(running.parts, "team-a-net", versions=2, labels=["stable"])
        serve(running.parts, "team-b-net", versions=2, labels=["stable"])
        yield running


@pytest.fixture(scope="module")
def admin(gateway: QuietGateway) -> dict[str, str]:
    return token(gateway.parts, add_client(gateway.parts, "chief", Scope), Scope)


@pytest.fixture(scope="module")
def delegate(gateway: QuietGateway) -> dict[str, str]:
    """Of team A."""
    held = [GrantSpec("team-a-*", actions=ADMINISTRATION)]
    return token(gateway.parts, add_client(gateway.parts, "delegate", WRITE, held), WRITE)


def client(gateway: QuietGateway, *grants: GrantSpec, scopes: frozenset[Scope] = DEFAULT) -> tuple[str, dict[str, str]]:
    """A new client's id, and the header of its token."""
    made = add_client(gateway.parts, f"c{secrets.token_hex(6)}", scopes, grants)
    return made, token(gateway.parts, made, scopes)


def now_ms(gateway: QuietGateway) -> int:
    with transaction(gateway.parts.sessions, write=False) as session:
        return clock_ms(session)


def why(gateway: QuietGateway, admin: dict[str, str], client_id: str, **asked: object) -> dict[str, object]:
    answer = gateway.http.get(f"/admin/clients/{client_id}/access", params=asked, headers=admin)
    return dict(answer.raise_for_status().json())


def test_administrators_of_one_teams_models_do_not_find_another_teams(gateway: QuietGateway, delegate: dict[str, str]):
    def ask(method: str, path: str, **more: object) -> httpx.Response:
        return gateway.http.request(method, f"/admin/models/{path}", headers=delegate, **more)  # type: ignore[arg-type]

    for method, path in (
        ("GET", ""), ("GET", "/versions/1"), ("PUT", "/versions"), ("POST", "/versions/1/retire"),
        ("DELETE", "/versions/1"), ("PUT", "/labels/canary"), ("DELETE", "/labels/stable"),
    ):  # fmt: skip
        body = {"json": {"version": 1}} if "canary" in path else {}
        assert refused(ask(method, f"team-b-net{path}", **body), 404, "model_not_found"), path
    catalog = gateway.parts.snapshot.catalog
    assert catalog.models["team-b-net"].labels == {"stable": 2}

    assert ask("GET", "team-a-net").json()["labels"] == {"stable": 2}
    assert ask("PUT", "team-a-net/labels/canary", json={"version": 1}).status_code == 200
    assert ask("DELETE", "team-a-net/labels/canary").status_code == 204
    assert ask("PUT", "team-a-new/versions", content=KERAS).status_code == 202
    assert refused(ask("PUT", "team-c-new/versions", content=KERAS), 404, "model_not_found")
    assert "team-c-new" not in gateway.parts.snapshot.catalog.models


def test_every_list_has_what_the_caller_may_see_and_no_more(
    gateway: QuietGateway, admin: dict[str, str], delegate: dict[str, str]
):
    def names(header: dict[str, str]) -> set[str]:
        found = {shown["name"] for shown in gateway.http.get("/admin/models", headers=header).json()["models"]}
        used = set(gateway.http.get("/v1/models", headers=header).json()["models"])
        assert {name for name in found if name.endswith("-net")} == {name for name in used if name.endswith("-net")}
        return {name for name in used if name.endswith("-net")}

    assert names(admin) == {"team-a-net", "team-b-net"}
    assert names(delegate) == {"team-a-net"}
    page = gateway.http.get("/admin/models", params={"limit": 1}, headers=delegate).json()
    assert [shown["name"] for shown in page["models"]] == ["team-a-net"]

    _, header = client(gateway, GrantSpec("team-b-net", version=1, actions=USE | {Action.RETIRE}), scopes=WRITE)
    shown = gateway.http.get("/admin/models/team-b-net", headers=header).json()
    assert ([version["version"] for version in shown["versions"]], shown["labels"], shown["latest"]) == ([1], {}, 1)
    assert gateway.http.get("/admin/models", headers=header).json()["models"] == [shown]


def test_metrics_of_models_out_of_sight_are_left_out(gateway: QuietGateway, admin: dict[str, str]):
    for model, version in (("team-a-net", "1"), ("team-a-net", "2"), ("team-b-net", "1"), ("other", "other")):
        QUEUE_DEPTH.labels(model, version).set(1)
    scopes = frozenset({Scope.METRICS_READ})
    _, some = client(gateway, GrantSpec("team-a-*", version=1), scopes=scopes)
    _, every = client(gateway, GrantSpec("*", actions=frozenset({Action.METADATA})), scopes=scopes)
    texts = [gateway.http.get("/metrics", headers=header).raise_for_status().text for header in (some, every, admin)]
    assert "sluice_tokens_issued_total" in texts[0]
    assert 'sluice_queue_predictions{model="team-a-net",version="1"}' in texts[0]
    for hidden in ('model="team-a-net",version="2"', 'model="team-b-net"', 'model="other"'):
        assert hidden not in texts[0]
        assert all(hidden in text for text in texts[1:])


def test_a_label_may_be_moved_by_who_has_it_and_no_other_label(gateway: QuietGateway):
    held = GrantSpec("team-b-net", label="shadow", actions=frozenset({Action.LABEL}))
    _, header = client(gateway, held, scopes=WRITE)
    path = "/admin/models/team-b-net/labels"
    assert gateway.http.put(f"{path}/shadow", json={"version": 1}, headers=header).status_code == 200
    assert refused(gateway.http.put(f"{path}/stable", json={"version": 1}, headers=header), 404, "model_not_found")
    assert gateway.http.delete(f"{path}/shadow", headers=header).status_code == 204


def test_a_grant_ends_at_its_moment_though_nothing_is_written_then(gateway: QuietGateway):
    with transaction(gateway.parts.sessions, write=False) as session:
        end = clock_ms(session) + 500
    _, header = client(gateway, GrantSpec("team-a-net", expires_at=end))
    with transaction(gateway.parts.sessions, write=False) as session:
        generation = read_generation(session)
    until = time.monotonic() + 20
    while True:
        before = now_ms(gateway)
        answer = gateway.http.get("/v1/models/team-a-net/metadata", headers=header)
        if answer.status_code == 404:
            break
        assert answer.status_code == 200
        # The gateway goes by an estimate of the database's clock, a few milliseconds off at most.
        assert before < end + 200
        assert time.monotonic() < until
    assert now_ms(gateway) > end - 400
    assert gateway.http.get("/v1/models", headers=header).json() == {"models": []}
    with transaction(gateway.parts.sessions, write=False) as session:
        assert read_generation(session) == generation


def test_the_explanation_names_the_grant_that_decided(gateway: QuietGateway, admin: dict[str, str]):
    made, _ = client(gateway, GrantSpec("team-a-*", actions=USE), GrantSpec("team-b-net", version=1))
    allowed = why(gateway, admin, made, model="team-a-net", verb="predict", label="stable")
    text = "predict, submit, metadata on team-a-*"
    grant = allowed["grant"]
    assert isinstance(grant, dict)
    assert (allowed["allowed"], allowed["resolved_version"], grant["text"]) == (True, 2, text)
    assert allowed["rule"] == f"grant {grant['id']}: {text}"
    with transaction(gateway.parts.sessions, write=False) as session:
        assert grant["id"] in {spec.id for spec in grants_of(session, made)}
    assert why(gateway, admin, made, model="team-b-net", version=1)["allowed"] is True


def test_the_explanation_says_why_not(gateway: QuietGateway, admin: dict[str, str]):
    ago = now_ms(gateway) - 1
    made, _ = client(gateway, GrantSpec("team-a-net", expires_at=ago), GrantSpec("team-c-*"), scopes=DEFAULT)

    def rule(**asked: object) -> object:
        found = why(gateway, admin, made, **asked)
        assert found["allowed"] is False
        return found["rule"]

    assert rule(model="team-b-net") == "no grant"
    assert rule(model="nosuch") == "no grant"
    assert rule(model="team-a-net", verb="submit", version=1) == f"grant expired at {moment(ago)}"
    assert rule(model="team-c-net") == "Servable not found for request: Latest(team-c-net)"
    assert rule(model="team-c-net", verb="upload") == "scope missing: models:write"
    with transaction(gateway.parts.sessions) as session:
        clients.set_disabled(session, made, True)
    assert rule(model="team-c-net") == "client disabled"


def test_the_explanation_of_an_administrator_names_the_scope(gateway: QuietGateway, admin: dict[str, str]):
    made, _ = client(gateway, scopes=frozenset(Scope))
    found = why(gateway, admin, made, model="team-a-net", verb="retire", version=1)
    assert (found["allowed"], found["grant"]) == (True, None)
    assert found["rule"] == "scope clients:admin: metadata, upload, label, retire on *"
    assert why(gateway, admin, made, model="team-a-net", verb="predict")["rule"] == "no grant"


def test_a_question_that_makes_no_sense_is_refused(gateway: QuietGateway, admin: dict[str, str]):
    made, _ = client(gateway)
    path = f"/admin/clients/{made}/access"
    for params in (
        {},
        {"model": "m", "version": 1, "label": "l"},
        {"model": "m", "verb": "own"},
        {"model": "a/b"},
        {"model": "m", "action": "submit"},
    ):
        assert gateway.http.get(path, params=params, headers=admin).status_code == 422, params
    unknown = gateway.http.get("/admin/clients/cli_unknown/access", params={"model": "m"}, headers=admin)
    assert refused(unknown, 404, "client_not_found")


@pytest.mark.parametrize("label", [None, "stable", "nosuch"])
@pytest.mark.parametrize("version", [None, 1, 2, 3])
@pytest.mark.parametrize("model", ["team-a-net", "team-b-net", "nosuch"])
def test_the_explanation_and_admission_never_differ(
    gateway: QuietGateway, model: str, version: int | None, label: str | None
):
    if version is not None and label is not None:
        label = None
    parts, now = gateway.parts, now_ms(gateway)
    for spec in (
        GrantSpec("team-a-net"), GrantSpec("*", version=1), GrantSpec("team-*", label="stable"), GrantSpec("nosuch"),
        GrantSpec("team-a-net", actions=ADMINISTRATION), GrantSpec("*", expires_at=now - 1),
        GrantSpec("*", expires_at=now + HOUR_MS),
    ):  # fmt: skip
        made, header = client(gateway, spec)
        caller = parts.admission.caller([(b"authorization", header["authorization"].encode())], b"")
        rights: ClientRights = parts.snapshot.rights.clients[made]
        for action in USE:
            explained = explain(parts.snapshot.catalog, rights, Asked(action, model, version, label), now)
            try:
                number = parts.admission.target(caller, action, model, version, label).number
            except SluiceError:
                assert not explained.allowed, (spec, action)
            else:
                assert (explained.allowed, explained.version) == (True, number), (spec, action)


def test_a_scope_taken_from_a_client_is_taken_from_its_tokens(gateway: QuietGateway):
    made, _ = client(gateway, GrantSpec("team-a-net"), scopes=frozenset({Scope.JOBS}))
    header = token(gateway.parts, made, DEFAULT)
    refusal = gateway.http.get("/v1/models/team-a-net", headers=header)
    assert refusal.status_code == 403
    assert 'error="insufficient_scope"' in refusal.headers["www-authenticate"]


def test_a_grant_that_is_taken_away_hides_the_model(gateway: QuietGateway):
    made, header = client(gateway, GrantSpec("team-a-net"))
    assert gateway.http.get("/v1/models/team-a-net", headers=header).status_code == 200
    with transaction(gateway.parts.sessions) as session:
        set_grants(session, made, [])
    gateway.parts.snapshot.refresh()
    unknown = gateway.http.get("/v1/models/nosuchmodel", headers=header)
    hidden = gateway.http.get("/v1/models/team-a-net", headers=header)
    assert (hidden.status_code, hidden.text) == (404, unknown.text.replace("nosuchmodel", "team-a-net"))


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/admin/clients", {"name": "mass", "role": "admin"}),
        ("POST", "/admin/clients", {"name": "mass", "client_id": "cli_chosen"}),
        ("POST", "/admin/clients", {"name": "mass", "disabled": False, "tokens_not_before": 0}),
        ("POST", "/admin/clients", {"name": "mass", "grants": [{"model": "m", "id": 1}]}),
        ("PUT", "/admin/clients/{id}/grants", {"grants": [], "client_id": "cli_chosen"}),
        ("PUT", "/admin/clients/{id}/grants", {"grants": [{"model": "m", "client_id": "cli_chosen"}]}),
        ("PUT", "/admin/clients/{id}/grants", {"grants": [{"model": "m", "rule": "role admin"}]}),
        ("PUT", "/admin/models/team-a-net/labels/stable", {"version": 1, "model": "team-b-net"}),
    ],
)
def test_fields_that_nobody_may_set_are_refused(
    gateway: QuietGateway, admin: dict[str, str], method: str, path: str, body: object
):
    made, _ = client(gateway, GrantSpec("kept"))
    answer = gateway.http.request(method, path.replace("{id}", made), json=body, headers=admin)
    assert refused(answer, 422, "request_invalid")
    assert "mass" not in {rights.name for rights in gateway.parts.snapshot.rights.clients.values()}
    assert list(gateway.parts.snapshot.rights.clients[made].grants) == ["kept"]
    assert gateway.parts.snapshot.catalog.models["team-a-net"].labels["stable"] == 2


def test_other_verbs_and_headers_that_name_somebody_open_nothing(gateway: QuietGateway, delegate: dict[str, str]):
    path = "/admin/models/team-b-net/versions/1"
    for header in ("x-http-method-override", "x-http-method", "x-method-override"):
        kept = gateway.http.get("/admin/models/team-a-net/versions/1", headers={**delegate, header: "DELETE"})
        assert (kept.status_code, kept.json()["state"]) == (200, "AVAILABLE"), header
    for header, value in (
        ("x-original-url", "/health/live"), ("x-rewrite-url", "/health/live"), ("x-forwarded-user", "chief"),
        ("x-forwarded-prefix", "/health"), ("x-client-id", "cli_chief"), ("forwarded", "for=127.0.0.1"),
        ("x-forwarded-for", "127.0.0.1"), ("host", "localhost"),
    ):  # fmt: skip
        assert gateway.http.get(path, headers={header: value}).status_code == 401, header
        assert gateway.http.get(path, headers={**delegate, header: value}).status_code == 404, header
    for method in ("HEAD", "OPTIONS", "PATCH", "TRACE", "PROPFIND", "QUERY"):
        answer = gateway.http.request(method, "/admin/clients", headers=delegate)
        assert answer.status_code in (401, 403, 404, 405, 501), method


@pytest.mark.parametrize("taken", ["grant", "client", "tokens", "token"])
def test_an_upload_that_outlasts_its_right_makes_no_version(gateway: QuietGateway, taken: str):
    made, header = client(gateway, GrantSpec("slow-*", actions=ADMINISTRATION), scopes=WRITE)

    def file() -> Iterator[bytes]:
        yield KERAS + bytes(PIECE_BYTES)
        # It was let in, and is being stored.
        eventually(lambda: any(gateway.parts.artifacts.root.glob("incoming/*")))
        with transaction(gateway.parts.sessions) as session:
            if taken == "grant":
                set_grants(session, made, [])
            elif taken == "client":
                clients.set_disabled(session, made, True)
            elif taken == "tokens":
                clients.revoke_tokens(session, made)
            else:
                sent = header["authorization"].partition(" ")[2]
                revocations.revoke(session, gateway.parts.verifier.verify(sent).token_id, made, 2**33)
        gateway.parts.snapshot.refresh()
        yield b"the rest"

    answer = gateway.http.put(f"/admin/models/slow-{taken}/versions", content=file(), headers=header)
    assert answer.status_code == (404 if taken == "grant" else 401)
    assert f"slow-{taken}" not in gateway.parts.snapshot.catalog.models


def test_what_follows_from_a_scope_is_not_for_a_token_without_it(gateway: QuietGateway):
    made, header = client(gateway, scopes=frozenset(Scope))
    narrow = token(gateway.parts, made, WRITE)
    assert gateway.http.get("/admin/models/team-a-net", headers=header).status_code == 200
    assert refused(gateway.http.get("/admin/models/team-a-net", headers=narrow), 404, "model_not_found")
    assert gateway.http.get("/admin/models", headers=narrow).json()["models"] == []
