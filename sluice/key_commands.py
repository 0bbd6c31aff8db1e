"""`sluice keys`: signing keys and the master key that seals them, on the machine that has the database."""

from __future__ import annotations

import base64
import secrets
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from sluice.local_database import Data, local_database, use_folder
from sluice.output_options import AsJson
from sluice.tables import print_rows

if TYPE_CHECKING:
    from auth.key_tables import StoredKey

app = typer.Typer(help="Signing keys, and the master key that seals them.", no_args_is_help=True)


@app.command("list")
def list_keys(data: Data = None, as_json: AsJson = False) -> None:
    """Show all signing keys, the newest first, and whether SLUICE_MASTER_KEY is the one that made them.

    Examples:

      sluice keys list

      sluice keys list --json
    """
    use_folder(data)
    from auth.settings import AuthSettings
    from auth.signing_keys import all_keys, is_vouched, state_of
    from model_store.database import clock_ms
    from sluice.configuration import settings_of

    master_keys = settings_of(AuthSettings).master_keys
    heads = ("key", "state", "created", "signs from", "verifies until", "master key")
    found = []
    with local_database(data, write=False) as session:
        now = clock_ms(session)
        for row in all_keys(session):
            made_by = "this one" if is_vouched(row, master_keys) else "another"
            times = (_time(row.created_at), _time(row.signs_from), _time(row.verifies_until))
            found.append((row.kid, state_of(row, now), *times, made_by))
    print_rows(heads, found, "key", as_json=as_json)


@app.command("rotate")
def rotate_key(
    compromised: Annotated[
        bool, typer.Option("--compromised", help="Refuse every token of the keys so far, at once.")
    ] = False,
    master_key_lost: Annotated[
        bool,
        typer.Option(
            "--master-key-lost",
            help="The master key of the keys so far is gone: refuse all of their tokens, and begin anew.",
        ),
    ] = False,
    data: Data = None,
) -> None:
    """Add the next signing key. Nobody is refused over it, unless the keys so far are compromised or lost.

    Examples:

      sluice keys rotate

      sluice keys rotate --compromised
    """
    use_folder(data)
    from auth import signing_keys
    from auth.settings import AuthSettings
    from sluice.configuration import settings_of

    settings = settings_of(AuthSettings)
    with local_database(data) as session:
        made = signing_keys.rotate(
            session,
            settings.master_keys,
            publish_seconds=settings.key_publish_seconds,
            compromised=compromised,
            master_key_lost=master_key_lost,
        )
        typer.echo(_told(made))


# A key's name may begin with a dash.
@app.command("withdraw", context_settings={"ignore_unknown_options": True})
def withdraw_key(
    kid: Annotated[str, typer.Argument(help="Which key: see `sluice keys list`.")], data: Data = None
) -> None:
    """End one key at once; every token that it signed is refused within a second.

    Example:

      sluice keys withdraw rB2wLq0w9jYkY2cC1Yw9nB0d0zX8mE0l2Q3b4c5d6e7
    """
    from auth import signing_keys

    with local_database(data) as session:
        signing_keys.withdraw(session, kid)
    typer.echo(f"{kid} verifies nothing any more")


@app.command("reseal")
def reseal(data: Data = None) -> None:
    """Seal signing keys, second factors and webhook secrets again, under the newest key of SLUICE_MASTER_KEY.

    To change the master key: put the new one in front of the old one at every
    gateway, run this, then take the old one out.

    Example:

      SLUICE_MASTER_KEY="$(cat new old)" sluice keys reseal
    """
    use_folder(data)
    from auth import second_factor, signing_keys
    from auth.settings import AuthSettings
    from sluice.configuration import settings_of
    from workers.webhooks import secrets as webhook_secrets

    master_keys = settings_of(AuthSettings).master_keys
    with local_database(data) as session:
        keys = signing_keys.reseal(session, master_keys)
        factors = second_factor.reseal(session, master_keys)
        webhooks = webhook_secrets.reseal(session, master_keys)
    typer.echo(f"{keys} signing keys, {factors} second factors and {webhooks} webhook secrets were sealed again")


@app.command("new-master")
def new_master() -> None:
    """Print a new master key for SLUICE_MASTER_KEY: 32 random bytes in base64url.

    Example:

      sluice keys new-master > master_key
    """
    typer.echo(base64.urlsafe_b64encode(secrets.token_bytes(32)).rstrip(b"=").decode())


def _told(made: StoredKey) -> str:
    return f"{made.kid} signs from {_time(made.signs_from)} on; every gateway has it before that"


def _time(ms: int | None) -> str:
    return "" if ms is None else datetime.fromtimestamp(ms / 1000, UTC).isoformat(sep=" ", timespec="seconds")
