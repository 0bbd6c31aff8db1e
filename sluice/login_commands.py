"""`sluice login`, `logout` and `whoami`: credentials that this user's commands use where nothing else is given."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from typer.main import get_current_context  # type: ignore[attr-defined] # typer exports no other way to ask

from sluice.answers import CredentialsInvalid, Json, Refused
from sluice.connection import connected, identity
from sluice.failures import CommandFailed
from sluice.logins import DEFAULT_PROFILE, MEMBERS, forget, is_of_person, keep, place_of
from sluice.output_options import AsJson
from sluice.tables import print_table
from sluice.version_table import row

if TYPE_CHECKING:
    from sluice.client import Client

USUAL_ADDRESS = "http://127.0.0.1:8080"
SECONDS_SHOWN = 60

OwnProfile = Annotated[
    str, typer.Option("--profile", envvar="SLUICE_PROFILE", help="Its name, where there are several.")
]


def login(  # noqa: PLR0913 - the options of a command
    address: Annotated[str | None, typer.Argument(metavar="url", help="The same as --url.")] = None,
    url: Annotated[str | None, typer.Option(envvar="SLUICE_URL", help="Address of the gateway.")] = None,
    client_id: Annotated[str | None, typer.Option(envvar="SLUICE_CLIENT_ID", help="Id of the client.")] = None,
    user: Annotated[str | None, typer.Option(help="Sign in as this person, not as a client.")] = None,
    from_input: Annotated[
        bool,
        typer.Option(
            "--secret-stdin",
            help="Read the secret from standard input, not from the terminal; of a person the password, and in a "
            "second line the code.",
        ),
    ] = False,
    source: Annotated[
        Path | None,
        typer.Option("--from", help="Take all of it from a file, such as `sluice clients create --output` writes."),
    ] = None,
    profile: OwnProfile = DEFAULT_PROFILE,
    as_json: AsJson = False,
) -> None:
    """Keep a client's credentials, or a person's sign-in, so that every command of this user finds them.

    What no option says is asked for; the secret is never an option, since other
    users of the machine can read those. A token is fetched first: nothing wrong
    is kept. The file is in ~/.config/sluice/logins (or $XDG_CONFIG_HOME), mode 600.

    With --user a person signs in, by a password and, where it is set up, a code
    of the second factor. Neither is kept, but a token that each command renews:
    for 12 hours, or until nothing was asked for an hour.

    Examples:

      sluice login https://sluice.example --user ada

      sluice login --url https://sluice.example --client-id cli_gFq3vUzyJc8

      sluice login --from reading-room.json --profile reading-room

      sluice login --client-id cli_gFq3vUzyJc8 --secret-stdin < secret.txt
    """
    # Before a secret is asked for.
    place_of(profile)
    url = address or url
    if user is not None:
        # A variable is for commands whose options do not say who asks.
        typed = get_current_context().get_parameter_source("client_id")
        if source is not None or (typed is not None and typed.name == "COMMANDLINE"):
            raise CommandFailed("--user signs a person in: it goes with neither --client-id nor --from")
        _sign_in(_address(url, from_input=from_input), user, profile, from_input=from_input, as_json=as_json)
        return
    given = _read(source) if source is not None else _asked(url, client_id, from_input=from_input)
    # Without a name and a password, which would be shown with it.
    given["base_url"] = address_to_keep(given["base_url"])
    _check(given)
    place = keep(profile, given)
    _say(
        {"profile": profile, "base_url": given["base_url"], "client_id": given["client_id"], "file": str(place)},
        as_json,
    )


def logout(profile: OwnProfile = DEFAULT_PROFILE) -> None:
    """Forget a login on this machine; of a person, end the sign-in at the gateway as well.

    The secret of a client stays good: `sluice clients rotate` gives it another one.

    Example:

      sluice logout
    """
    if is_of_person(place := place_of(profile)):
        from sluice.person_login import sign_out

        sign_out(profile, place)
        typer.echo(f"The login {profile} is forgotten on this machine, and its sign-in has ended")
        return
    if not forget(profile):
        raise CommandFailed(f"there is no login {profile}")
    typer.echo(f"The login {profile} is forgotten on this machine; its secret is as good as before")


@connected(admin=False)
def whoami(sluice: Client, as_json: AsJson = False) -> None:
    """Show as whom commands ask, where that is from, and what a token of it may do.

    Examples:

      sluice whoami

      sluice whoami --profile reading-room --json
    """
    # Here: what only prints help needs no HTTP client.
    from sluice.access_token import claims_of

    # A person has no secret to ask with, but may read what the token says.
    state = claims_of(sluice.token()) if sluice.is_person else sluice.introspect(sluice.token())
    said: dict[str, Json] = {
        "base_url": sluice.base_url,
        **({"person": sluice.client_id} if sluice.is_person else {"client_id": state.get("client_id")}),
        "from": identity().origin,
        "scopes": str(state.get("scope", "")).split(),
        "token_expires_at": datetime.fromtimestamp(int(state.get("exp", 0)), UTC).isoformat(),
    }
    if as_json:
        typer.echo(json.dumps(said))
        return
    table = Table("", "", show_header=False)
    for name, value in said.items():
        row(table, name.replace("_", " "), " ".join(value) if isinstance(value, list) else str(value))
    print_table(table)


def _sign_in(base_url: str, name: str, profile: str, *, from_input: bool, as_json: bool) -> None:
    from sluice.person_login import keep_sign_in, proven

    place = keep_sign_in(profile, base_url, name, proven(base_url, name, from_input=from_input))
    _say({"profile": profile, "base_url": base_url, "person": name, "file": str(place)}, as_json)


def _say(said: Mapping[str, str], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(said))
        return
    option = "" if said["profile"] == DEFAULT_PROFILE else f" --profile {said['profile']}"
    who = said.get("person") or said["client_id"]
    typer.echo(f"{who} signs in at {said['base_url']}; `sluice whoami{option}` shows what it may do")


def _address(url: str | None, *, from_input: bool) -> str:
    """The address as it is kept; it is asked for where no option says it. Raises CommandFailed, CredentialsInvalid."""
    if url is None and (from_input or not sys.stdin.isatty()):
        raise CommandFailed("the address of the gateway is missing, and there is no terminal to ask at")
    return address_to_keep(url or str(typer.prompt("Address of the gateway", default=USUAL_ADDRESS, err=True)))


def _asked(url: str | None, client_id: str | None, *, from_input: bool) -> dict[str, str]:
    """The three parts; those that are not given are asked for. Raises CommandFailed where nobody is there to be."""
    missing = [name for name, value in (("--url", url), ("--client-id", client_id)) if value is None]
    if missing and (from_input or not sys.stdin.isatty()):
        raise CommandFailed(f"{' and '.join(missing)} missing, and there is no terminal to ask at")
    if not from_input and not sys.stdin.isatty():
        raise CommandFailed("there is no terminal to ask for the secret at: --secret-stdin reads it, or --from FILE")
    found = {
        "base_url": url or str(typer.prompt("Address of the gateway", default=USUAL_ADDRESS, err=True)),
        "client_id": client_id or str(typer.prompt("Client id", err=True)),
    }
    secret = sys.stdin.readline() if from_input else typer.prompt("Secret (is not shown)", hide_input=True, err=True)
    return found | {"client_secret": str(secret).strip()}


def _read(source: Path) -> dict[str, str]:
    """The credentials in a file, those of an administrator among them. Raises CommandFailed, CredentialsInvalid."""
    try:
        found = json.loads(source.read_text())
    except OSError as error:
        raise CommandFailed(f"cannot read {source}: {error.strerror}") from error
    except ValueError as error:
        raise CredentialsInvalid(f"{source} is not JSON") from error
    missing = [name for name in MEMBERS[:3] if not isinstance(found, dict) or not isinstance(found.get(name), str)]
    if missing:
        raise CredentialsInvalid(f"{source} has no {' and no '.join(missing)}")
    return {name: str(found[name]) for name in MEMBERS if name in found}


def address_to_keep(base_url: str) -> str:
    """The address as it is kept; says so where what goes there can be read on its way. Raises CredentialsInvalid."""
    from sluice.client_login import address_of
    from sluice.peers import is_loopback

    address = address_of(base_url)
    if address.startswith("http:") and not is_loopback(address):
        typer.echo(f"{address} is not encrypted: whoever is on the way can read the secret", err=True)
    return address


def _check(given: Mapping[str, str]) -> None:
    """Fetch a token of each pair. Raises CommandFailed where the gateway refuses it, Unreachable."""
    from sluice.client import Client

    for prefix in ("", "admin_"):
        if f"{prefix}client_id" not in given:
            continue
        client_id, secret = given[f"{prefix}client_id"], given.get(f"{prefix}client_secret", "")
        try:
            with Client(given["base_url"], client_id, secret) as client:
                client.token()
        except Refused as error:
            raise CommandFailed(f"nothing is kept: {given['base_url']} refuses {client_id}: {error}") from error
