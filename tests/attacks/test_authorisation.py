"""A70 to A78: acts of somebody who is known but may not, and requests that are dressed up as other requests."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from auth import clients
from auth.grants import ADMINISTRATION, USE, Action, GrantSpec
from auth.scopes import DEFAULT, Scope
from auth.standing import Standing
from model_store.database import transaction
from tests.attacks.target import Answer, Target, target
from tests.rights_kit import add_client, queue_job, serve, token
from workers import jobs
from workers.tables import Job

ROWS = {"instances": [[1.0, 2.0]]}
JSON = (b"Content-Type", b"application/json")
DELEGATED = frozenset({Scope.MODELS_READ, Scope.MODELS_WRITE})


@dataclass
class Attacked:
    """A gateway with two teams: their models, an administrator and a user of each; the attackers are of team A."""

    target: Target

    def __post_init__(self) -> None:
        parts = self.target.parts
        for model in ("team-a-net", "team-b-net"):
            serve(parts, model, versions=2, labels=["stable"])
        self.user_id = add_client(parts, "user", DEFAULT, [GrantSpec("team-a-*")])
        self.other_id = add_client(parts, "other", DEFAULT, [GrantSpec("team-b-*")])
        one = [GrantSpec("team-a-net", version=1, actions=USE | {Action.RETIRE})]
        self.headers = {
            "user": token(parts, self.user_id, DEFAULT),
            "delegate": token(
                parts,
                add_client(parts, "delegate", DELEGATED, [GrantSpec("team-a-*", actions=ADMINISTRATION)]),
                DELEGATED,
            ),
            "of one version": token(parts, add_client(parts, "of-one-version", DELEGATED, one), DELEGATED),
            "admin": {"authorization": f"Bearer {self.target.token}"},
        }
        self.job = queue_job(parts, self.other_id, "team-b-net")

    def send(self, who: str, method: str, path: str, body: object = None, **headers: str) -> Answer:
        sent = [(name.encode(), value.encode()) for name, value in (self.headers[who] | headers).items()]
        sent += [(b"X-Request-ID", b"the-same-each-time")]
        raw = b"" if body is None else json.dumps(body).encode()
        return self.target.send(method, path, [*sent, JSON] if raw else sent, raw)


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attacked]:
    with target(tmp_path_factory.mktemp("attacked")) as made:
        yield Attacked(made)


def seen(on: Attacked, who: str, method: str, path: str, body: object = None) -> tuple[object, ...]:
    """All that an answer says, and what it cost the database: what a clock would tell, without the noise of one."""
    with on.target.unchanged(), on.target.asked() as statements:
        answer = on.send(who, method, path, body)
    headers = {name: value for name, value in answer.headers.items() if name != "date"}
    return answer.status, headers, answer.body, statements


JOB_ACTS = [("GET", ""), ("GET", "?wait=0.01"), ("GET", "/result"), ("POST", "/cancel"), ("DELETE", "")]


@pytest.mark.parametrize(("method", "behind"), JOB_ACTS, ids=[f"A70 {method} {behind}" for method, behind in JOB_ACTS])
def test_another_clients_job_is_as_absent_as_one_that_never_was(attacked: Attacked, method: str, behind: str):
    answers = [
        seen(attacked, "user", method, f"/v1/jobs/{job}{behind}")
        for job in (attacked.job, attacked.job[:-1] + ("a" if attacked.job[-1] != "a" else "b"))
    ]
    texts = [str(answer[2]).replace(attacked.job[:-1], "") for answer in answers]
    assert answers[0][:2] + answers[0][3:] == answers[1][:2] + answers[1][3:]
    assert (answers[0][0], texts[0]) == (404, texts[1])


HIDDEN = [
    ("A71", "user", "GET", "/v1/models/{model}", None),
    ("A71", "user", "GET", "/v1/models/{model}/metadata", None),
    ("A71", "user", "GET", "/v1/models/{model}/labels/stable", None),
    ("A71", "user", "POST", "/v1/models/{model}:predict", ROWS),
    ("A71", "user", "POST", "/v1/models/{model}:submit", ROWS),
    ("A71", "user", "POST", "/v1/models/{model}/versions/1:predict", ROWS),
    ("A71", "user", "GET", "/v2/models/{model}/ready", None),
    ("A71", "user", "POST", "/v2/models/{model}/infer", {"inputs": []}),
    ("A73", "delegate", "GET", "/admin/models/{model}", None),
    ("A73", "delegate", "GET", "/admin/models/{model}/versions/1", None),
    ("A73", "delegate", "PUT", "/admin/models/{model}/versions", None),
    ("A73", "delegate", "POST", "/admin/models/{model}/versions/1/retire", None),
    ("A73", "delegate", "DELETE", "/admin/models/{model}/versions/1", None),
    ("A73", "delegate", "PUT", "/admin/models/{model}/labels/stable", {"version": 1}),
    ("A73", "delegate", "PUT", "/admin/models/{model}/labels/new", {"version": 1}),
    ("A73", "delegate", "DELETE", "/admin/models/{model}/labels/stable", None),
]  # fmt: skip


@pytest.mark.parametrize(
    ("id", "who", "method", "path", "body"), HIDDEN, ids=[f"{id} {method} {path}" for id, _, method, path, _ in HIDDEN]
)
def test_another_teams_model_is_as_absent_as_one_that_never_was(
    attacked: Attacked, id: str, who: str, method: str, path: str, body: object
):
    answers = [seen(attacked, who, method, path.format(model=model), body) for model in ("team-b-net", "team-b-not")]
    assert answers[0][:2] + answers[0][3:] == answers[1][:2] + answers[1][3:], id
    assert (answers[0][0], bytes(answers[0][2]).replace(b"team-b-net", b"team-b-not")) == (404, answers[1][2])  # type: ignore[call-overload] # a body


@pytest.mark.parametrize(
    "model",
    ["team-a-*", "*", "team-%3F-net", "team-[ab]-net", "TEAM-A-net", "team-a-net%00", "team-b-net%2f..%2fteam-a-net"],
    ids=lambda model: f"A73 {model}",
)
def test_a_name_is_no_pattern_and_another_spelling_is_another_name(attacked: Attacked, model: str):
    for method, path, body in (
        ("GET", f"/admin/models/{model}", None),
        ("PUT", f"/admin/models/{model}/labels/stable", {"version": 1}),
        ("POST", f"/admin/models/{model}/versions/1/retire", None),
    ):
        with attacked.target.unchanged():
            assert attacked.send("delegate", method, path, body).status in (400, 404, 422)


@pytest.mark.parametrize(
    "version", ["2.0", "%2B2", "0_2", "%202", "2%20", "%D9%A2", "2e0", "-2"], ids=lambda version: f"A77 {version}"
)
def test_a_version_spelt_otherwise_is_not_the_one_beside_the_granted_one(attacked: Attacked, version: str):
    assert attacked.send("of one version", "GET", "/admin/models/team-a-net/versions/1").status == 200
    for who, method, behind in (
        ("of one version", "GET", ""),
        ("of one version", "POST", "/retire"),
        ("delegate", "POST", "/retire"),
    ):
        with attacked.target.unchanged():
            answer = attacked.send(who, method, f"/admin/models/team-a-net/versions/{version}{behind}")
        assert answer.status in ((404,) if who == "of one version" else (404, 422)), answer.body


ADMINISTRATION_ROUTES = [
    ("GET", "/admin/clients", "clients:admin"),
    ("POST", "/admin/clients", "clients:admin"),
    ("POST", "/admin/clients/{id}/rotate", "clients:admin"),
    ("PUT", "/admin/clients/{id}/grants", "clients:admin"),
    ("PUT", "/admin/clients/{id}/limits", "clients:admin"),
    ("PUT", "/admin/clients/{id}/keys", "clients:admin"),
    ("PUT", "/admin/clients/{id}/identities", "clients:admin"),
    ("DELETE", "/admin/clients/{id}", "clients:admin"),
    ("POST", "/admin/people", "clients:admin"),
    ("POST", "/admin/keys/rotate", "clients:admin"),
    ("POST", "/admin/upload-keys", "clients:admin"),
    ("GET", "/admin/workers", "clients:admin"),
    ("GET", "/admin/audit", "audit:read"),
    ("POST", "/admin/models/team-a-net/versions/1/retire", "models:write"),
    ("PUT", "/admin/models/team-a-net/versions", "models:write"),
    ("DELETE", "/admin/models/team-a-net/labels/stable", "models:write"),
]


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    ADMINISTRATION_ROUTES,
    ids=[f"A72 {method} {path}" for method, path, _ in ADMINISTRATION_ROUTES],
)
def test_a_user_of_models_administers_nothing_not_even_what_is_its_own(
    attacked: Attacked, method: str, path: str, scope: str
):
    with attacked.target.unchanged():
        answer = attacked.send("user", method, path.format(id=attacked.user_id), {} if method != "GET" else None)
    assert (answer.status, answer.json()["code"]) == (403, "insufficient_scope")
    assert answer.challenge == f'Bearer realm="sluice", error="insufficient_scope", scope="{scope}"'


MORE = [
    ("POST", "/admin/clients", {"name": "x", "id": "cli_chosen"}),
    ("POST", "/admin/clients", {"name": "x", "role": "admin"}),
    ("POST", "/admin/clients", {"name": "x", "client_id": "cli_x", "client_secret": "sls_x"}),
    ("POST", "/admin/clients", {"name": "x", "disabled": False}),
    ("POST", "/admin/clients", {"name": "x", "tokens_not_before": 0}),
    ("POST", "/admin/clients", {"name": "x", "grants": [{"model": "m", "id": 1}]}),
    ("POST", "/admin/clients/{id}/rotate", {"client_secret": "sls_x"}),
    ("PUT", "/admin/clients/{id}/grants", {"grants": [{"model": "m", "client_id": "cli_x"}]}),
    ("PUT", "/admin/clients/{id}/grants", {"grants": [{"model": "m", "rule": "role admin"}]}),
    ("PUT", "/admin/clients/{id}/grants", {"grants": [], "scopes": ["clients:admin"]}),
    ("PUT", "/admin/clients/{id}/limits", {"client_id": "cli_x"}),
    ("POST", "/admin/people", {"name": "x", "role": "reader", "password_hash": "x"}),
    ("POST", "/admin/people", {"name": "x", "role": "reader", "second_factor": None}),
    ("PUT", "/admin/models/team-a-net/labels/stable", {"version": 1, "model": "team-b-net"}),
    ("POST", "/admin/keys/rotate", {"kid": "x", "private": "x"}),
]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    MORE,
    ids=[f"A74 {path} {list(body)[-1]} {number}" for number, (_, path, body) in enumerate(MORE)],
)
def test_a_body_may_not_say_more_than_it_is_asked(attacked: Attacked, method: str, path: str, body: dict[str, object]):
    with attacked.target.unchanged():
        answer = attacked.send("admin", method, path.format(id=attacked.other_id), body)
    assert (answer.status, answer.json()["code"]) == (422, "request_invalid")
    assert "xtra" in answer.json()["detail"]


@pytest.mark.parametrize(
    "header",
    [
        ("X-HTTP-Method-Override", "DELETE"), ("X-HTTP-Method", "DELETE"), ("X-Method-Override", "DELETE"),
        ("X-Original-URL", "/admin/clients"), ("X-Rewrite-URL", "/admin/clients"), ("X-Forwarded-User", "admin"),
        ("X-Remote-User", "admin"), ("X-Forwarded-Prefix", "/admin"), ("X-Client-Cert", "admin"),
    ],
    ids=lambda header: f"A75 {header[0]}",
)  # fmt: skip
def test_headers_that_others_obey_change_neither_method_nor_address_nor_caller(
    attacked: Attacked, header: tuple[str, str]
):
    name, value = header
    with attacked.target.unchanged():
        assert attacked.send("user", "GET", "/v1/models/team-a-net", **{name: value}).status == 200
        assert attacked.send("user", "GET", "/admin/clients", **{name: value}).status == 403
        assert attacked.send("admin", "GET", f"/admin/clients/{attacked.other_id}", **{name: value}).status == 200
        assert attacked.target.send("GET", "/admin/clients", [(name.encode(), value.encode())]).status == 401


@pytest.mark.parametrize("method", ["TRACE", "PATCH", "PROPFIND", "get", "Delete"], ids=lambda method: f"A75 {method}")
def test_another_verb_is_no_way_around(attacked: Attacked, method: str):
    with attacked.target.unchanged():
        answer = attacked.send("user", method, f"/admin/clients/{attacked.other_id}")
    assert answer.status in (400, 403, 404, 405, 501)


@pytest.mark.parametrize(
    "host",
    [b"a?b", b"/", b"@evil.example", b"localhost/health/live?", b"localhost#", b"a b", b"localhost/admin/clients", b""],
    ids=lambda host: f"A76 {host!r}",
)
def test_the_host_of_a_request_decides_nothing(attacked: Attacked, host: bytes):
    authorization = attacked.headers["user"]["authorization"].encode()
    line = b"GET /admin/clients HTTP/1.1\r\nHost: " + host + b"\r\nConnection: close\r\n"
    for sent, statuses in ((b"Authorization: " + authorization + b"\r\n", (400, 403)), (b"", (400, 401))):
        answer = attacked.target.send_raw(line + sent + b"\r\n")
        assert answer.status in statuses
        assert b"evil" not in answer.body + str(answer.headers).encode()


@pytest.mark.parametrize(
    "path",
    [
        "//admin/clients", "/admin//clients", "/./admin/clients", "/admin/./clients",
        "/health/live/../../admin/clients",
        "/admin%2fclients", "/admin/clients%2f", "/health/live;/../../admin/clients", "/admin;x/clients",
        "/admin/clients;x", "/admin/clients.", "/Admin/clients", "/admin/clients%00", "/%2e%2e/admin/clients",
        "/v1/models/team-a-net/../../../admin/clients", "/admin\\clients", "/oauth/token/../../admin/clients",
    ],
    ids=lambda path: f"A77 {path}",
)  # fmt: skip
def test_another_spelling_of_an_address_is_no_way_to_it(attacked: Attacked, path: str):
    for who in ("user", "admin"):
        with attacked.target.unchanged():
            answer = attacked.send(who, "GET", path)
        assert answer.status in (400, 404), (who, answer.body)
        assert b"cli_" not in answer.body


@pytest.mark.parametrize(
    ("what", "end"),
    [("disabled", lambda session, id: clients.set_disabled(session, id, True)), ("deleted", clients.delete)],
    ids=["A78 disabled", "A78 deleted"],
)
def test_a_queued_job_of_a_client_that_may_not_any_more_is_canceled_when_a_worker_comes_for_it(
    attacked: Attacked, what: str, end: object
):
    parts = attacked.target.parts
    victim = add_client(parts, f"to-be-{what}", DEFAULT, [GrantSpec("team-a-net")])
    job_id = queue_job(parts, victim, "team-a-net")
    with transaction(parts.sessions) as session:
        end(session, victim)  # type: ignore[operator] # one of the two above
    with transaction(parts.sessions) as session:
        number = session.query(Job.number).filter_by(id=job_id).scalar()
        assert jobs.claim(session, [number], ("team-a-net", 1), "default:w", Standing()) == []
    with transaction(parts.sessions, write=False) as session:
        job = session.query(Job).filter_by(id=job_id).one()
        assert (job.state, job.error_code) == ("canceled", f"client_{what}")
