"""People and their passwords: argon2id, few at a time, remembered for a minute, guessing slowed down."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from auth import people
from auth.attempts import Attempts
from auth.devices import Devices
from auth.errors import (
    FailuresTooMany,
    PasswordInvalid,
    PasswordsBusy,
    PersonAuthenticationFailed,
    PersonExists,
    PersonNotFound,
)
from auth.failures import Failures
from auth.password_check import PasswordCheck
from auth.passwords import Passwords
from model_store.database import Sessions, connect, sessions_of, transaction
from model_store.errors import NameInvalid
from model_store.settings import StoreSettings
from tests.databases import make_tables
from tests.people_kit import PASSWORD, Clock, CountingPasswords

ADDRESS = "192.0.2.1"


def attempts(failures: Failures | None = None) -> Attempts:
    return Attempts(failures or Failures(), Devices(b"p" * 32))


@pytest.fixture(scope="session")
def passwords() -> Passwords:
    return Passwords()


@pytest.fixture
def sessions(tmp_path: Path) -> Iterator[Sessions]:
    settings = StoreSettings(database_url=f"sqlite:///{tmp_path / 'sluice.db'}")
    make_tables(settings)
    engine = connect(settings)
    made = sessions_of(engine)
    with transaction(made) as session:
        people.create(session, "ada", Passwords().hash(PASSWORD))
    yield made
    engine.dispose()


def test_a_password_is_kept_as_argon2id_with_the_costs_of_rfc_9106(passwords: Passwords):
    stored = passwords.hash(PASSWORD)
    assert stored.startswith("$argon2id$v=19$m=65536,t=3,p=4$")
    assert passwords.verify(PASSWORD, stored)
    assert not passwords.verify(PASSWORD + "x", stored)
    assert not passwords.needs_update(stored)
    assert passwords.needs_update("$argon2id$v=19$m=8192,t=1,p=1$c29tZXNhbHRzb21lc2FsdA$" + "A" * 43)


def test_no_part_of_a_long_password_is_cut_off(passwords: Passwords):
    long = "a" * 255
    stored = passwords.hash(long + "b")
    assert not passwords.verify(long + "c", stored)
    assert not passwords.verify(long + "b" + "b", stored)


def test_a_password_typed_on_another_system_is_the_same(passwords: Passwords):
    assert passwords.verify("cafe\u0301 cafe\u0301 cafe\u0301", passwords.hash("caf\u00e9 caf\u00e9 caf\u00e9"))


@pytest.mark.parametrize(
    "password", ["", "short", "a" * 11, "a" * 257, "with a\0 in it", "with a \n in it", "\ud800" * 12]
)
def test_a_password_against_the_rules_is_refused(passwords: Passwords, password: str):
    with pytest.raises(PasswordInvalid) as refused:
        passwords.hash(password)
    assert password == "" or password not in refused.value.message
    assert not passwords.verify(password, passwords.hash(PASSWORD))


def test_nobody_has_any_password(passwords: Passwords):
    assert not passwords.verify(PASSWORD, None)
    assert not passwords.verify("", None)


def test_only_so_many_passwords_are_checked_at_once():
    passwords = Passwords(parallel=1, wait_seconds=0.01)
    stored = passwords.hash(PASSWORD)
    inside, leave = threading.Event(), threading.Event()

    def occupy() -> None:
        with passwords._place():
            inside.set()
            leave.wait(30)

    thread = threading.Thread(target=occupy)
    thread.start()
    inside.wait(30)
    with pytest.raises(PasswordsBusy) as refused:
        passwords.hash(PASSWORD)
    assert refused.value.status == 503
    assert refused.value.retry_after_seconds
    leave.set()
    thread.join()
    assert passwords.verify(PASSWORD, stored)


def test_a_person_is_known_by_name_and_password(sessions: Sessions, passwords: Passwords):
    check = PasswordCheck(sessions, passwords, attempts())
    assert check.check("ada", PASSWORD, ADDRESS) == "ada"
    for name, password in (
        ("ada", "wrong password"),
        ("bob", PASSWORD),
        ("", ""),
        ("a\0b", PASSWORD),
        ("Ada", PASSWORD),
    ):
        with pytest.raises(PersonAuthenticationFailed) as refused:
            check.check(name, password, ADDRESS)
        assert refused.value.status == 401


def test_a_name_is_taken_once_and_follows_the_rule(sessions: Sessions):
    with pytest.raises(PersonExists), transaction(sessions) as session:
        people.create(session, "ada")
    with pytest.raises(NameInvalid), transaction(sessions) as session:
        people.create(session, "a:b")
    with pytest.raises(PersonNotFound), transaction(sessions) as session:
        people.named(session, "bob")


def test_a_success_is_remembered_for_a_minute(sessions: Sessions):
    passwords, clock = CountingPasswords(), Clock()
    check = PasswordCheck(sessions, passwords, attempts(), clock=clock)
    for _ in range(5):
        check.check("ada", PASSWORD, ADDRESS)
    assert passwords.verified == 1
    clock.now += 60
    check.check("ada", PASSWORD, ADDRESS)
    assert passwords.verified == 2


def test_what_is_remembered_opens_for_nothing_else(sessions: Sessions, passwords: Passwords):
    check = PasswordCheck(sessions, passwords, attempts())
    check.check("ada", PASSWORD, ADDRESS)
    for name, password in (("ada", PASSWORD + "x"), ("bob", PASSWORD), ("adac", PASSWORD[1:])):
        with pytest.raises(PersonAuthenticationFailed):
            check.check(name, password, ADDRESS)


def test_a_disabled_person_is_refused_at_once(sessions: Sessions, passwords: Passwords):
    check = PasswordCheck(sessions, passwords, attempts())
    check.check("ada", PASSWORD, ADDRESS)
    with transaction(sessions) as session:
        people.set_disabled(session, people.named(session, "ada"), True)
    with pytest.raises(PersonAuthenticationFailed):
        check.check("ada", PASSWORD, ADDRESS)


def test_a_new_password_counts_at_once(sessions: Sessions, passwords: Passwords):
    check = PasswordCheck(sessions, passwords, attempts())
    check.check("ada", PASSWORD, ADDRESS)
    with transaction(sessions) as session:
        people.set_password(session, people.named(session, "ada"), passwords.hash("another long password"))
    with pytest.raises(PersonAuthenticationFailed):
        check.check("ada", PASSWORD, ADDRESS)
    assert check.check("ada", "another long password", ADDRESS) == "ada"


def test_guessing_is_slowed_down_without_locking_anybody_else_out(sessions: Sessions):
    passwords, clock = CountingPasswords(), Clock()
    check = PasswordCheck(sessions, passwords, attempts(Failures(allowed=2, clock=clock)), clock=clock)
    for _ in range(2):
        with pytest.raises(PersonAuthenticationFailed):
            check.check("ada", "a wrong password", ADDRESS)
    with pytest.raises(FailuresTooMany) as refused:
        check.check("ada", PASSWORD, ADDRESS)
    assert refused.value.status == 429
    assert refused.value.retry_after_seconds == 60
    assert passwords.verified == 2, "a refused guess costs no argon2"

    assert check.check("ada", PASSWORD, "192.0.2.2") == "ada"
    clock.now += 60
    assert check.check("ada", PASSWORD, ADDRESS) == "ada"


def test_failures_are_forgotten_after_a_success_and_after_the_window():
    clock = Clock()
    failures = Failures(allowed=1, window_seconds=10, clock=clock)
    failures.count(ADDRESS, "ada")
    with pytest.raises(FailuresTooMany):
        failures.require_few(ADDRESS, "ada")
    failures.require_few(ADDRESS, "bob")
    failures.forget(ADDRESS, "ada")
    failures.require_few(ADDRESS, "ada")
    failures.count(ADDRESS, "ada")
    clock.now += 10
    failures.require_few(ADDRESS, "ada")


def test_the_window_begins_with_the_first_failure():
    clock = Clock()
    failures = Failures(allowed=3, window_seconds=10, clock=clock)
    for _ in range(3):
        failures.count(ADDRESS, "ada")
        clock.now += 3
    with pytest.raises(FailuresTooMany) as refused:
        failures.require_few(ADDRESS, "ada")
    assert refused.value.retry_after_seconds == 1


def test_a_bounded_number_of_sources_is_remembered():
    failures = Failures(allowed=1, capacity=3)
    for number in range(5):
        failures.count(ADDRESS, f"name-{number}")
    failures.require_few(ADDRESS, "name-0")
    with pytest.raises(FailuresTooMany):
        failures.require_few(ADDRESS, "name-4")


def test_the_addresses_of_one_ipv6_network_are_one_source():
    failures = Failures(allowed=1)
    failures.count("2001:db8::1", "ada")
    with pytest.raises(FailuresTooMany):
        failures.require_few("2001:db8::ffff:1", "ada")
    failures.require_few("2001:db8:0:1::1", "ada")
    failures.count("no address", "ada")
    with pytest.raises(FailuresTooMany):
        failures.require_few("no address", "ada")
