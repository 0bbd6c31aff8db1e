"""Signing in: one answer for whatever is wrong, guessing slowed down and nobody locked out, hashes kept modern."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from passlib.hash import argon2
from sqlalchemy import select

from auth import people
from auth.attempts import BURST, KNOWN_SECONDS, PAUSE_SECONDS, Attempt, Attempts
from auth.devices import KEEP_SECONDS, Devices
from auth.errors import FailuresTooMany
from auth.failures import Failures
from auth.passwords import Passwords
from auth.people_errors import SignInFailed
from auth.people_tables import Person
from auth.second_factor import SecondFactor
from auth.sign_in import SignIn, admit
from model_store.database import Sessions, connect, sessions_of, transaction
from model_store.sealing import SealingKeys
from model_store.settings import StoreSettings
from tests.databases import make_tables
from tests.live_gateway import refused
from tests.people_kit import PASSWORD, Browser, Clock, CountingPasswords, add_person, hashed
from tests.quiet_gateway import QuietGateway, quiet_gateway

KEYS = SealingKeys([b"s" * 32])
PEPPER = b"p" * 32
OWN, ELSEWHERE = "192.0.2.1", "198.51.100.7"


@pytest.fixture
def sessions(tmp_path: Path) -> Iterator[Sessions]:
    settings = StoreSettings(database_url=f"sqlite:///{tmp_path / 'sluice.db'}")
    make_tables(settings)
    engine = connect(settings)
    made = sessions_of(engine)
    with transaction(made) as session:
        people.create(session, "ada", hashed())
        people.set_disabled(session, people.create(session, "gone", hashed()), True)
        people.create(session, "invited")
    yield made
    engine.dispose()


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[QuietGateway]:
    with quiet_gateway(tmp_path) as made:
        yield made


def patient(clock: Clock, devices: Devices | None = None) -> Attempts:
    return Attempts(Failures(clock=clock), devices or Devices(PEPPER, clock=clock), clock=clock)


def test_unknown_disabled_and_invited_people_are_refused_as_a_wrong_password_is_and_cost_as_much(sessions: Sessions):
    passwords, clock = CountingPasswords(), Clock()
    sign_in = SignIn(sessions, passwords, SecondFactor(KEYS, PEPPER), patient(clock))
    texts = set()
    wrong = [("ada", "a wrong password"), ("nobody", PASSWORD), ("gone", PASSWORD), ("invited", ""), ("a\0b", PASSWORD)]
    for name, password in wrong:
        with pytest.raises(SignInFailed) as failed:
            sign_in.check(Attempt(name, OWN), password, None)
        texts.add((failed.value.status, failed.value.code, failed.value.message))
    assert len(texts) == 1
    assert passwords.verified == len(wrong)
    assert sign_in.check(Attempt("ada", OWN), PASSWORD, None).upgraded is None


def test_a_hash_with_other_costs_is_made_anew_at_sign_in(gateway: QuietGateway):
    cheap = str(argon2.using(type="ID", rounds=1, memory_cost=8192, parallelism=1).hash(PASSWORD))
    with transaction(gateway.parts.sessions) as session:
        people.create(session, "ada", cheap)
    gateway.parts.snapshot.refresh()
    with Browser(gateway) as browser:
        browser.sign_in("ada")
        with transaction(gateway.parts.sessions, write=False) as session:
            stored = session.scalars(select(Person.password_hash).where(Person.name == "ada")).one()
        assert stored.startswith("$argon2id$v=19$m=65536,t=3,p=4$")
        browser.sign_in("ada")


def test_what_changed_between_the_check_and_the_sign_in_counts(sessions: Sessions):
    sign_in = SignIn(sessions, Passwords(), SecondFactor(KEYS, PEPPER), patient(Clock()))
    checked = sign_in.check(Attempt("ada", OWN), PASSWORD, None)
    with transaction(sessions) as session:
        person = people.named(session, "ada")
        person.second_factor = b"set up in between"
        with pytest.raises(SignInFailed):
            admit(session, checked)
        person.second_factor = None
        people.set_disabled(session, person, True)
        with pytest.raises(SignInFailed):
            admit(session, checked)
        people.delete(session, person)
        with pytest.raises(SignInFailed):
            admit(session, checked)


def test_guessing_from_one_address_hinders_nobody_elsewhere():
    clock = Clock()
    attempts = patient(clock)
    for _ in range(10):
        attempts.require_patience(Attempt("ada", ELSEWHERE))
        attempts.failed(Attempt("ada", ELSEWHERE))
    with pytest.raises(FailuresTooMany) as refusal:
        attempts.require_patience(Attempt("ada", ELSEWHERE))
    assert refusal.value.retry_after_seconds == 60
    attempts.require_patience(Attempt("ada", OWN))
    clock.now += 60
    attempts.require_patience(Attempt("ada", ELSEWHERE))


def test_guessing_from_many_addresses_is_let_through_once_a_minute_and_never_blocked_for_good():
    clock = Clock()
    attempts = patient(clock)
    for number in range(BURST):
        attempts.require_patience(Attempt("ada", f"10.0.0.{number}"))
    with pytest.raises(FailuresTooMany) as refusal:
        attempts.require_patience(Attempt("ada", "10.0.1.1"))
    assert refusal.value.retry_after_seconds is not None
    assert refusal.value.retry_after_seconds <= PAUSE_SECONDS
    attempts.require_patience(Attempt("grace", "10.0.1.1"))
    clock.now += PAUSE_SECONDS
    attempts.require_patience(Attempt("ada", "10.0.1.1"))
    with pytest.raises(FailuresTooMany):
        attempts.require_patience(Attempt("ada", "10.0.1.2"))


def test_nobody_is_kept_out_of_where_they_signed_in_lately():
    clock = Clock()
    devices = Devices(PEPPER, clock=clock)
    attempts = patient(clock, devices)
    attempts.succeeded(Attempt("ada", OWN))
    mark = devices.mark("ada")
    for number in range(BURST):
        attempts.require_patience(Attempt("ada", f"10.0.0.{number}"))
    for attempt in (Attempt("ada", OWN), Attempt("ada", "10.0.9.9", mark)):
        for _ in range(5):
            attempts.require_patience(attempt)
    with pytest.raises(FailuresTooMany):
        attempts.require_patience(Attempt("ada", "10.0.9.9"))
    # An address counts for a day only.
    attempts._paid.clear()
    clock.now += KNOWN_SECONDS
    for _ in range(BURST):
        attempts.require_patience(Attempt("ada", OWN))
    with pytest.raises(FailuresTooMany):
        attempts.require_patience(Attempt("ada", OWN))


def test_a_marked_browser_has_a_counter_of_its_own_and_is_slowed_down_too():
    clock = Clock()
    devices = Devices(PEPPER, clock=clock)
    attempts = patient(clock, devices)
    mark = devices.mark("ada")
    for _ in range(10):
        attempts.failed(Attempt("ada", OWN))
    with pytest.raises(FailuresTooMany):
        attempts.require_patience(Attempt("ada", OWN))
    for number in range(10):
        # Its address changes as it likes: the counter is the browser's.
        attempts.require_patience(Attempt("ada", f"10.0.0.{number}", mark))
        attempts.failed(Attempt("ada", f"10.0.0.{number}", mark))
    with pytest.raises(FailuresTooMany):
        attempts.require_patience(Attempt("ada", "10.0.0.99", mark))


def test_a_mark_is_for_its_name_its_key_and_half_a_year():
    clock = Clock()
    devices = Devices(PEPPER, clock=clock)
    mark = devices.mark("ada")
    assert devices.known(mark, "ada") is not None
    number, until, signature = mark.split(".")
    assert devices.known(mark, "grace") is None
    assert Devices(b"q" * 32, clock=clock).known(mark, "ada") is None
    for forged in (
        "",
        "a.b.c",
        f"{number}.{int(until) + 1}.{signature}",
        f"{'A' * 16}.{until}.{signature}",
        mark + "A",
    ):
        assert devices.known(forged, "ada") is None
    clock.now += KEEP_SECONDS
    assert devices.known(mark, "ada") is None


def test_what_is_no_name_or_password_is_refused_and_changes_nothing(gateway: QuietGateway):
    add_person(gateway, "ada")
    with Browser(gateway) as browser:
        for name, password in (("a\0b", PASSWORD), ("ada\n", PASSWORD), ("ada", "\0" * 12), ("ADA", PASSWORD)):
            assert refused(browser.try_to_sign_in(name, password), 401, "sign_in_failed")
        for body in (
            {"name": "ada", "password": "x" * 1_000_000},
            {"name": "x" * 1000, "password": PASSWORD},
            {"name": "ada", "password": PASSWORD, "role": "admin"},
            {"name": "ada"},
            {"name": ["ada"], "password": PASSWORD},
            [],
        ):
            assert browser.http.post("/admin/session", json=body).status_code in (413, 422)
        raw = b'{"name": "\\ud800", "password": "\\ud800\\ud800\\ud800\\ud800"}'
        answer = browser.http.post("/admin/session", content=raw, headers={"content-type": "application/json"})
        assert answer.status_code in (401, 422)
        browser.sign_in("ada", PASSWORD)


def test_a_flood_of_wrong_passwords_takes_little_memory_and_stops_no_client(gateway: QuietGateway):
    add_person(gateway, "ada")
    client = gateway.client("machine")
    gateway.token(*client)
    before, highest, done = resident_bytes(), [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.01):
            highest[0] = max(highest[0], resident_bytes())

    watching = threading.Thread(target=watch)
    watching.start()

    def guess(number: int) -> int:
        body = {"name": f"name-{number % 40}", "password": "a wrong password"}
        return gateway.http.post("/admin/session", json=body).status_code

    with ThreadPoolExecutor(100) as guessing:
        answers = [guessing.submit(guess, number) for number in range(200)]
        while any(not answer.done() for answer in answers):
            # As with every client: it waits neither for a thread nor for a connection of the database.
            gateway.token(*client)
            time.sleep(0.05)
        statuses = {answer.result() for answer in answers}
    done.set()
    watching.join()
    assert statuses <= {401, 503, 429}
    assert 503 in statuses, "those who would have to wait too long are told so at once"
    assert highest[0] - before < 200 * 1024**2


def resident_bytes() -> int:
    """What this process, and with it the gateway, holds in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096
