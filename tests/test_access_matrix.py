"""Every route of the interface, asked by everybody: who gets in, and how the others are refused.

What a route needs is spelt out here once more, on purpose: a route that is not in the table, or that asks for less than
the table says, fails.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import httpx
import pytest

from auth import clients, people
from auth.grants import ADMINISTRATION, USE, Action, GrantSpec
from auth.roles import Role, scopes_of
from auth.scopes import DEFAULT, Scope
from gateway.openapi import operations
from model_store.database import transaction
from tests.quiet_gateway import QuietGateway, quiet_gateway
from tests.rights_kit import add_client, queue_job, serve, token

MODEL = "team-a-net"
ALL = frozenset(Scope)


@dataclass(frozen=True)
class Needs:
    """Any of the scopes, and a grant with the action for the model of the path, or that the path's job is one's own."""

    scopes: frozenset[Scope]
    action: Action | None = None
    own_job: bool = False


@dataclass(frozen=True)
class Caller:
    """Somebody who asks; `header` makes the Authorization header for a route that needs these scopes."""

    header: Callable[[frozenset[Scope]], dict[str, str]]
    known: bool = True
    scopes: frozenset[Scope] = frozenset()
    actions: frozenset[Action] = frozenset()
    owns_job: bool = False


def needs(*scopes: Scope, action: Action | None = None, own_job: bool = False) -> Needs:
    return Needs(frozenset(scopes), action, own_job)


# No token at all; or a client's own credentials, which are not those of a token; or a person's session.
OPEN, CREDENTIALS, SESSION = needs(), needs(), needs()
READ = needs(Scope.MODELS_READ, Scope.PREDICT)
METADATA = needs(Scope.MODELS_READ, Scope.PREDICT, action=Action.METADATA)
PREDICT = needs(Scope.PREDICT, action=Action.PREDICT)
SUBMIT = needs(Scope.PREDICT, action=Action.SUBMIT)
JOBS = needs(Scope.JOBS, Scope.PREDICT)
NEW = needs(Scope.PREDICT)
WEBHOOKS = needs(Scope.JOBS)
JOB = needs(Scope.JOBS, Scope.PREDICT, own_job=True)
MODELS = needs(Scope.MODELS_READ, Scope.MODELS_WRITE)
VIEW = needs(Scope.MODELS_READ, Scope.MODELS_WRITE, action=Action.METADATA)
UPLOAD = needs(Scope.MODELS_WRITE, action=Action.UPLOAD)
LABEL = needs(Scope.MODELS_WRITE, action=Action.LABEL)
RETIRE = needs(Scope.MODELS_WRITE, action=Action.RETIRE)
CLIENTS = needs(Scope.CLIENTS_ADMIN)
ALL_JOBS = needs(Scope.JOBS_ADMIN)
CONTENTS = needs(Scope.JOBS_CONTENTS)
REPLAY = needs(Scope.PREDICT, own_job=True)
AUDIT = needs(Scope.AUDIT_READ)
METRICS = needs(Scope.METRICS_READ)

TABLE = {
    "GET /": OPEN,
    "GET /health/live": OPEN,
    "GET /health/ready": OPEN,
    "GET /metrics": METRICS,
    "GET /.well-known/jwks.json": OPEN,
    "GET /.well-known/oauth-authorization-server": OPEN,
    "POST /oauth/token": OPEN,
    "POST /oauth/revoke": CREDENTIALS,
    "POST /oauth/introspect": CREDENTIALS,
    "GET /v1/models": READ,
    "GET /v1/models/{model}": METADATA,
    "GET /v1/models/{model}/metadata": METADATA,
    "GET /v1/models/{model}/versions/{version}": METADATA,
    "GET /v1/models/{model}/versions/{version}/metadata": METADATA,
    "GET /v1/models/{model}/labels/{label}": METADATA,
    "GET /v1/models/{model}/labels/{label}/metadata": METADATA,
    "POST /v1/models/{model}:predict": PREDICT,
    "POST /v1/models/{model}:submit": SUBMIT,
    "POST /v1/models/{model}:batch": SUBMIT,
    "POST /v1/models/{model}/versions/{version}:batch": SUBMIT,
    "POST /v1/models/{model}/labels/{label}:batch": SUBMIT,
    "POST /v1/models/{model}/versions/{version}:predict": PREDICT,
    "POST /v1/models/{model}/versions/{version}:submit": SUBMIT,
    "POST /v1/models/{model}/labels/{label}:predict": PREDICT,
    "POST /v1/models/{model}/labels/{label}:submit": SUBMIT,
    "GET /v1/files": JOBS,
    "POST /v1/files": NEW,
    "GET /v1/files/{file_id}": JOBS,
    "GET /v1/files/{file_id}/content": JOBS,
    "DELETE /v1/files/{file_id}": JOBS,
    "GET /v1/batches": JOBS,
    "POST /v1/batches": NEW,
    "GET /v1/batches/{batch_id}": JOBS,
    "POST /v1/batches/{batch_id}/cancel": JOBS,
    "GET /v1/webhooks": WEBHOOKS,
    "POST /v1/webhooks": WEBHOOKS,
    "GET /v1/webhooks/secret": WEBHOOKS,
    "POST /v1/webhooks/secret": WEBHOOKS,
    "GET /v1/webhooks/{webhook_id}": WEBHOOKS,
    "PATCH /v1/webhooks/{webhook_id}": WEBHOOKS,
    "DELETE /v1/webhooks/{webhook_id}": WEBHOOKS,
    "POST /v1/webhooks/{webhook_id}/rotate-secret": WEBHOOKS,
    "POST /v1/webhooks/{webhook_id}/test": WEBHOOKS,
    "GET /v1/webhooks/deliveries": WEBHOOKS,
    "GET /v1/webhooks/deliveries/{delivery_id}": WEBHOOKS,
    "POST /v1/webhooks/deliveries/{delivery_id}/replay": WEBHOOKS,
    "GET /admin/clients/{client_id}/webhooks": CLIENTS,
    "PATCH /admin/clients/{client_id}/webhooks/{webhook_id}": CLIENTS,
    "GET /v2": READ,
    "GET /v2/health/live": OPEN,
    "GET /v2/health/ready": OPEN,
    "GET /v2/models/{model}": METADATA,
    "GET /v2/models/{model}/ready": METADATA,
    "GET /v2/models/{model}/versions/{version}": METADATA,
    "GET /v2/models/{model}/versions/{version}/ready": METADATA,
    "POST /v2/models/{model}/infer": PREDICT,
    "POST /v2/models/{model}/versions/{version}/infer": PREDICT,
    "GET /v1/jobs": JOBS,
    "GET /v1/jobs/{job_id}": JOB,
    "GET /v1/jobs/{job_id}/result": JOB,
    "GET /v1/jobs/{job_id}/events": JOB,
    "GET /v1/events": JOBS,
    "POST /v1/jobs/{job_id}/cancel": JOB,
    "DELETE /v1/jobs/{job_id}": JOB,
    "DELETE /v1/jobs": JOBS,
    "GET /v1/jobs/{job_id}/receipt": JOB,
    "POST /v1/jobs/{job_id}/replay": REPLAY,
    "GET /v1/results/{token}": OPEN,
    "GET /.well-known/receipt-keys.json": OPEN,
    "GET /admin/jobs": ALL_JOBS,
    "GET /admin/jobs/{job_id}": ALL_JOBS,
    "POST /admin/jobs/{job_id}/cancel": ALL_JOBS,
    "DELETE /admin/jobs/{job_id}": ALL_JOBS,
    "GET /admin/jobs/{job_id}/input": CONTENTS,
    "GET /admin/jobs/{job_id}/result": CONTENTS,
    "DELETE /admin/clients/{client_id}/jobs": ALL_JOBS,
    "GET /admin/dead-letters": ALL_JOBS,
    "GET /admin/dead-letters/{job_id}": ALL_JOBS,
    "POST /admin/dead-letters/replay": ALL_JOBS,
    "POST /admin/dead-letters/purge": ALL_JOBS,
    "POST /admin/dead-letters/{job_id}/replay": ALL_JOBS,
    "POST /admin/dead-letters/{job_id}/purge": ALL_JOBS,
    "GET /admin/models": MODELS,
    "GET /admin/models/{model}": VIEW,
    "GET /admin/models/{model}/versions/{version}": VIEW,
    "GET /admin/models/{model}/jobs-policy": VIEW,
    "PUT /admin/models/{model}/jobs-policy": RETIRE,
    "DELETE /admin/models/{model}/jobs-policy": RETIRE,
    "PUT /admin/models/{model}/versions": UPLOAD,
    "POST /admin/models/{model}/versions": UPLOAD,
    "POST /admin/models/{model}/versions/{version}/retire": RETIRE,
    "DELETE /admin/models/{model}/versions/{version}": RETIRE,
    "PUT /admin/models/{model}/labels/{label}": LABEL,
    "DELETE /admin/models/{model}/labels/{label}": LABEL,
    "GET /admin/clients": CLIENTS,
    "POST /admin/clients": CLIENTS,
    "GET /admin/clients/{client_id}": CLIENTS,
    "DELETE /admin/clients/{client_id}": CLIENTS,
    "POST /admin/clients/{client_id}/rotate": CLIENTS,
    "POST /admin/clients/{client_id}/disable": CLIENTS,
    "POST /admin/clients/{client_id}/enable": CLIENTS,
    "GET /admin/clients/{client_id}/grants": CLIENTS,
    "PUT /admin/clients/{client_id}/grants": CLIENTS,
    "GET /admin/clients/{client_id}/access": CLIENTS,
    "GET /admin/clients/{client_id}/limits": CLIENTS,
    "PUT /admin/clients/{client_id}/limits": CLIENTS,
    "GET /admin/clients/{client_id}/keys": CLIENTS,
    "PUT /admin/clients/{client_id}/keys": CLIENTS,
    "GET /admin/clients/{client_id}/identities": CLIENTS,
    "PUT /admin/clients/{client_id}/identities": CLIENTS,
    "GET /admin/people": CLIENTS,
    "POST /admin/people": CLIENTS,
    "GET /admin/people/{person_id}": CLIENTS,
    "PUT /admin/people/{person_id}": CLIENTS,
    "DELETE /admin/people/{person_id}": CLIENTS,
    "POST /admin/people/{person_id}/password-token": CLIENTS,
    "DELETE /admin/people/{person_id}/second-factor": CLIENTS,
    "GET /admin/people/{person_id}/sessions": CLIENTS,
    "DELETE /admin/people/{person_id}/sessions": CLIENTS,
    "GET /admin/session": SESSION,
    "POST /admin/session": OPEN,
    "DELETE /admin/session": SESSION,
    "GET /admin/sessions": SESSION,
    "DELETE /admin/sessions/{session_id}": SESSION,
    "PUT /admin/session/password": SESSION,
    "POST /admin/session/tokens": SESSION,
    "PUT /admin/session/second-factor": SESSION,
    "POST /admin/session/second-factor": SESSION,
    "POST /admin/session/second-factor/remove": SESSION,
    "POST /admin/setup": OPEN,
    "POST /admin/password": OPEN,
    "GET /admin/keys": CLIENTS,
    "POST /admin/keys/rotate": CLIENTS,
    "DELETE /admin/keys/{kid}": CLIENTS,
    "GET /admin/upload-keys": CLIENTS,
    "POST /admin/upload-keys": CLIENTS,
    "DELETE /admin/upload-keys/{key_id}": CLIENTS,
    "GET /admin/workers": CLIENTS,
    "GET /admin/audit": AUDIT,
}
# What takes away what the others ask for comes last.
ORDER = sorted(TABLE, key=lambda route: route.startswith("DELETE"))

WHO = (
    "nobody", "expired", "wrong audience", "disabled client", "no scope", "no grant", "other client", "user",
    "operator", "auditor", "delegate", "delegate of others", "admin", "admin client",
)  # fmt: skip


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QuietGateway]:
    with quiet_gateway(tmp_path_factory.mktemp("gateway")) as running:
        serve(running.parts, MODEL, labels=["stable", *(who.replace(" ", "-") for who in WHO)])
        serve(running.parts, "team-b-net")
        yield running


@pytest.fixture(scope="module")
def places(gateway: QuietGateway) -> dict[str, str]:
    """What stands in paths; the clients and people there are nobody's who asks."""
    return {
        "{model}": MODEL,
        "{version}": "1",
        "{client_id}": add_client(gateway.parts, "victim", DEFAULT),
        "{person_id}": person(gateway, "victim", Role.READER),
        "{session_id}": "ses_x",
        "{kid}": "x",
        "{file_id}": "x",
        "{batch_id}": "x",
        "{key_id}": "x",
        "{webhook_id}": "x",
        "{delivery_id}": "msg_x",
    }


@pytest.fixture(scope="module")
def callers(gateway: QuietGateway, places: dict[str, str]) -> dict[str, Caller]:
    parts = gateway.parts
    every = [GrantSpec("*", actions=frozenset(Action))]

    def client(name: str, scopes: frozenset[Scope], grants: list[GrantSpec], actions: frozenset[Action]) -> Caller:
        header = token(parts, add_client(parts, name, scopes, grants), scopes)
        return Caller(lambda _: header, scopes=scopes, actions=actions)

    def official(role: Role, actions: frozenset[Action]) -> Caller:
        header = token(parts, person(gateway, role, role), scopes_of(role))
        return Caller(lambda _: header, scopes=scopes_of(role), actions=actions)

    good = add_client(parts, "good", ALL, every)
    disabled = add_client(parts, "disabled", ALL, every)
    with transaction(parts.sessions) as session:
        clients.set_disabled(session, disabled, True)
    parts.snapshot.refresh()
    late, elsewhere = token(parts, good, ALL, age_seconds=86_400), token(parts, good, ALL, audience="elsewhere")
    gone = token(parts, disabled, ALL)
    write, none = frozenset({Scope.MODELS_READ, Scope.MODELS_WRITE}), frozenset[Action]()
    user = add_client(parts, "user", DEFAULT, [GrantSpec(MODEL)])
    users = token(parts, user, DEFAULT)
    places["{user}"] = user
    return {
        "nobody": Caller(lambda _: {}, known=False),
        "expired": Caller(lambda _: late, known=False),
        "wrong audience": Caller(lambda _: elsewhere, known=False),
        "disabled client": Caller(lambda _: gone, known=False),
        # Its client may do everything: only the token is for something else.
        "no scope": Caller(lambda needed: token(parts, good, ALL - needed), actions=frozenset(Action)),
        "no grant": client("no-grant", ALL - {Scope.CLIENTS_ADMIN}, [], none),
        "other client": client("other", DEFAULT, [GrantSpec("team-b-net")], none),
        "user": Caller(lambda _: users, scopes=DEFAULT, actions=USE, owns_job=True),
        "operator": official(Role.OPERATOR, ADMINISTRATION),
        "auditor": official(Role.AUDITOR, frozenset({Action.METADATA})),
        "delegate": client("delegate", write, [GrantSpec("team-a-*", actions=ADMINISTRATION)], ADMINISTRATION),
        "delegate of others": client("stranger", write, [GrantSpec("team-b-*", actions=ADMINISTRATION)], none),
        "admin": official(Role.ADMIN, ADMINISTRATION),
        "admin client": client("admin", ALL, [], ADMINISTRATION),
    }


def test_every_route_of_the_interface_is_in_the_table(gateway: QuietGateway):
    described = gateway.http.get("/openapi.json").json()["paths"]
    assert {f"{method.upper()} {path}" for path, method, _ in operations(described)} == set(TABLE)


@pytest.mark.parametrize("who", WHO)
def test_who_may_gets_in_and_everybody_else_is_refused(
    gateway: QuietGateway, callers: dict[str, Caller], places: dict[str, str], who: str
):
    # Some of those who ask may delete it.
    job = queue_job(gateway.parts, places["{user}"], MODEL)
    here = places | {"{label}": who.replace(" ", "-"), "{job_id}": job}
    caller = callers[who]
    wrong = {}
    for route in ORDER:
        method, path = route.split(" ")
        for name, value in here.items():
            path = path.replace(name, value)
        headers = caller.header(TABLE[route].scopes)
        answer = beginning(gateway.http, method, path, headers)
        if not as_expected(route, caller, answer):
            wrong[route] = (answer.status_code, answer.text[:200])
    assert wrong == {}


def beginning(http: httpx.Client, method: str, path: str, headers: dict[str, str]) -> httpx.Response:
    """The answer, of a stream no more than its beginning: that goes on until its reader leaves."""
    request = http.build_request(method, path, headers=headers, json=None if method == "GET" else {})
    answer = http.send(request, stream=True)
    if answer.headers.get("content-type", "").startswith("text/event-stream"):
        next(answer.iter_bytes())
        answer.close()
    else:
        answer.read()
    return answer


def as_expected(route: str, caller: Caller, answer: httpx.Response) -> bool:
    needed = TABLE[route]
    # Without Redis, what is let in is answered 503 where it needs that.
    let_in = answer.status_code < 500 or answer.status_code == 503
    if needed is OPEN:
        return let_in
    if needed is CREDENTIALS:
        return answer.status_code in (400, 401)
    if needed is SESSION:
        # A token is no session, whoever's it is.
        return answer.status_code == 401
    if not caller.known:
        return answer.status_code == 401 and "www-authenticate" in answer.headers
    if not needed.scopes & caller.scopes:
        return answer.status_code == 403 and 'error="insufficient_scope"' in answer.headers["www-authenticate"]
    about = needed.action is not None or needed.own_job
    if (needed.action is not None and needed.action not in caller.actions) or (needed.own_job and not caller.owns_job):
        # A label that is none is a 400 of TensorFlow Serving's; that is for who knows the model by another action.
        return answer.status_code == (
            400 if route.startswith("POST /v1/models/{model}/labels/") and caller.actions else 404
        )
    return let_in and answer.status_code not in ({401, 403, 404, 405} if about else {401, 403, 405})


def person(gateway: QuietGateway, name: str, role: Role) -> str:
    with transaction(gateway.parts.sessions) as session:
        made = people.create(session, f"person-{name}", role=role)
    gateway.parts.snapshot.refresh()
    return made.id
