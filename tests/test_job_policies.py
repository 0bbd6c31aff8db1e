"""Job policies: set for a model by who may retire it, and kept by every gateway from memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from auth.audit_tables import AuditEntry
from auth.grants import Action, GrantSpec, set_grants
from auth.scopes import Scope
from model_store.database import transaction
from tests.quiet_gateway import QuietGateway, bearer
from tests.submit_kit import MODEL, caller, jobs_of, submit, submitting

POLICY = f"/admin/models/{MODEL}/jobs-policy"
NONE = {"deadline_seconds": None, "max_attempts": None, "queue_seconds": None}


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[QuietGateway]:
    with submitting(tmp_path) as made:
        yield made


def administrator(gateway: QuietGateway, *actions: Action) -> dict[str, str]:
    client_id, secret = gateway.client("operator", [Scope.MODELS_READ, Scope.MODELS_WRITE])
    with transaction(gateway.parts.sessions) as session:
        set_grants(session, client_id, [GrantSpec(MODEL, actions=frozenset(actions))])
    gateway.parts.snapshot.refresh()
    return bearer(gateway.token(client_id, secret))


def test_a_policy_is_set_shown_kept_and_removed(gateway: QuietGateway):
    # given a policy
    admin, headers = administrator(gateway, Action.METADATA, Action.RETIRE), caller(gateway)
    assert gateway.http.get(POLICY, headers=admin).json() == NONE
    policy = {"deadline_seconds": 60.0, "max_attempts": 2, "queue_seconds": None}
    assert gateway.http.put(POLICY, headers=admin, json=policy).json() == policy
    assert gateway.http.get(POLICY, headers=admin).json() == policy
    # when jobs are submitted under it, and after it was removed
    gateway.parts.snapshot.refresh()
    submit(gateway.http, headers)
    submit(gateway.http, headers, sluice_deadline="3600", sluice_max_attempts="9")
    assert gateway.http.delete(POLICY, headers=admin).status_code == 204
    gateway.parts.snapshot.refresh()
    submit(gateway.http, headers)
    # then the policy bounds the first two
    kept = [((job.deadline or 0) - job.created_at, job.max_attempts) for job in jobs_of(gateway.parts.sessions)]
    assert kept == [(60_000, 2), (60_000, 2), (86_400_000, 3)]


def test_setting_a_policy_is_in_the_audit_log(gateway: QuietGateway):
    admin = administrator(gateway, Action.RETIRE)
    gateway.http.put(POLICY, headers=admin, json={"max_attempts": 1})
    with transaction(gateway.parts.sessions, write=False) as session:
        rows = session.scalars(select(AuditEntry).where(AuditEntry.act.contains("polic"))).all()
        assert [(row.model, row.outcome) for row in rows] == [(MODEL, "done")]


@pytest.mark.parametrize(
    "body",
    [{"max_attempts": 0}, {"max_attempts": 11}, {"deadline_seconds": 0}, {"queue_seconds": -1}, {"priority": "bulk"}],
    ids=lambda body: "-".join(body),
)
def test_what_is_no_policy_is_refused(gateway: QuietGateway, body: dict[str, object]):
    admin = administrator(gateway, Action.RETIRE)
    assert gateway.http.put(POLICY, headers=admin, json=body).status_code == 422
    assert gateway.http.get("/admin/models/nosuch/jobs-policy", headers=admin).status_code == 404
