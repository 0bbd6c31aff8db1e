"""Second factors: RFC 6238 codes that are good once, recovery codes, and roles that must have one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from passlib.totp import TOTP
from sqlalchemy import select

from auth import people, second_factor
from auth.attempts import Attempt
from auth.people_errors import SignInFailed
from auth.people_tables import Person, RecoveryCode
from auth.roles import Role
from auth.second_factor import Proof, SecondFactor
from auth.sign_in import admit
from model_store.database import transaction
from model_store.sealing import SealBroken, SealingKeys
from tests.live_gateway import refused
from tests.people_kit import PASSWORD, Browser, add_person
from tests.quiet_gateway import QuietGateway, quiet_gateway

STEP_SECONDS = 30


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QuietGateway]:
    with quiet_gateway(tmp_path_factory.mktemp("gateway")) as made:
        yield made


class App:
    """An app that shows codes; each call gives that of the next step which was not shown before."""

    def __init__(self, secret: str) -> None:
        self._totp = TOTP(key=secret)
        left = STEP_SECONDS - time.time() % STEP_SECONDS
        if left < 3:
            # That of the step before is good no longer once another begins.
            time.sleep(left)
        # The one of the step before is taken too: three codes at a time, before anybody has to wait for a clock.
        self._next = int(time.time()) // STEP_SECONDS - 1

    def code(self) -> str:
        shown = self._totp.generate(self._next * STEP_SECONDS).token
        self._next += 1
        return str(shown)


def set_up(browser: Browser) -> tuple[App, list[str]]:
    """Gives somebody who is signed in a second factor."""
    offer = browser.http.post("/admin/session/second-factor", json={"password": PASSWORD})
    assert offer.status_code == 200, offer.text
    app = App(offer.json()["secret"])
    answer = browser.http.put("/admin/session/second-factor", json={"code": app.code()})
    assert answer.status_code == 200, answer.text
    browser.take_token(answer.json()["session"])
    return app, answer.json()["recovery_codes"]


def test_with_a_second_factor_the_password_alone_opens_nothing(gateway: QuietGateway):
    add_person(gateway, "ada")
    with Browser(gateway) as browser:
        browser.sign_in("ada")
        assert gateway.http.get("/metrics", auth=("ada", PASSWORD)).status_code == 200
        app, _ = set_up(browser)
        answers = [browser.try_to_sign_in("ada", code=code) for code in (None, "", "000000", "x" * 64)]
        answers.append(browser.try_to_sign_in("ada", "a wrong password", app.code()))
        answers.append(browser.try_to_sign_in("nobody-here", code="000000"))
        assert all(refused(answer, 401, "sign_in_failed") for answer in answers)
        assert len({answer.text for answer in answers}) == 1
        browser.sign_in("ada", code=app.code())
        assert gateway.http.get("/metrics", auth=("ada", PASSWORD)).status_code == 401


def test_a_code_is_good_once_also_that_of_the_confirmation(gateway: QuietGateway):
    add_person(gateway, "boris")
    with Browser(gateway) as browser:
        browser.enter("boris")
        offer = browser.http.post("/admin/session/second-factor", json={"password": PASSWORD}).json()
        app = App(offer["secret"])
        first, second, third = app.code(), app.code(), app.code()
        answer = browser.http.put("/admin/session/second-factor", json={"code": first})
        browser.take_token(answer.json()["session"])
        assert refused(browser.try_to_sign_in("boris", code=first), 401, "sign_in_failed")
        browser.sign_in("boris", code=third)
        for used in (third, second):
            # One of an earlier step than the last is as used: whoever saw it typed had time.
            assert refused(browser.try_to_sign_in("boris", code=used), 401, "sign_in_failed")


def test_of_two_who_bring_one_code_at_the_same_time_one_is_let_in(gateway: QuietGateway):
    add_person(gateway, "bruno")
    with Browser(gateway) as browser:
        browser.enter("bruno")
        app, recovery = set_up(browser)
    sign_in = gateway.parts.people.sign_in
    for code in (app.code(), recovery[0]):
        first, second = (sign_in.check(Attempt("bruno", "192.0.2.1"), PASSWORD, code) for _ in range(2))
        with transaction(gateway.parts.sessions) as session:
            assert admit(session, first).name == "bruno"
            with pytest.raises(SignInFailed):
                admit(session, second)


def test_a_used_code_is_wrong_before_anything_is_written():
    keys, now = SealingKeys([b"o" * 32]), 1_800_000_000
    factor = SecondFactor(keys, b"p" * 32, clock=lambda: now)
    totp = TOTP(new=True)
    sealed = keys.seal(totp.key, b"totp|usr_a")
    step = now // STEP_SECONDS
    shown = totp.generate(now).token
    assert factor.prove("usr_a", sealed, step - 1, (), shown) == Proof(step=step)
    assert factor.prove("usr_a", sealed, step, (), shown) is None
    assert factor.prove("usr_a", sealed, 0, (), totp.generate(now - 2 * STEP_SECONDS).token) is None


def test_a_recovery_code_signs_in_once(gateway: QuietGateway):
    add_person(gateway, "carla")
    with Browser(gateway) as browser:
        browser.enter("carla")
        _, codes = set_up(browser)
        assert len(set(codes)) == 10
        browser.sign_in("carla", code=codes[0].upper().replace("-", " "))
        assert refused(browser.try_to_sign_in("carla", code=codes[0]), 401, "sign_in_failed")
        browser.sign_in("carla", code=codes[1])
    with transaction(gateway.parts.sessions, write=False) as session:
        person = session.scalars(select(Person).where(Person.name == "carla")).one()
        kept = session.scalars(select(RecoveryCode.code_hash).where(RecoveryCode.person_id == person.id)).all()
    assert len(kept) == 8
    assert not {code.replace("-", "") for code in codes} & set(kept)


def test_a_wrong_code_confirms_nothing_and_a_secret_counts_only_when_confirmed(gateway: QuietGateway):
    add_person(gateway, "dirk")
    with Browser(gateway) as browser:
        browser.enter("dirk")
        nothing = browser.http.put("/admin/session/second-factor", json={"code": "123456"})
        assert refused(nothing, 409, "second_factor_not_offered")
        assert refused(
            browser.http.post("/admin/session/second-factor", json={"password": "a wrong password"}),
            401,
            "sign_in_failed",
        )
        offer = browser.http.post("/admin/session/second-factor", json={"password": PASSWORD}).json()
        assert offer["uri"].startswith("otpauth://totp/Sluice:dirk?secret=")
        assert refused(browser.http.put("/admin/session/second-factor", json={"code": "0"}), 422, "code_invalid")
        browser.sign_in("dirk")


def test_changing_and_removing_a_second_factor_needs_it(gateway: QuietGateway):
    add_person(gateway, "elsa")
    with Browser(gateway) as browser, Browser(gateway) as other:
        other.enter("elsa")
        browser.sign_in("elsa")
        app, codes = set_up(browser)
        assert other.http.get("/admin/session").status_code == 401, "setting it up ends the other sessions"
        for path in ("/admin/session/second-factor", "/admin/session/second-factor/remove", "/admin/session/tokens"):
            assert refused(browser.http.post(path, json={"password": PASSWORD}), 401, "sign_in_failed")
        body = {"password": PASSWORD, "code": app.code()}
        answer = browser.http.post("/admin/session/second-factor/remove", json=body)
        assert answer.status_code == 200
        assert not answer.json()["has_second_factor"]
        other.sign_in("elsa")
        assert codes
    with transaction(gateway.parts.sessions, write=False) as session:
        person = session.scalars(select(Person).where(Person.name == "elsa")).one()
        assert not session.scalars(select(RecoveryCode).where(RecoveryCode.person_id == person.id)).all()


def test_an_administrator_removes_the_second_factor_of_somebody_who_lost_it(gateway: QuietGateway):
    person = add_person(gateway, "frank", Role.OPERATOR)
    add_person(gateway, "root")
    with Browser(gateway) as browser, Browser(gateway) as admin:
        browser.enter("frank")
        set_up(browser)
        admin.enter("root")
        assert admin.http.delete(f"/admin/people/{person.id}/second-factor").status_code == 204
        assert browser.http.get("/admin/session").status_code == 401
        browser.sign_in("frank")
        assert refused(browser.http.delete(f"/admin/people/{person.id}/second-factor"), 403, "insufficient_scope")


def test_whoever_must_have_a_second_factor_can_do_nothing_before_setting_it_up(tmp_path: Path):
    with quiet_gateway(tmp_path, second_factor="admins") as gateway:
        add_person(gateway, "gina")
        add_person(gateway, "hugo", Role.OPERATOR)
        with Browser(gateway) as browser, Browser(gateway) as other:
            assert not other.enter("hugo")["second_factor_due"]
            assert other.http.get("/admin/models").status_code == 200
            shown = browser.sign_in("gina")
            assert (shown["second_factor_due"], shown["scopes"]) == (True, [])
            for path in ("/admin/clients", "/admin/models"):
                assert refused(browser.http.get(path), 403, "second_factor_required")
            tokens = browser.http.post("/admin/session/tokens", json={"password": PASSWORD})
            assert refused(tokens, 403, "second_factor_required")
            assert gateway.http.get("/metrics", auth=("gina", PASSWORD)).status_code == 401
            set_up(browser)
            assert browser.http.get("/admin/clients").status_code == 200


def test_a_secret_is_sealed_for_its_person_and_sealed_again_under_a_new_key(gateway: QuietGateway):
    old, new = SealingKeys([b"o" * 32]), SealingKeys([b"n" * 32, b"o" * 32])
    add_person(gateway, "iris")
    with transaction(gateway.parts.sessions) as session:
        for row in session.scalars(select(Person)):
            row.second_factor = row.second_factor_offered = None
        person = people.named(session, "iris")
        offer = SecondFactor(old, b"p" * 32).offer(person)
        sealed = person.second_factor_offered
        assert sealed is not None
        assert TOTP(key=offer.secret).key not in sealed
        with pytest.raises(SealBroken):
            old.open(sealed, b"totp|usr_somebody-else")
        session.flush()
        assert second_factor.reseal(session, new) == 1
        assert second_factor.reseal(session, new) == 0
        again = SecondFactor(SealingKeys([b"n" * 32]), b"p" * 32)
        assert again.confirm(session, person, TOTP(key=offer.secret).generate().token)
