"""Options that every command has which talks to a gateway: where it is and who asks."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from sluice.client import Sluice
from sluice.failures import CommandFailed

Command = Callable[..., None]

DEMO_FILE = Path("sluice-data/demo.json")

Url = Annotated[
    str | None, typer.Option(envvar="SLUICE_URL", help="Address of the gateway.", rich_help_panel="Who asks")
]
ClientId = Annotated[
    str | None, typer.Option(envvar="SLUICE_CLIENT_ID", help="Id of the client.", rich_help_panel="Who asks")
]
ClientSecret = Annotated[
    str | None,
    typer.Option(
        envvar="SLUICE_CLIENT_SECRET",
        help="Its secret. Better in the environment: other users of the machine can read arguments.",
        rich_help_panel="Who asks",
    ),
]
Credentials = Annotated[
    Path | None,
    typer.Option(
        envvar="SLUICE_CREDENTIALS",
        help=f"JSON file with base_url, client_id and client_secret. Without any of these options: {DEMO_FILE}.",
        rich_help_panel="Who asks",
    ),
]
Admin = Annotated[
    bool,
    typer.Option(
        "--admin/--no-admin",
        help="Of a file with two pairs, use admin_client_id and admin_client_secret.",
        rich_help_panel="Who asks",
    ),
]


def connected(*, admin: bool) -> Callable[[Command], Command]:
    """Gives a command an open client as its first argument, and the options above for it; `admin` is their default."""

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def connect(
            *,
            url: str | None,
            client_id: str | None,
            client_secret: str | None,
            credentials: Path | None,
            admin: bool,
            **options: object,
        ) -> None:
            with _client(url, client_id, client_secret, credentials, admin=admin) as sluice:
                command(sluice, **options)

        # Typer reads a command's options from its signature.
        _, *own = inspect.signature(command, eval_str=True).parameters.values()
        keyword = inspect.Parameter.KEYWORD_ONLY
        shared = [
            inspect.Parameter("url", keyword, default=None, annotation=Url),
            inspect.Parameter("client_id", keyword, default=None, annotation=ClientId),
            inspect.Parameter("client_secret", keyword, default=None, annotation=ClientSecret),
            inspect.Parameter("credentials", keyword, default=None, annotation=Credentials),
            inspect.Parameter("admin", keyword, default=admin, annotation=Admin),
        ]
        parameters = [*(parameter.replace(kind=keyword) for parameter in own), *shared]
        connect.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # PEP 362
        connect.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return connect

    return decorate


def _client(
    url: str | None, client_id: str | None, client_secret: str | None, credentials: Path | None, *, admin: bool
) -> Sluice:
    """A client by the most particular of what was given. Raises CommandFailed, CredentialsInvalid."""
    given = {"--url": url, "--client-id": client_id, "--client-secret": client_secret}
    missing = [name for name, value in given.items() if value is None]
    if url is not None and client_id is not None and client_secret is not None:
        return Sluice(url, client_id, client_secret)
    if credentials is None and len(missing) < len(given):
        raise CommandFailed(f"{' and '.join(missing)} missing; or name a file with --credentials")
    if credentials is None and not DEMO_FILE.exists():
        raise CommandFailed(
            "say who asks: --credentials FILE, or SLUICE_URL, SLUICE_CLIENT_ID and SLUICE_CLIENT_SECRET as variables"
        )
    return Sluice.from_file(
        credentials or DEMO_FILE, admin=admin, base_url=url, client_id=client_id, client_secret=client_secret
    )
