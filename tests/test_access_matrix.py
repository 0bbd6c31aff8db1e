"""Every route of the interface, asked by everybody: who gets in, and how the others are refused."""

from __future__ import annotations

import re
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
from tests.access_table import CREDENTIALS, OPEN, SESSION, TABLE
from tests.quiet_gateway import QuietGateway, quiet_gateway
from tests.rights_kit import add_client, queue_job, serve, token

MODEL = "team-a-net"
ALL = frozenset(Scope)


@dataclass(frozen=True)
class Caller:
    """Somebody who asks; `header` makes the Authorization header for a route that needs these scopes."""

    header: Callable[[frozenset[Scope]], dict[str, str]]
    known: bool = True
    scopes: frozenset[Scope] = frozenset()
    actions: frozenset[Action] = frozenset()
    owns_job: bool = False


# Told only to who may look at the model: it has none.
OF_A_MODEL_THAT_IS_SEEN = frozenset({"shadow_not_found", "canary_not_found", "samples_not_found", "import_not_found"})
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
        "{repo}": "x",
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
        "operator": official(Role.OPERATOR, ADMINISTRATION | USE),
        "auditor": official(Role.AUDITOR, frozenset({Action.METADATA})),
        "delegate": client("delegate", write, [GrantSpec("team-a-*", actions=ADMINISTRATION)], ADMINISTRATION),
        "delegate of others": client("stranger", write, [GrantSpec("team-b-*", actions=ADMINISTRATION)], none),
        "admin": official(Role.ADMIN, ADMINISTRATION | USE),
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
            400 if re.match("POST (/v[12])?/models/{model}/labels/", route) and caller.actions else 404
        )
    if answer.status_code == 404 and answer.json().get("code") in OF_A_MODEL_THAT_IS_SEEN:
        return let_in
    return let_in and answer.status_code not in ({401, 403, 404, 405} if about else {401, 403, 405})


def person(gateway: QuietGateway, name: str, role: Role) -> str:
    with transaction(gateway.parts.sessions) as session:
        made = people.create(session, f"person-{name}", role=role)
    gateway.parts.snapshot.refresh()
    return made.id
