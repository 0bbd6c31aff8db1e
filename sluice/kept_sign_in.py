"""A person's sign-in on this machine: a refresh token in a private file, which one command at a time renews.

The token is good for one use, and a gateway that sees it twice ends the sign-in (RFC 9700, section 4.14.2). So whoever
renews holds the login's lock from reading the token until the next one is in the file.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING

from sluice.answers import CredentialsInvalid

if TYPE_CHECKING:
    import httpx

# Whoever holds the lock asks a gateway meanwhile, to connect and to read for so long each.
REFRESH_SECONDS = 10.0
LOCK_SECONDS = 30.0
LOOK_SECONDS = 0.02
ENDED = "invalid_grant"


class LoginLock:
    """Held by one process, and one thread of it, at a time; the system gives it back when a process dies."""

    def __init__(self, login: Path) -> None:
        """Waits for it. Raises CredentialsInvalid where another command holds it for so long, or it cannot be had."""
        if sys.platform == "win32":
            raise CredentialsInvalid("people's logins need locks on files, which are not to be had here: use a client")
        import fcntl

        # Of the file itself, by whatever name it is called; and where others may write, they make no way out of it.
        place = login.resolve().with_suffix(".lock")
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            self._file: IO[str] = os.fdopen(os.open(place, flags, 0o600), "w")
            until = time.monotonic() + LOCK_SECONDS
            while not _locked(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB):
                if time.monotonic() >= until:
                    self._file.close()
                    raise CredentialsInvalid(
                        f"another command has been renewing the sign-in in {login} for {LOCK_SECONDS:.0f} seconds"
                    )
                time.sleep(LOOK_SECONDS)
        except OSError as error:
            raise CredentialsInvalid(f"cannot lock {place}: {error.strerror}") from error

    def close(self) -> None:
        """Gives it back, also where a process that was forked meanwhile has the file open."""
        if sys.platform != "win32" and not self._file.closed:
            import fcntl

            fcntl.flock(self._file, fcntl.LOCK_UN)
        self._file.close()


class KeptSignIn:
    """What a link renews its token with for a person."""

    auth: httpx.BasicAuth | None = None
    renewal_seconds = REFRESH_SECONDS

    def __init__(self, place: Path, base_url: str, name: str) -> None:
        self.name = name
        # The file itself: where a link stands for it, the next token would be in the link's place alone.
        self._place = place.resolve()
        self._base_url = base_url

    def begin(self) -> SignInTurn:
        """The next renewal, once no other is under way. Raises CredentialsInvalid where the login is gone."""
        lock = LoginLock(self._place)
        try:
            return SignInTurn(self._place, self._known(), lock)
        except CredentialsInvalid:
            lock.close()
            raise

    def _known(self) -> Mapping[str, str]:
        known = read_sign_in(self._place)
        if (known["base_url"], known["person"]) != (self._base_url, self.name):
            raise CredentialsInvalid(f"the login in {self._place} became another one meanwhile")
        if not os.access(self._place.parent, os.W_OK):
            # Found out now, the old token is still good.
            raise CredentialsInvalid(f"{self._place.parent} cannot be written: the next token would be lost")
        return known


class SignInTurn:
    """One renewal; it holds the lock until it is closed."""

    def __init__(self, place: Path, known: Mapping[str, str], lock: LoginLock) -> None:
        self._place = place
        self._known = known
        self._lock = lock

    @property
    def form(self) -> Mapping[str, str]:
        return {"grant_type": "refresh_token", "refresh_token": self._known["refresh_token"]}

    def keep(self, response: httpx.Response) -> None:
        """Puts the next refresh token into the file. Raises CredentialsInvalid where the sign-in has ended."""
        try:
            answer = response.json()
        except ValueError:
            return
        if not isinstance(answer, dict):
            return
        if answer.get("error") == ENDED:
            url, person = self._known["base_url"], self._known["person"]
            raise CredentialsInvalid(
                f"{person} is not signed in at {url} any more: `sluice login {url} --user {person}`"
            )
        # RFC 6749, section 6: where none comes, the one before stays good.
        if response.is_success and isinstance(answer.get("refresh_token"), str):
            write_sign_in(self._place, {**self._known, "refresh_token": answer["refresh_token"]})

    def close(self) -> None:
        self._lock.close()


def read_sign_in(place: Path) -> dict[str, str]:
    """`base_url`, `person` and `refresh_token` of a login. Raises CredentialsInvalid where it is none of a person."""
    try:
        found = json.loads(place.read_text())
    except OSError as error:
        raise CredentialsInvalid(f"cannot read {place}: {error.strerror}") from error
    except ValueError:
        # Without the error itself, which shows what it could not read.
        raise CredentialsInvalid(f"{place} is not a JSON object") from None
    if not is_sign_in(found):
        raise CredentialsInvalid(f"{place} is no login of a person")
    return {name: found[name] for name in MEMBERS}


def is_sign_in(found: object) -> bool:
    """Whether what a file holds is a person's sign-in."""
    return isinstance(found, dict) and all(isinstance(found.get(name), str) for name in MEMBERS)


def write_sign_in(place: Path, known: Mapping[str, str]) -> None:
    """Put a sign-in in the place of what the file held, as a whole. Raises CredentialsInvalid."""
    # Here: programs that ask as clients need nothing of what keeps files.
    from sluice.data_folder import write_private
    from sluice.failures import CommandFailed

    try:
        write_private(place, json.dumps({name: known[name] for name in MEMBERS}))
    except CommandFailed as error:
        raise CredentialsInvalid(f"{error}; sign in again") from error


MEMBERS = ("base_url", "person", "refresh_token")


def _locked(file: IO[str], operation: int) -> bool:
    import fcntl

    try:
        fcntl.flock(file, operation)
    except BlockingIOError:
        return False
    return True
