"""Permission before existence: what is hidden is answered as what is absent, byte for byte, question for question."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from sqlalchemy import event

from auth.grants import ADMINISTRATION, USE, Action, GrantSpec
from auth.scopes import Scope
from tests.quiet_gateway import QuietGateway, quiet_gateway
from tests.rights_kit import add_client, queue_job, serve, token

EVERY_SCOPE = frozenset(Scope) - {Scope.CLIENTS_ADMIN}
JOB = "j" * 24
ROWS = {"instances": [[1.0, 2.0]]}
EXAMPLES = {"examples": [{"x": [1.0, 2.0]}]}
TENSORS = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1.0, 2.0]}]}

# Of a model; then of one that the caller knows, a version and a label of it; then a job.
MODEL = [
    ("GET", "/v1/models/ghost", None), ("GET", "/v1/models/ghost/metadata", None),
    ("GET", "/v1/models/ghost/versions/1", None), ("GET", "/v1/models/ghost/versions/1/metadata", None),
    ("GET", "/v1/models/ghost/labels/stable", None), ("GET", "/v1/models/ghost/labels/stable/metadata", None),
    ("POST", "/v1/models/ghost:predict", ROWS), ("POST", "/v1/models/ghost:submit", ROWS),
    ("POST", "/v1/models/ghost/versions/1:predict", ROWS), ("POST", "/v1/models/ghost/labels/stable:predict", ROWS),
    ("POST", "/v1/models/ghost/versions/1:submit", ROWS), ("POST", "/v1/models/ghost/labels/stable:submit", ROWS),
    ("POST", "/v1/models/ghost:classify", EXAMPLES), ("POST", "/v1/models/ghost/versions/1:regress", EXAMPLES),
    ("POST", "/v1/models/ghost:explain", ROWS), ("POST", "/v1/models/ghost/labels/stable:explain", ROWS),
    ("POST", "/v1/models/ghost:predict?validate_only=true", ROWS), ("GET", "/v1/models/ghost/openapi.json", None),
    ("POST", "/v1/models/ghost:explain?validate_only=true", []), ("GET", "/admin/models/ghost/openapi.json", None),
    ("GET", "/v1/models/ghost/versions/1/openapi.json", None),
    ("GET", "/v1/models/ghost/labels/stable/openapi.json", None),
    ("GET", "/v2/models/ghost", None), ("GET", "/v2/models/ghost/ready", None),
    ("GET", "/v2/models/ghost/versions/1", None), ("GET", "/v2/models/ghost/versions/1/ready", None),
    ("POST", "/v2/models/ghost/infer", TENSORS), ("POST", "/v2/models/ghost/versions/1/infer", TENSORS),
    ("POST", "/v2/models/ghost/labels/stable/infer", TENSORS),
    ("GET", "/v2/models/ghost/stats", None), ("GET", "/v2/models/ghost/versions/1/stats", None),
    ("GET", "/v2/models/ghost/config", None), ("GET", "/v2/models/ghost/versions/1/config", None),
    ("POST", "/v2/repository/models/ghost/load", None), ("POST", "/v2/repository/any/models/ghost/unload", None),
    ("GET", "/models/ghost/ping", None), ("GET", "/models/ghost/versions/1/version", None),
    ("GET", "/models/ghost/labels/stable/health", None), ("POST", "/endpoints/ghost/invocations", ROWS),
    ("POST", "/models/ghost/invocations", ROWS), ("POST", "/models/ghost/versions/1/invocations", ROWS),
    ("POST", "/models/ghost/labels/stable/invocations", ROWS),
    ("GET", "/admin/models/ghost", None), ("GET", "/admin/models/ghost/versions/1", None),
    ("PUT", "/admin/models/ghost/versions", None), ("POST", "/admin/models/ghost/versions", None),
    ("POST", "/admin/models/ghost/versions/1/retire", None), ("DELETE", "/admin/models/ghost/versions/1", None),
    ("PUT", "/admin/models/ghost/labels/stable", {"version": 1}), ("DELETE", "/admin/models/ghost/labels/stable", None),
]  # fmt: skip
VERSION = [
    ("GET", "/v1/models/known/versions/2", None), ("GET", "/v1/models/known/versions/2/metadata", None),
    ("POST", "/v1/models/known/versions/2:predict", ROWS), ("POST", "/v1/models/known/versions/2:submit", ROWS),
    ("POST", "/v1/models/known/versions/2:classify", EXAMPLES),
    ("POST", "/v1/models/known/versions/2:explain", ROWS), ("GET", "/v1/models/known/versions/2/openapi.json", None),
    ("POST", "/v1/models/known/versions/2:predict?validate_only=true", ROWS),
    ("GET", "/v2/models/known/versions/2", None), ("GET", "/v2/models/known/versions/2/ready", None),
    ("GET", "/v2/models/known/versions/2/stats", None), ("GET", "/v2/models/known/versions/2/config", None),
    ("GET", "/models/known/versions/2/ping", None), ("POST", "/models/known/versions/2/invocations", ROWS),
    ("POST", "/v2/models/known/versions/2/infer", TENSORS), ("GET", "/admin/models/known/versions/2", None),
    ("POST", "/admin/models/known/versions/2/retire", None), ("DELETE", "/admin/models/known/versions/2", None),
]  # fmt: skip
LABEL = [
    ("GET", "/v1/models/known/labels/canary", None), ("GET", "/v1/models/known/labels/canary/metadata", None),
    ("POST", "/v1/models/known/labels/canary:predict", ROWS), ("POST", "/v1/models/known/labels/canary:submit", ROWS),
    ("POST", "/v1/models/known/labels/canary:classify", EXAMPLES),
    ("POST", "/v1/models/known/labels/canary:explain", ROWS),
    ("GET", "/v1/models/known/labels/canary/openapi.json", None),
    ("POST", "/v1/models/known/labels/canary:predict?validate_only=true", ROWS),
    ("POST", "/v2/models/known/labels/canary/infer", TENSORS),
    ("GET", "/models/known/labels/canary/ping", None), ("POST", "/models/known/labels/canary/invocations", ROWS),
    ("PUT", "/admin/models/known/labels/canary", {"version": 1}), ("DELETE", "/admin/models/known/labels/canary", None),
]  # fmt: skip
LISTS = [("GET", "/v1/models", None), ("GET", "/admin/models", None), ("GET", "/v1/models/known", None),
         ("GET", "/admin/models/known", None), ("GET", "/v1/jobs", None), ("GET", "/v2/models", None),
         ("GET", "/v2/models/stats", None), ("GET", "/v2/models/known/stats", None),
         ("POST", "/v2/repository/index", None), ("POST", "/v2/repository/models/known/unload", None),
         ("POST", "/v2/repository/models/known/load", None)]  # fmt: skip
JOBS = [
    ("GET", f"/v1/jobs/{JOB}", None), ("GET", f"/v1/jobs/{JOB}/result", None), ("DELETE", f"/v1/jobs/{JOB}", None),
    ("POST", f"/v1/jobs/{JOB}/cancel", None), ("GET", f"/v1/jobs/{JOB}?wait=0.01", None),
]  # fmt: skip


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[QuietGateway]:
    # An explanation is waited for as long as a prediction, and no worker is there.
    with quiet_gateway(tmp_path, synchronous_seconds=1) as running:
        # It looks for changes by itself, which is not to be counted as part of an answer.
        running.parts.snapshot.close()
        yield running


def test_the_hidden_and_the_absent_are_answered_alike(gateway: QuietGateway):
    parts = gateway.parts
    serve(parts, "known")
    held = [GrantSpec("known", version=1, actions=USE | {Action.RETIRE})]
    caller = token(parts, add_client(parts, "caller", EVERY_SCOPE, held), EVERY_SCOPE)
    asked = MODEL + VERSION + LABEL + LISTS + JOBS
    absent = [answer(gateway, caller, *question) for question in asked]

    serve(parts, "ghost", labels=["stable"])
    serve(parts, "known", labels=["canary"])
    queue_job(parts, add_client(parts, "other", EVERY_SCOPE), "known", JOB)
    hidden = [answer(gateway, caller, *question) for question in asked]
    # What is asked for is there, for somebody who may see it.
    chief = token(parts, add_client(parts, "chief", Scope), Scope)
    for path in ("/admin/models/ghost/versions/1", "/v1/models/known/labels/canary", "/v2/models/known/versions/2"):
        assert gateway.http.get(path, headers=chief).status_code == 200

    for question, before, after in zip(asked, absent, hidden, strict=True):
        assert before == after, question
        assert question in LISTS or before[0] in (400, 404), question


def test_what_a_grant_covers_is_found(gateway: QuietGateway):
    """Or else the comparison above would compare refusals of something else."""
    parts = gateway.parts
    serve(parts, "known", versions=2, labels=["canary"])
    held = [GrantSpec("known", actions=USE | ADMINISTRATION)]
    caller = token(parts, add_client(parts, "caller", EVERY_SCOPE, held), EVERY_SCOPE)
    for method, path, body in VERSION + LABEL:
        found = gateway.http.request(method, path, json=body, headers=caller)
        assert found.status_code in (200, 202, 204, 409, 503), (method, path, found.text)


def answer(gateway: QuietGateway, caller: dict[str, str], method: str, path: str, body: object) -> tuple[object, ...]:
    """Status, headers and body of an answer, and how many statements the database was asked."""
    asked: list[str] = []

    def count(*arguments: object) -> None:
        asked.append(str(arguments[2]))

    event.listen(gateway.parts.engine, "before_cursor_execute", count)
    try:
        got: httpx.Response = gateway.http.request(
            method, path, json=body, headers={**caller, "x-request-id": "the-same-each-time"}
        )
    finally:
        event.remove(gateway.parts.engine, "before_cursor_execute", count)
    headers = [(name, value) for name, value in got.headers.raw if name.lower() != b"date"]
    # The moments of jobs in lists are not compared: there are none.
    return got.status_code, headers, got.content, [statement for statement in asked if "audit" not in statement]
