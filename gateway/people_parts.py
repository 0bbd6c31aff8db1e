"""The collaborators of a gateway that have to do with people, made once at start."""

from __future__ import annotations

from dataclasses import dataclass

from auth.attempts import Attempts
from auth.devices import Devices
from auth.failures import Failures
from auth.password_check import PasswordCheck
from auth.passwords import Passwords
from auth.second_factor import SecondFactor
from auth.sign_in import SignIn
from gateway.admission import Knowledge
from gateway.password_places import PasswordPlaces
from gateway.person_sessions import PersonSessions
from gateway.session_cookies import SessionCookies, session_cookies
from gateway.settings import GatewaySettings
from model_store.database import Sessions


@dataclass(frozen=True, slots=True)
class PeopleParts:
    """What routes need to sign somebody in and to know them again."""

    passwords: Passwords
    places: PasswordPlaces
    attempts: Attempts
    devices: Devices
    second_factor: SecondFactor
    sign_in: SignIn
    password_check: PasswordCheck
    cookies: SessionCookies
    sessions: PersonSessions


def make_people_parts(
    settings: GatewaySettings, sessions: Sessions, snapshot: Knowledge, failures: Failures
) -> PeopleParts:
    """All of them, from the configuration; failures are counted together with those of clients."""
    passwords = Passwords()
    devices = Devices(settings.pepper)
    attempts = Attempts(failures, devices)
    second_factor = SecondFactor(settings.master_keys, settings.pepper)
    return PeopleParts(
        passwords=passwords,
        places=PasswordPlaces(),
        attempts=attempts,
        devices=devices,
        second_factor=second_factor,
        sign_in=SignIn(sessions, passwords, second_factor, attempts),
        password_check=PasswordCheck(sessions, passwords, attempts, settings.second_factor),
        cookies=session_cookies(
            settings.session_cookies, host=settings.host, issuer=settings.issuer, has_tls=settings.tls_files is not None
        ),
        sessions=PersonSessions(sessions, snapshot, settings),
    )
