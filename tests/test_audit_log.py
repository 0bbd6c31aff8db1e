"""The audit log's thread: it writes, seals, signs, forwards and forgets, and requests never wait for it."""

from __future__ import annotations

import contextlib
import logging
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import delete, select, text, update

from auth.audit import Entry, Outcome, record, record_past
from auth.audit_chain import seal
from auth.audit_heads import read_heads
from auth.audit_retention import DAY_MS
from auth.audit_settings import AuditSettings
from auth.audit_tables import AuditChain, AuditEntry, AuditHead
from auth.audit_verification import Trust
from auth.grants import GrantSpec, set_grants
from auth.keys import HeldKey, KeyRing
from auth.scopes import Scope
from gateway.audit_log import AuditLog
from model_store import registry
from model_store.database import Sessions, transaction
from model_store.errors import DatabaseUnavailable
from monitoring.metrics import AUDIT_CHANGED
from tests.audit_kit import act, audit_database, new_key, sqlite_url, verified
from tests.live_gateway import LiveGateway, eventually
from tests.quiet_gateway import bearer, quiet_gateway

KEY = new_key()
TRUST = Trust(frozenset({KEY.public.kid}))
PROGRAM = """
import os, signal
from auth.audit import Entry, record
from model_store.database import connect, sessions_of, transaction
from model_store.settings import StoreSettings
with transaction(sessions_of(connect(StoreSettings()))) as session:
    record(session, Entry("put_label", request_id="of-the-dead"))
os.kill(os.getpid(), signal.SIGKILL)
"""


class Keys:
    """The keys of a gateway that has one."""

    ring = KeyRing([HeldKey(KEY.public, KEY.key)])


class NoKeys:
    """A gateway in the seconds after its keys were found to be compromised."""

    ring = KeyRing([])


@pytest.fixture
def sessions(tmp_path: Path) -> Iterator[Sessions]:
    yield from audit_database(sqlite_url(tmp_path))


@contextlib.contextmanager
def running(sessions: Sessions, name: str = "g1", **settings: object) -> Iterator[AuditLog]:
    log = AuditLog(sessions, Keys(), AuditSettings(**settings), name)
    log.start()
    try:
        yield log
    finally:
        log.close()


def count(sessions: Sessions) -> int:
    with transaction(sessions, write=False) as session:
        return len(session.scalars(select(AuditEntry.id)).all())


def test_what_is_added_is_written_sealed_and_at_the_end_signed(sessions: Sessions, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, logger="gateway.audit_signing")
    with running(sessions) as log:
        log.add(act(1))
        eventually(lambda: verified(sessions).end.number == 1)
        log.add(act(2))

    found = verified(sessions, TRUST)
    assert (found.faults, found.end.number, found.confirmed) == ([], 2, 2)
    # and the head stands in the log, from which it can be read back
    assert read_heads(caplog.messages[-1]) == (found.signed_by,)


def test_two_gateways_make_one_chain(sessions: Sessions):
    with running(sessions, "g1") as one, running(sessions, "g2") as other:
        for number in range(40):
            (one if number % 2 else other).add(act(number))
            with transaction(sessions) as session:
                record(session, act(number))

    found = verified(sessions, TRUST)
    written = count(sessions)
    assert (found.faults, found.unsealed, found.end.number) == ([], 0, written)
    # of the refusals, those of one gateway that are equal are joined
    assert written == 80


def test_what_a_killed_process_did_is_sealed_by_another(sessions: Sessions, tmp_path: Path):
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM], env={"SLUICE_DATABASE_URL": sqlite_url(tmp_path)}, check=False
    )
    assert ended.returncode == -signal.SIGKILL
    assert verified(sessions).unsealed == 1

    with running(sessions):
        eventually(lambda: verified(sessions).unsealed == 0)

    assert verified(sessions, TRUST).end.number == 1


def test_without_a_key_that_signs_the_chain_goes_on(sessions: Sessions):
    # given entries that wait for the first head
    log = AuditLog(sessions, NoKeys(), AuditSettings(), "g1")
    log.add(act(1))
    log.turn(last=True)
    assert (verified(sessions).end.number, verified(sessions).unsealed) == (0, 1)
    signs = AuditLog(sessions, Keys(), AuditSettings(), "g2")
    signs.turn()

    log.add(act(2))
    log.turn(last=True)

    found = verified(sessions, TRUST)
    assert (found.faults, found.end.number, found.confirmed) == ([], 2, 1)


def test_entries_that_are_old_enough_leave(sessions: Sessions):
    log = AuditLog(sessions, Keys(), AuditSettings(audit_days=10), "g1")
    write_old(sessions, 1)
    log.turn()
    log.turn()
    write_old(sessions, 2)
    log.turn()
    assert count(sessions) == 3, "an hour passes between two looks"

    again = AuditLog(sessions, Keys(), AuditSettings(audit_days=10), "g1")
    again.turn()
    again.turn()

    with transaction(sessions, write=False) as session:
        # What was added later stands behind the first of them, which is young.
        assert session.scalars(select(AuditEntry.act)).all()[0] == "expire_audit_entries"
    assert verified(sessions, TRUST).faults == []


def test_an_entry_whose_time_was_edited_does_not_leave(sessions: Sessions):
    log = AuditLog(sessions, Keys(), AuditSettings(), "g1")
    log.add(act(1))
    log.turn()
    tamper(sessions, "UPDATE audit_entries SET at = 1")

    again = AuditLog(sessions, Keys(), AuditSettings(audit_days=10), "g1")
    again.turn()

    assert count(sessions) == 1


def test_a_log_that_was_rewritten_is_not_signed(sessions: Sessions, caplog: pytest.LogCaptureFixture):
    # given a gateway that runs, and somebody who edits an entry and makes the rest of the chain fit
    log = AuditLog(sessions, Keys(), AuditSettings(audit_head_seconds=0.1), "g1")
    for number in (1, 2, 4):
        log.add(act(number))
        log.turn(last=True)
    rewrite(sessions, 2)

    # when there is something to sign
    log.add(act(5))
    log.turn(last=True)
    log.turn(last=True)

    assert "entry 3 is not the one that stood there before" in caplog.text
    assert AUDIT_CHANGED._value.get() == 1
    with transaction(sessions, write=False) as session:
        assert session.scalars(select(AuditHead.number)).all() == [1]
        entry = session.scalars(select(AuditEntry).where(AuditEntry.act == "refuse_to_sign")).one()
    assert (entry.outcome, entry.reason) == ("refused", "audit_log_changed")


def test_a_beginning_that_nobody_signed_is_not_signed_either(sessions: Sessions, caplog: pytest.LogCaptureFixture):
    log = AuditLog(sessions, Keys(), AuditSettings(), "g1")
    for number in (1, 2, 4):
        log.add(act(number))
    log.turn()
    tamper(
        sessions,
        "UPDATE audit_chain SET before_number = 1, before_hash = (SELECT hash FROM audit_entries WHERE number = 1)",
        "DELETE FROM audit_entries WHERE number = 1",
    )

    log.turn(last=True)

    assert "begin after entry 1" in caplog.text


@pytest.mark.parametrize(
    ("statements", "found"),
    [
        (["DELETE FROM audit_heads"], "no head is over any"),
        (["UPDATE audit_heads SET signature = 'aa'"], "is not signed with a key"),
        (["UPDATE audit_heads SET hash = x'ff'"], "is not signed with a key"),
        (["DELETE FROM audit_chain"], "is missing"),
        (["UPDATE audit_entries SET hash = 'aa' WHERE number = 2"], "entry 2 is not the one"),
        (["DELETE FROM audit_entries", "UPDATE audit_chain SET number = 0"], "entry 2 is not the one"),
    ],
)
def test_a_gateway_that_starts_signs_only_a_log_with_its_head(
    sessions: Sessions, caplog: pytest.LogCaptureFixture, statements: list[str], found: str
):
    log = AuditLog(sessions, Keys(), AuditSettings(), "g1")
    for number in (1, 2):
        log.add(act(number))
    log.turn()
    tamper(sessions, *statements)

    again = AuditLog(sessions, Keys(), AuditSettings(), "g1")
    again.add(act(4))
    with contextlib.suppress(ValueError):
        again.turn(last=True)

    assert found in caplog.text


def test_a_gateway_goes_on_with_what_another_signed_and_let_go(sessions: Sessions, caplog: pytest.LogCaptureFixture):
    one = AuditLog(sessions, Keys(), AuditSettings(), "g1")
    write_old(sessions, 2)
    one.turn()
    AuditLog(sessions, Keys(), AuditSettings(audit_days=10), "g2").turn()

    one.add(act(4))
    one.turn(last=True)

    assert caplog.text.count("was changed") == 0
    assert verified(sessions, TRUST).confirmed == verified(sessions).end.number


def tamper(sessions: Sessions, *statements: str) -> None:
    """What somebody does who writes to the database."""
    with transaction(sessions) as session:
        for statement in statements:
            session.execute(text(statement))


def rewrite(sessions: Sessions, number: int) -> None:
    """Edits an entry and computes the chain anew from there on."""
    with transaction(sessions) as session:
        before = session.scalars(select(AuditEntry.hash).where(AuditEntry.number == number - 1)).one()
        session.execute(update(AuditEntry).where(AuditEntry.number == number).values(name="nobody"))
        session.execute(update(AuditEntry).where(AuditEntry.number >= number).values(number=None, hash=None))
        session.execute(delete(AuditHead).where(AuditHead.number >= number))
        session.execute(update(AuditChain).values(number=number - 1, hash=before))
        seal(session)


def write_old(sessions: Sessions, entries: int) -> None:
    """Writes entries of acts that are forty days old."""
    with transaction(sessions) as session:
        record_past(session, [(40 * DAY_MS, act(number)) for number in range(entries)])


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_predictions_have_entries_as_the_setting_says(tmp_path: Path, share: float):
    with quiet_gateway(tmp_path, audit_predictions=share) as gateway:
        sessions = gateway.parts.sessions
        with transaction(sessions) as session:
            registry.publish(session, "m", format="onnx", digest="a" * 64, size_bytes=1, uploaded_by="x")
        LiveGateway("", gateway.parts).make_available("m", 1)
        client_id, secret = gateway.client("caller", [Scope.PREDICT])
        with transaction(sessions) as session:
            set_grants(session, client_id, [GrantSpec("m")])
        gateway.parts.snapshot.refresh()
        headers = {**bearer(gateway.token(client_id, secret)), "x-request-id": "a-prediction"}
        # There is no queue here, so that it ends with 503.
        answer = gateway.http.post("/v1/models/m:predict", headers=headers, json={"instances": [1]})
        assert answer.status_code == 503, answer.text
        gateway.parts.audit_log.turn()
        with transaction(sessions, write=False) as session:
            found = session.scalars(select(AuditEntry).where(AuditEntry.act == "predict")).all()

    assert [
        (row.identity, row.model, row.version, row.digest, row.outcome, row.reason, row.request_id) for row in found
    ] == ([(client_id, "m", 1, "a" * 64, Outcome.REFUSED, "status_503", "a-prediction")] if share else [])


def test_a_database_that_is_away_for_a_moment_loses_nothing(sessions: Sessions, tmp_path: Path):
    log = AuditLog(sessions, Keys(), AuditSettings(), "g1")
    log.add(Entry("predict", request_id="kept"))
    # given a file of the database that cannot be opened
    sessions.kw["bind"].dispose()
    database, elsewhere = tmp_path / "sluice.db", tmp_path / "elsewhere"
    database.rename(elsewhere)
    database.mkdir()
    with pytest.raises(DatabaseUnavailable):
        log.turn()

    # when it is back
    database.rmdir()
    elsewhere.rename(database)
    log.turn()

    with transaction(sessions, write=False) as session:
        assert session.scalars(select(AuditEntry.request_id)).all() == ["kept"]
