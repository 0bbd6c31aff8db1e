"""A person signs in and out from a command line: what the gateway is asked, and what this machine keeps of it."""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path

import httpx
import typer

from sluice.access_token import PUBLIC, unreachable
from sluice.answers import Json, NoGateway, Refused, SluiceFailed, read_answer
from sluice.failures import CommandFailed
from sluice.kept_sign_in import LoginLock, read_sign_in
from sluice.logins import forget, keep, prepare
from sluice.peers import http_options

SIGN_IN_SECONDS = 30.0
TOKENS_PATH = "/admin/tokens"
REVOKE_PATH = "/oauth/revoke"


def proven(base_url: str, name: str, *, from_input: bool) -> str:
    """The refresh token of somebody who proves to be this person; password and code are asked for.

    Raises CommandFailed where the gateway refuses them or nobody is there to be asked, Unreachable.
    """
    password, code = _asked(name, from_input=from_input)
    try:
        answer = _post(base_url, TOKENS_PATH, json={"name": name, "password": password, "code": code or None})
    except Refused as error:
        raise CommandFailed(f"nothing is kept: {base_url} refuses {name}: {error}") from error
    if not isinstance(answer, dict) or not isinstance(answer.get("refresh_token"), str):
        raise NoGateway(f"{base_url} answers, but is no Sluice gateway that people sign in to")
    return str(answer["refresh_token"])


def keep_sign_in(profile: str, base_url: str, name: str, refresh_token: str) -> Path:
    """Write it down in place of what the profile had; returns where. Raises CommandFailed, CredentialsInvalid."""
    # A command that renews the one before would put that back.
    with closing(LoginLock(prepare(profile))):
        return keep(profile, {"base_url": base_url, "person": name, "refresh_token": refresh_token})


def sign_out(profile: str, place: Path) -> None:
    """End the sign-in at the gateway and forget it here; raises CommandFailed where only the second was done."""
    with closing(LoginLock(place)):
        known = read_sign_in(place)
        forget(profile)
    try:
        _post(known["base_url"], REVOKE_PATH, data={**PUBLIC, "token": known["refresh_token"]})
    except SluiceFailed as error:
        raise CommandFailed(_half_done(profile, error)) from error


def _half_done(profile: str, error: Exception) -> str:
    return (
        f"the login {profile} is forgotten on this machine, but the gateway was not told: {error}. Its sign-in ends by "
        "itself after an hour"
    )


def _post(base_url: str, path: str, *, json: Json = None, data: dict[str, str] | None = None) -> Json:
    """What the gateway answers. Raises Refused, Unreachable."""
    with httpx.Client(**http_options(base_url, SIGN_IN_SECONDS)) as http:
        try:
            return read_answer(http.post(path, json=json, data=data))
        except httpx.HTTPError as error:
            raise unreachable(http.base_url, error) from error


def _asked(name: str, *, from_input: bool) -> tuple[str, str]:
    """Password and code, which is empty for who has none: two lines of standard input, or of a terminal."""
    if from_input:
        return sys.stdin.readline().rstrip("\r\n"), sys.stdin.readline().strip()
    if not sys.stdin.isatty():
        raise CommandFailed("there is no terminal to ask for the password at: --secret-stdin reads it")
    password = str(typer.prompt(f"Password of {name} (is not shown)", hide_input=True, err=True))
    # Asked of everybody: the gateway tells nobody who has a second factor.
    code = str(typer.prompt("One-time code, if you have a second factor", default="", show_default=False, err=True))
    return password, code.strip()
