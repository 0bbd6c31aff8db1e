"""The audit log's chain: whatever is changed in the database afterwards is found, and where."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, select, update

from auth.audit import Entry, by_operator, record
from auth.audit_chain import BEGINNING, FIELDS, ends, seal
from auth.audit_heads import HeadInvalid, newest, read_heads
from auth.audit_retention import DAY_MS, forget_old
from auth.audit_tables import AuditChain, AuditEntry, AuditHead
from auth.audit_verification import Trust
from model_store.database import Sessions, connect, sessions_of, transaction
from model_store.settings import StoreSettings
from tests.audit_kit import act, audit_database, new_key, sqlite_url, verified, verified_in, write, write_head

KEY, OTHER_KEY = new_key(), new_key()
TRUST = Trust(frozenset({KEY.public.kid}))
ENTRIES = 7
TEXTS = ("identity", "name", "act", "model", "digest", "outcome", "reason", "request_id", "address", "detail", "hash")
NUMBERS = ("id", "number", "at", "version", "count")


@pytest.fixture
def log(database_url: str) -> Iterator[Sessions]:
    yield from audit_database(database_url)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sessions]:
    """Seven entries and a head over them, which no test changes for good."""
    for sessions in audit_database(sqlite_url(tmp_path_factory.mktemp("audit"))):
        write(sessions, 4, KEY)
        write(sessions, ENTRIES - 4, KEY)
        yield sessions


def test_entries_are_numbered_without_a_gap_and_verify(log: Sessions):
    write(log, 3)
    head = write(log, 2, KEY)

    found = verified(log, TRUST)

    assert (found.faults, found.entries, found.end.number, found.unsealed) == ([], 5, 5, 0)
    assert found.confirmed == 5
    assert head is not None
    assert (head.number, head.kid) == (5, KEY.public.kid)


def test_what_is_not_sealed_yet_is_said_and_sealed_later_by_any_process(log: Sessions):
    # given a process that died between its act and sealing
    write(log, 2)
    with transaction(log) as session:
        record(session, act(9))
    assert verified(log).unsealed == 1

    # when another one seals
    with transaction(log) as session:
        assert seal(session) == 1

    assert (verified(log).end.number, verified(log).unsealed, verified(log).faults) == (3, 0, [])


def test_an_act_that_is_rolled_back_leaves_no_entry(log: Sessions):
    with log() as session:
        record(session, act(1))
        session.rollback()

    write(log, 1)
    assert verified(log).end.number == 1


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_an_entry_that_is_committed_late_is_not_passed_over(log: Sessions):
    # given a transaction that began first and is not committed yet
    late = log()
    record(late, act(1))
    write(log, 2)
    assert verified(log).end.number == 2

    late.commit()
    late.close()
    with transaction(log) as session:
        assert seal(session) == 1

    with transaction(log, write=False) as session:
        ids = session.scalars(select(AuditEntry.id).order_by(AuditEntry.number)).all()
    assert ids[-1] == min(ids), "it was written first and has the last place"
    assert verified(log).faults == []


def test_several_processes_write_and_seal_at_once_and_make_one_chain(log: Sessions, database_url: str):
    def work() -> None:
        engine = connect(StoreSettings(database_url=database_url))
        sessions = sessions_of(engine)
        for number in range(10):
            with transaction(sessions) as session:
                record(session, act(number))
            with transaction(sessions) as session:
                seal(session, limit=3)
            with transaction(sessions) as session:
                write_head(session, KEY, seconds=0, entries=1)
        engine.dispose()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    with transaction(log) as session:
        seal(session)

    found = verified(log, TRUST)
    assert (found.faults, found.entries, found.end.number) == ([], 30, 30)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    number=st.integers(1, ENTRIES),
    change=st.one_of(
        st.tuples(st.sampled_from(TEXTS), st.text(st.characters(codec="ascii", exclude_characters="\0"), max_size=20)),
        st.tuples(st.sampled_from(NUMBERS), st.integers(-5, 2**31)),
    ),
)
def test_any_edited_field_is_found(filled: Sessions, number: int, change: tuple[str, str | int]):
    field, value = change
    with filled() as session:
        column = getattr(AuditEntry, field)
        before = session.scalar(select(column).where(AuditEntry.number == number))
        taken = field in ("id", "number") and session.scalar(select(AuditEntry.id).where(column == value)) is not None
        if before != value and not taken:
            session.execute(update(AuditEntry).where(AuditEntry.number == number).values({field: value}))
            assert verified_in(session).faults
        session.rollback()
    assert verified(filled).faults == []


@pytest.mark.parametrize("number", range(1, ENTRIES + 1))
def test_any_removed_entry_is_found_and_its_place_is_said(filled: Sessions, number: int):
    with filled() as session:
        session.execute(delete(AuditEntry).where(AuditEntry.number == number))
        faults = verified_in(session).faults
        session.rollback()

    assert f"entry {number - 1}" in faults[0]


def test_the_last_entries_are_missed_before_they_are_signed(log: Sessions):
    write(log, 3)
    with transaction(log) as session:
        session.execute(delete(AuditEntry).where(AuditEntry.number == 3))

    assert verified(log).faults == ["the log ends at entry 2; entry 3 was the last to be sealed"]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(1, ENTRIES), min_size=2, max_size=2, unique=True))
def test_any_two_entries_that_changed_places_are_found(filled: Sessions, places: list[int]):
    with filled() as session:
        for before, after in ((places[0], -1), (places[1], places[0]), (-1, places[1])):
            session.execute(update(AuditEntry).where(AuditEntry.number == before).values(number=after))
        assert verified_in(session).faults
        session.rollback()


@pytest.mark.parametrize("number", range(1, ENTRIES + 2))
def test_any_inserted_entry_is_found(filled: Sessions, number: int):
    with filled() as session:
        for place in range(ENTRIES, number - 1, -1):
            session.execute(update(AuditEntry).where(AuditEntry.number == place).values(number=place + 1))
        record(session, act(99))
        forged = update(AuditEntry).where(AuditEntry.number.is_(None))
        session.execute(forged.values(number=number, hash="0" * 64))
        assert verified_in(session).faults
        session.rollback()


def test_a_log_that_was_computed_anew_is_betrayed_by_its_heads(filled: Sessions):
    with filled() as session:
        # given somebody who edits an entry and makes all hashes fit again
        session.execute(update(AuditEntry).where(AuditEntry.number == 2).values(name="nobody"))
        session.execute(update(AuditEntry).values(number=None, hash=None))
        session.execute(update(AuditChain).values(number=0, hash=BEGINNING.hash))
        seal(session)
        faults = verified_in(session).faults
        assert faults[0] == "the head over entry 4 was signed over another entry than stands there"

        # and who signs with a key of his own
        session.execute(delete(AuditHead))
        write_head(session, OTHER_KEY, seconds=0, entries=1)
        assert verified_in(session).faults == [], "nothing within the database tells"
        assert OTHER_KEY.public.kid in verified_in(session, TRUST).faults[0]
        session.rollback()


def test_a_log_that_was_cut_off_is_betrayed_by_a_head_from_elsewhere(filled: Sessions):
    with transaction(filled, write=False) as session:
        known = newest(session)
    assert known is not None
    assert read_heads(f"something else\n{known.line()}\n") == (known,)
    assert read_heads(f"<109>1 2026-11-22T13:10:00.123Z host sluice 1 head - {known.line()}") == (known,)

    with filled() as session:
        session.execute(delete(AuditEntry).where(AuditEntry.number > 4))
        session.execute(delete(AuditHead).where(AuditHead.number > 4))
        last = session.execute(select(AuditEntry.hash).where(AuditEntry.number == 4)).scalar_one()
        session.execute(update(AuditChain).values(number=4, hash=last))
        assert verified_in(session, TRUST).faults == [], "nothing within the database tells"
        faults = verified_in(session, Trust(TRUST.kids, (known,))).faults
        session.rollback()

    assert faults == ["the log ends at entry 4; the known head was signed over entry 7"]


def test_a_head_is_read_out_of_a_log_line(filled: Sessions):
    with transaction(filled, write=False) as session:
        known = newest(session)
    assert known is not None

    assert read_heads(json.dumps({"level": "info", "message": f"audit head {known.line()}"})) == (known,)
    with pytest.raises(HeadInvalid):
        read_heads('{"message": "nothing"}\n{"at": 1}')


@pytest.mark.parametrize("field", ["hash", "before_number", "before_hash", "at", "key", "signature"])
def test_an_edited_head_is_found(filled: Sessions, field: str):
    with filled() as session:
        value: object = 3 if field in ("before_number", "at") else "a" * 64
        session.execute(update(AuditHead).where(AuditHead.number == ENTRIES).values({field: value}))
        assert verified_in(session).faults
        session.rollback()


def test_old_entries_leave_from_the_beginning_and_the_rest_verifies(log: Sessions):
    write_old(log, 5)
    write(log, 2, KEY)

    with transaction(log) as session:
        assert forget_old(session, 30, KEY) == 5
        assert forget_old(session, 30, KEY) == 0
    with transaction(log) as session:
        seal(session)

    found = verified(log, TRUST)
    assert (found.faults, found.before.number, found.entries, found.end.number) == ([], 5, 3, 8)
    with transaction(log, write=False) as session:
        last = session.scalars(select(AuditEntry).where(AuditEntry.number == 8)).one()
        assert (last.act, ends(session)[0].number) == ("expire_audit_entries", 5)

    # and whoever shortens it without the key is found
    with log() as session:
        session.execute(delete(AuditEntry).where(AuditEntry.number == 6))
        sixth = {"before_number": 6, "before_hash": found.before.hash}
        session.execute(update(AuditChain).values(sixth))
        assert any("begin" in fault for fault in verified_in(session, TRUST).faults)
        session.rollback()


def write_old(log: Sessions, entries: int) -> None:
    """Writes and seals entries of acts that are forty days old."""
    with transaction(log) as session:
        for number in range(entries):
            record(session, act(number))
        session.execute(update(AuditEntry).values(at=AuditEntry.at - 40 * DAY_MS))
        seal(session)


def test_a_log_of_which_everything_left_verifies(log: Sessions):
    write_old(log, 3)
    with transaction(log) as session:
        assert forget_old(session, 30, KEY) == 3

    assert verified(log, TRUST).faults == []


def test_a_new_key_signs_though_nothing_was_written(log: Sessions):
    write(log, 1, KEY)
    with transaction(log) as session:
        assert write_head(session, KEY, seconds=0, entries=1) is None
        head = write_head(session, OTHER_KEY, seconds=60, entries=10)

    assert head is not None
    assert verified(log, Trust(frozenset({OTHER_KEY.public.kid}))).faults == []


def test_texts_of_callers_are_bounded_and_escaped(log: Sessions):
    hostile = Entry(
        "put_label",
        name="a\r\nforged\x1b[2J\0\ud800é" + "x" * 500,
        model="\0" * 300,
        version=2**40,
        request_id="\x7f",
        detail={"label": "sls_AbCdEfGh eyJhbGciOi.x.y" + "z" * 5000, "n": None, "count": 3},
    )
    with transaction(log) as session:
        record(session, hostile)
        seal(session)
        row = session.scalars(select(AuditEntry)).one()

    assert all(
        text.isascii() and text.isprintable() for text in (row.name, row.model or "", row.request_id, row.detail)
    )
    assert (len(row.name), len(row.model or ""), row.version) == (128, 128, None)
    assert "sls_A" not in row.detail
    assert "eyJ" not in row.detail
    assert len(row.detail) < 600
    assert verified(log).faults == []


def test_an_act_is_a_code(log: Sessions):
    with pytest.raises(ValueError, match="act"), transaction(log) as session:
        record(session, Entry("Drop table"))


def test_a_command_is_recorded_under_its_users_name():
    entry = by_operator("create_admin", {"name": "root"})

    assert (entry.identity, entry.detail) == ("local", {"name": "root"})
    assert set(FIELDS) >= {"identity", "detail"}
